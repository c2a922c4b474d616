//! `amoeba verify`: model folders against their recorded results.
use std::path::PathBuf;

use amoeba_harness::{Check, Report, VerifyOptions, verify};
use serde_json::{Value, json};

use super::common::DeviceArgs;
use super::console::{Console, print, print_json, row, table};
use super::failure::{self, Failure};

/// Flags of `verify`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folders with expected.json and expected.safetensors
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// As JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As a table for documents
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

const MARKDOWN_HEAD: &str = "\
| fixture | device | prefill max\\|Δ\\| | used | decode max\\|Δ\\| | used | MoE block rms | used | tokens |
|---|---|---:|---:|---:|---:|---:|---:|---|
";

/// Checks every folder; a difference in one does not keep the others from being checked.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let options = VerifyOptions { load: args.device.options(None) };
    if args.markdown {
        print(MARKDOWN_HEAD)?;
    }
    let mut results = Vec::new();
    let (mut failed, mut code) = (0_usize, failure::FAILED);
    for folder in &args.folders {
        let name = folder.display().to_string();
        match verify(folder, &options) {
            Ok(report) => {
                failed += usize::from(!report.passed());
                match (args.json, args.markdown) {
                    (true, _) => results.push(as_json(&name, &report)),
                    (_, true) => print(&as_markdown(&report))?,
                    _ => print(&as_text(&report))?,
                }
            }
            Err(error) => {
                let failure = Failure::from(error);
                let message = if failure.message.contains(&name) {
                    failure.message
                } else {
                    format!("{name}: {}", failure.message)
                };
                console.error(&message);
                results.push(json!({ "folder": name, "passed": false, "error": message }));
                (failed, code) = (failed + 1, failure.code);
            }
        }
    }
    if args.json {
        print_json(&Value::Array(results))?;
    }
    let all = args.folders.len();
    match failed {
        0 if args.json || args.markdown => Ok(()),
        0 => print(&format!("{all} of {all} passed\n")),
        _ => Err(Failure::new(code, format!("{failed} of {all} folders did not pass"))),
    }
}

/// `32 of 32 equal`, or where they part.
fn tokens(report: &Report) -> String {
    match &report.divergence {
        None => format!("{0} of {0} equal", report.tokens),
        Some(d) => format!(
            "token {} is {}, expected {} (its logit is {:.1e} higher)",
            d.index, d.found, d.expected, d.margin
        ),
    }
}

fn percent(used: f64) -> String {
    if used < 0.1 { format!("{:.2} %", used * 100.0) } else { format!("{:.1} %", used * 100.0) }
}

fn as_text(report: &Report) -> String {
    let verdict = if report.passed() { "passed" } else { "FAILED" };
    let [prompt, decode] = &report.paths;
    let mut rows = vec![row([&"check", &"error", &"allowed", &"used", &""])];
    for check in &report.checks {
        let wrong = if check.passed() { String::new() } else { format!("<- {}", check.at) };
        rows.push(row([
            &check.name,
            &format!("{:.2e}", check.error),
            &format!("{:.0e}", check.allowed),
            &percent(check.used()),
            &wrong,
        ]));
    }
    format!(
        "{}: {verdict}\n  {}, {}, prompt {prompt}, decode {decode}\n{}  tokens: {}\n",
        report.name,
        report.family,
        report.device,
        table(&rows, [false, true, true, true, false]),
        tokens(report)
    )
}

fn as_markdown(report: &Report) -> String {
    let worst = |names: &[&str]| {
        let checks = report.checks.iter().filter(|check| names.contains(&check.name));
        checks.max_by(|a, b| a.used().total_cmp(&b.used()))
    };
    let cells = |check: Option<&Check>| match check {
        Some(check) => format!("{:.1e} | {}", check.error, percent(check.used())),
        None => "– | –".to_owned(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} |\n",
        report.name,
        report.device,
        cells(worst(&["prefill logits"])),
        cells(worst(&["decode logits"])),
        cells(worst(&["moe input", "moe output"])),
        tokens(report)
    )
}

fn as_json(folder: &str, report: &Report) -> Value {
    let checks: Vec<Value> = report
        .checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name, "error": check.error, "allowed": check.allowed, "used": check.used(),
                "at": check.at, "passed": check.passed(),
            })
        })
        .collect();
    let divergence = report
        .divergence
        .as_ref()
        .map(|d| json!({ "index": d.index, "expected": d.expected, "found": d.found, "margin": d.margin }));
    json!({
        "folder": folder, "name": report.name, "family": report.family, "device": report.device,
        "paths": { "prompt": report.paths[0], "decode": report.paths[1] },
        "checks": checks, "tokens": report.tokens, "divergence": divergence, "passed": report.passed(),
    })
}
