//! Repository chores: `cargo xtask test | check | ci | tidy | size | nvrtc | bench-op | device-pack`. Std
//! only, so it builds in seconds on a bare toolchain.
//!
//! `ci` decides whether a change may land: `test`, then `check`. `tidy` holds the rules that the compiler and
//! clippy cannot know; `size` shows what the code costs, `bench-op` what an op does alone; `device-pack`
//! prepares a run on a GPU. Start reading at [`ci::run`].
mod bench;
mod ci;
mod command;
mod device_pack;
mod files;
mod nvrtc;
mod scan;
mod size;
mod test;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  test   builds and runs the tests: a line for each, what was skipped, the ten slowest
  check  everything else: format, tidy, size, gate, doc tests, docs, clippy, CUDA kernels; a table of times
  ci     both: everything a change must pass
  tidy   house rules: lengths of files and lines, layers, unsafe, dead links
  size   lines of code per crate, number of tests, size of the release binary
  nvrtc [LIBRARY]
         compiles the CUDA kernels for three architectures and writes docs/results/nvrtc.md; spills are faults
  bench-op experts|linear [-- ARGS]
         times an op alone: `experts` is its ladder from naive to fused
  device-pack DIR [--nvrtc VENV] [--llama SDIST.tar.gz | --llama LLAMA-BENCH]
         a folder to copy to a machine with a GPU and no Rust; with NVRTC of a Python
         environment, and llama.cpp to compare with";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = files::root();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => ci::test(&root),
        ["check"] => ci::check(&root),
        ["ci"] => ci::run(&root),
        ["tidy"] => tidy::run(&root),
        ["size"] => size::run(&root),
        ["nvrtc"] => nvrtc::run(&root, None),
        ["nvrtc", library] => nvrtc::run(&root, Some(library)),
        ["bench-op", op, args @ ..] => bench::run(&root, op, args),
        ["device-pack", dir, extras @ ..] => match device_pack::Extras::parse(extras) {
            Some(extras) => device_pack::run(&root, Path::new(dir), &extras),
            None => Err(USAGE.to_owned()),
        },
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
