//! docs/families.md says which families run, in which formats and on which path: written from what a loaded
//! fixture of each family really does, and compared with the file. `UPDATE_DOCS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amoeba_backend::{Executable, Row, Stage};
use amoeba_checkpoint::Checkpoint;
use amoeba_engine::{LoadOptions, load_executable};
use amoeba_plan::{Body, LatentForm, LinearOp, Op, Plan, families};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a fixture showed.
struct Seen {
    fixture: String,
    family: &'static str,
    mixers: BTreeSet<&'static str>,
    formats: BTreeSet<String>,
    decode: BTreeSet<&'static str>,
    prefill: BTreeSet<&'static str>,
}

fn mixer(body: &Body) -> Option<&'static str> {
    match body {
        Body::Attention(spec) if spec.window.is_some() => Some("local attention"),
        Body::Attention(_) => Some("attention"),
        Body::Latent(spec) if matches!(spec.form, LatentForm::Expanded(_)) => {
            Some("expanded latent attention")
        }
        Body::Latent(_) => Some("latent attention"),
        Body::Delta(_) => Some("gated delta net"),
        Body::Mamba(_) => Some("state space"),
        Body::ShortConv(_) => Some("short convolution"),
        Body::Mlp(_) | Body::Moe(_) | Body::PerLayer { .. } | Body::Sum(_) => None,
    }
}

/// Runs a prompt of nine tokens and one more on the CPU, recorded.
fn look(dir: &Path) -> Seen {
    let checkpoint = Arc::new(Checkpoint::open(dir).unwrap());
    let options = LoadOptions { context: Some(16), rows: 9, threads: Some(1), ..LoadOptions::default() };
    let mut executable = load_executable(&checkpoint, &options, &mut |_, _| {}).unwrap();
    executable.record(10_000).unwrap();
    let row = |position| Row { token: 1 + position as u32, slot: 0, position, logits: true };
    executable.step(&(0..9).map(row).collect::<Vec<_>>(), None).unwrap();
    let prefill = stages(&mut *executable);
    executable.step(&[row(9)], None).unwrap();
    let decode = stages(&mut *executable);
    let plan = executable.plan();
    let stored = plan.stored(&checkpoint).unwrap();
    let formats = plan.program.iter().filter_map(|step| match &step.op {
        Op::Experts(op) => Some(stored[op.down.stack.0].format.to_string()),
        Op::Linear(LinearOp { weight, .. }) if !has_experts(plan) => {
            Some(stored[weight.0].format.to_string())
        }
        _ => None,
    });
    let bodies = plan.spec.layers.iter().flat_map(|layer| &layer.blocks).map(|block| &block.body);
    Seen {
        fixture: dir.file_name().unwrap().to_string_lossy().into_owned(),
        family: plan.spec.family,
        mixers: bodies.filter_map(mixer).collect(),
        formats: formats.collect(),
        decode,
        prefill,
    }
}

fn has_experts(plan: &Plan) -> bool {
    plan.program.iter().any(|step| matches!(step.op, Op::Experts(_)))
}

/// How the experts of the last step ran.
fn stages(executable: &mut dyn Executable) -> BTreeSet<&'static str> {
    let recording = executable.recorded().unwrap();
    let program = &executable.plan().program;
    let spans = recording.lanes.iter().flatten();
    let of_experts =
        spans.filter(|span| span.op.is_some_and(|op| matches!(program[op as usize].op, Op::Experts(_))));
    of_experts
        .filter_map(|span| match span.stage {
            Stage::Fused => Some("fused"),
            Stage::GateUp => Some("unfused"),
            _ => None,
        })
        .collect()
}

fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    if items.is_empty() { "–".to_owned() } else { items.join(", ") }
}

/// Known families with experts that have no row, and why.
const MISSING: [(&str, &str); 7] = [
    ("bailing_hybrid, bailing_moe_linear, bailing_moe_v3", "decayed linear attention is not built in"),
    ("dbrx, phixtral", "clipped projections, blocks side by side; superseded models"),
    ("deepseek_v32, glm_moe_dsa", "the indexer that picks keys is not built in"),
    ("deepseek_v41, kimi_k3, muse_spark", "too large for one machine"),
    ("laguna", "heads that differ by layer and a square-root softplus router are not built in"),
    ("longcat_flash", "too large for one machine; experts that return their input"),
    ("minimax_m3_vl", "block-sparse attention is not built in"),
];

#[test]
fn the_table_of_families_is_what_fixtures_do() {
    let mut seen: Vec<Seen> = Vec::new();
    for entry in std::fs::read_dir(root().join("fixtures")).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("expected.json").exists() {
            seen.push(look(&dir));
        }
    }
    seen.sort_by(|a, b| a.fixture.cmp(&b.fixture));
    let mut text = String::from(
        "# Families\n\n\
         What runs, on the CPU, by `model_type` of `config.json`. `crates/harness/tests/families.rs`\n\
         writes this page from a fixture of each family: it loads the fixture, runs and records a\n\
         prompt of nine tokens and one decode step, and names the path that the experts took.\n\
         [results/parity.md](results/parity.md) has the errors. The path does not depend on the format:\n\
         every family reads every format of [the list below](#formats). The formats in the table are\n\
         those of the fixture's experts (for a dense family: of its products).\n\n\
         A checkpoint of several parts (`text_config`: `gemma4`, `llama4`, `qwen3_5_moe`, `mistral3`,\n\
         `kimi_k25`, …) runs its text part.\n\n\
         | `model_type` | the same | mixers | formats | decode | prefill | fixtures \
         |\n|---|---|---|---|---|---|---|\n",
    );
    for (name, also) in families() {
        let mine: Vec<&Seen> = seen.iter().filter(|seen| seen.family == name).collect();
        assert!(!mine.is_empty(), "{name} has no fixture");
        let all = |of: fn(&Seen) -> &BTreeSet<&'static str>| {
            list(mine.iter().flat_map(|seen| of(seen)).collect::<BTreeSet<_>>())
        };
        let formats = list(mine.iter().flat_map(|seen| &seen.formats).collect::<BTreeSet<_>>());
        let fixtures = if mine.len() > 3 {
            format!("{} of {}", mine.len(), name)
        } else {
            list(mine.iter().map(|seen| &seen.fixture))
        };
        let (mixers, decode, prefill) = (all(|s| &s.mixers), all(|s| &s.decode), all(|s| &s.prefill));
        writeln!(
            text,
            "| {name} | {} | {mixers} | {formats} | {decode} | {prefill} | {fixtures} |",
            list(also)
        )
        .unwrap();
    }
    text += "\nUp to 8 rows take the fused path through the experts, more rows the unfused one (`amoeba\n\
             inspect MODEL` says so layer by layer); – means no experts.\n\n## Formats\n\nOf experts in \
             fixtures: ";
    text += &list(seen.iter().flat_map(|seen| &seen.formats).collect::<BTreeSet<_>>());
    text += ".\n\n## Not built in\n\n| `model_type` | why |\n|---|---|\n";
    let names: Vec<&str> = families().flat_map(|(name, also)| [&[name], also].concat()).collect();
    for (missing, why) in MISSING {
        for name in missing.split(", ") {
            assert!(!names.contains(&name), "{name} is built in");
        }
        writeln!(text, "| {missing} | {why} |").unwrap();
    }
    let file = root().join("docs/families.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "docs/families.md is not what fixtures do; run this test with UPDATE_DOCS=1");
}
