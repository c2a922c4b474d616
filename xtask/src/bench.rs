//! `cargo xtask bench-op OP [-- args]`: builds the example that times an op, optimised, and runs it.
use std::path::Path;
use std::process::Command;

/// Ops that can be timed alone, and the features their examples need.
const OPS: &[(&str, &[&str])] = &[("experts", &["--features", "ladder"]), ("linear", &[])];

/// Runs the example of `op` with `args` (a leading `--` is dropped).
pub fn run(root: &Path, op: &str, args: &[&str]) -> Result<(), String> {
    let args = arguments(op, args)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match Command::new(cargo).args(&args).current_dir(root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("bench-op {op} ended with {status}")),
        Err(error) => Err(format!("bench-op {op}: cargo did not start: {error}")),
    }
}

/// What cargo is called with.
fn arguments<'a>(op: &'a str, args: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let Some((_, features)) = OPS.iter().find(|(name, _)| *name == op) else {
        let known: Vec<&str> = OPS.iter().map(|(name, _)| *name).collect();
        return Err(format!("bench-op {op}: no such op; one of {}", known.join(", ")));
    };
    let mut all = vec!["run", "--quiet", "--release", "--package", "amoeba-kernels"];
    all.extend_from_slice(features);
    all.extend(["--example", op, "--"]);
    all.extend_from_slice(args.strip_prefix(&["--"]).unwrap_or(args));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_example_with_or_without_dashes_if_there_is_one() {
        for args in [&["--", "--rows", "4"][..], &["--rows", "4"]] {
            let all = arguments("experts", args).unwrap();
            assert_eq!(all[5..], ["--features", "ladder", "--example", "experts", "--", "--rows", "4"]);
        }
        assert_eq!(arguments("linear", &[]).unwrap()[5..], ["--example", "linear", "--"]);
        assert_eq!(arguments("norm", &[]).unwrap_err(), "bench-op norm: no such op; one of experts, linear");
    }
}
