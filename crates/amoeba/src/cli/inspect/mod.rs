//! `amoeba inspect`: what a model is, what a token costs, and whether it fits.
mod facts;
mod json;
mod layers;
mod text;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use amoeba::{Device, PathChoice, Plan};
use amoeba_backend::CPU_CAPABILITIES;
use amoeba_checkpoint::{Checkpoint, Config};
use amoeba_hub::Hub;
use amoeba_plan::{Capabilities, groups, print_groups};
use serde_json::Value;

use super::common::DeviceArgs;
use super::console::{bytes, print, print_json, row, table};
use super::failure::{self, Failure};
use facts::Facts;

/// Flags of `inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// A folder (config.json alone will do), owner/name, or the name of one of mlx-community
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// The same, as other verbs take it
    #[arg(short, long = "model", value_name = "MODEL", conflicts_with = "model", hide = true)]
    named: Option<String>,
    /// Print the decode program, or with --device cpu, cuda or reference the groups of ops that run together
    /// there; no such device is needed
    #[arg(long, group = "what")]
    plan: bool,
    /// With --plan and --device: groups of a step of N rows
    #[arg(long, value_name = "N", default_value = "1", requires = "plan")]
    rows: NonZeroUsize,
    /// List the tensors
    #[arg(long, group = "what")]
    tensors: bool,
    /// Read every scale, bias and float and report the first that is not finite
    #[arg(long, group = "what")]
    check_tensors: bool,
    /// As JSON; --plan and --tensors add theirs
    #[arg(long)]
    json: bool,
    /// Positions of context to count memory for
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<usize>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Prints what was asked for.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (dir, has_weights) = match args.model.as_ref().or(args.named.as_ref()) {
        Some(name) => locate(name)?,
        None => (amoeba::bundled_model()?, true),
    };
    if args.check_tensors || args.tensors {
        let checkpoint = Checkpoint::open(&dir)?;
        return if args.check_tensors { check(&checkpoint, args.json) } else { tensors(&checkpoint, args) };
    }
    let config = Config::read(&dir, "config.json")?
        .ok_or_else(|| Failure::new(failure::NOT_FOUND, format!("{}: no config.json", dir.display())))?;
    if args.plan && !args.json {
        let plan = match has_weights {
            true => amoeba::Plan::of(&Checkpoint::open(&dir)?)?,
            false => amoeba::Plan::new(&config)?,
        };
        return print(&program(&plan, args));
    }
    let facts = Facts::read(&dir, &config, has_weights, &args.device.options(args.ctx_size))?;
    if args.json {
        let mut value = json::render(&facts);
        if args.plan {
            let lines = program(&facts.plan, args).lines().map(|line| Value::from(line.trim_end())).collect();
            value["plan"] = Value::Array(lines);
        }
        return print_json(&value);
    }
    print(&text::render(&facts, args.device.place.path != PathChoice::Auto))
}

/// The program op by op, or as the groups of a device that was named.
fn program(plan: &Plan, args: &Args) -> String {
    let can = match args.device.place.device {
        Device::Auto => return plan.to_string(),
        Device::Cpu => CPU_CAPABILITIES,
        Device::Cuda(_) => amoeba_kernels::gpu::capabilities(true),
        Device::Reference => Capabilities::ALONE,
    };
    print_groups(plan, &groups(plan, &can, args.rows.get(), args.device.place.path))
}

/// The folder a name means and whether all its weights are there: to be looked at it needs no more than
/// config.json.
fn locate(name: &str) -> Result<(PathBuf, bool), Failure> {
    match Hub::from_env().resolve(name) {
        Ok(found) => Ok((found.dir, true)),
        Err(amoeba_hub::Error::Incomplete { dir, .. }) if dir.join("config.json").is_file() => {
            Ok((dir, false))
        }
        Err(error) => Err(error.into()),
    }
}

fn check(checkpoint: &Checkpoint, json: bool) -> Result<(), Failure> {
    checkpoint.check_values()?;
    let (tensors, size) = (checkpoint.index().len(), checkpoint.total_bytes());
    if json {
        return print_json(&serde_json::json!({ "tensors": tensors, "bytes": size, "finite": true }));
    }
    print(&format!("{tensors} tensors, {}: every scale, bias and float is finite\n", bytes(size)))
}

fn tensors(checkpoint: &Checkpoint, args: &Args) -> Result<(), Failure> {
    let index = checkpoint.index();
    if args.json {
        let list = index.iter().map(|tensor| {
            serde_json::json!({
                "name": tensor.name, "dtype": tensor.dtype.name(), "shape": tensor.shape,
                "bytes": tensor.range.len(), "file": index.files()[tensor.shard],
            })
        });
        return print_json(&serde_json::json!({ "tensors": list.collect::<Vec<_>>() }));
    }
    let mut rows = vec![row([&"tensor", &"type", &"shape", &"bytes", &"file"])];
    rows.extend(index.iter().map(|tensor| {
        let file = &index.files()[tensor.shard];
        row([&tensor.name, &tensor.dtype, &format!("{:?}", tensor.shape), &tensor.range.len(), file])
    }));
    print(&table(&rows, [false, false, false, true, false]))
}
