//! The facts for people.
use amoeba_plan::{AttentionSpec, Body, MoeSpec, Part, Window};

use super::facts::{Facts, TextFacts};
use crate::cli::console::{bytes, count, row, table};

/// Everything on one screen.
pub fn render(facts: &Facts, path_asked: bool) -> String {
    let asked = if path_asked { " (as asked)" } else { "" };
    let mut paths = vec![row([&"layers", &"", &"decode step", &format!("prefill, {} rows", facts.rows)])];
    paths.extend(facts.layers.iter().map(|layers| {
        let range = match layers.first == layers.last {
            true => layers.first.to_string(),
            false => format!("{} to {}", layers.first, layers.last),
        };
        row([&range, &layers.blocks, &layers.decode, &layers.prefill])
    }));
    format!(
        "{}\n{}\n{}\n{}\nexpert path{asked}\n{}\n{}",
        architecture(facts),
        quantisation(facts),
        reads(facts),
        memory(facts),
        table(&paths, [false, false, false, false]),
        match &facts.text {
            Ok(text) => words(text),
            Err(error) => format!("text\n  {error}\n"),
        }
    )
}

fn architecture(facts: &Facts) -> String {
    let spec = &facts.plan.spec;
    let bodies = || spec.layers.iter().flat_map(|layer| &layer.blocks).map(|block| &block.body);
    let attention =
        bodies().find_map(|body| if let Body::Attention(spec) = body { Some(spec) } else { None });
    let moe = bodies().find_map(experts_of);
    let (layers, expert_layers) = facts.layer_counts();
    let weights = match facts.files {
        Some(files) => format!(
            "{} in {files} {}, {:.3} bits per parameter",
            bytes(facts.bytes),
            if files == 1 { "file" } else { "files" },
            facts.bits_per_parameter()
        ),
        None => format!("MISSING; about {} by config.json", bytes(facts.bytes)),
    };
    let active = count(facts.active.round() as u64);
    let family = match &spec.part_of {
        None => spec.family.to_owned(),
        Some(whole) => {
            format!("{}, as the text part of {whole}: images and sound are not supported", spec.family)
        }
    };
    let mut rows = vec![
        row([&"family", &family]),
        row([
            &"parameters",
            &format!("{}, {active} active per token", count(facts.plan.parameters() as u64)),
        ]),
        row([&"weights", &weights]),
        row([&"layers", &format!("{layers}, {expert_layers} with experts")]),
        row([&"hidden", &spec.hidden]),
        row([&"vocabulary", &format!("{}{}", spec.vocab, if spec.head.tied { ", head tied" } else { "" })]),
        row([&"context", &format!("{} positions", spec.context_max)]),
    ];
    rows.extend(attention.map(|spec| row([&"attention", &describe_attention(spec)])));
    rows.extend(moe.map(|spec| row([&"experts", &describe_experts(spec)])));
    rows.extend(facts.notes.iter().map(|note| row([&"note", note])));
    format!("{}\n{}", facts.dir.display(), table(&rows, [false, false]))
}

/// The experts of a body, or of one of the bodies whose sum it is.
fn experts_of(body: &Body) -> Option<&MoeSpec> {
    match body {
        Body::Moe(spec) => Some(spec),
        Body::Sum(blocks) => blocks.iter().find_map(|block| experts_of(&block.body)),
        _ => None,
    }
}

fn describe_attention(spec: &AttentionSpec) -> String {
    let window = match spec.window {
        None => String::new(),
        Some(Window::Sliding(width)) => format!(", window {width}"),
        Some(Window::Chunk(width)) => format!(", chunks of {width}"),
    };
    let norm = if spec.qk_norm.is_some() { ", query and key norms" } else { "" };
    format!("{} heads over {} of width {}{norm}{window}", spec.heads, spec.kv_heads, spec.head_dim)
}

fn describe_experts(spec: &MoeSpec) -> String {
    let shared = if spec.shared.is_some() { ", one shared" } else { "" };
    let (top_k, experts, d_ff) = (spec.rule.top_k, spec.experts, spec.d_ff);
    format!(
        "{top_k} of {experts} of width {d_ff}{shared}, {:?}, {:?} router",
        spec.activation, spec.rule.score
    )
}

fn quantisation(facts: &Facts) -> String {
    let mut rows = vec![row([&"part", &"format", &"tensors", &"bytes"])];
    let line = |((part, format), (tensors, size)): (&(Part, String), &(usize, u64))| {
        row([part, format, tensors, &bytes(*size)])
    };
    rows.extend(facts.formats.iter().map(line));
    format!("quantisation\n{}", table(&rows, [false, false, true, true]))
}

fn reads(facts: &Facts) -> String {
    let total = facts.bytes_per_token();
    let line = |name: &str, size: f64| {
        row([&name, &bytes(size.round() as u64), &format!("{:.1} %", size / total.max(1.0) * 100.0)])
    };
    let parts = facts.reads.iter();
    let mut rows: Vec<_> = parts.map(|(part, size)| line(&part.to_string(), *size)).collect();
    rows.push(line("all", total));
    let [cache, state] = facts.cache_bytes();
    let state = match state {
        0 => String::new(),
        state => format!(", and {} of state, which are written too", bytes(state)),
    };
    format!(
        "read per decoded token\n{}  and {} of keys and values per position{state}\n",
        table(&rows, [false, true, true]),
        bytes(cache)
    )
}

fn memory(facts: &Facts) -> String {
    let need = facts.need;
    let rows = [
        row([&"weights", &bytes(need.weights)]),
        row([
            &if facts.cache_bytes()[1] > 0 { "keys, values, states" } else { "keys and values" },
            &bytes(need.cache),
        ]),
        row([&"buffers", &bytes(need.buffers)]),
        row([&"needed", &bytes(need.total())]),
    ];
    let verdict = facts.memory.map_or("available: unknown".to_owned(), |memory| {
        let fits = if need.total() <= memory.available { "it fits" } else { "it does NOT fit" };
        let whose = if memory.limited { " (container limit)" } else { "" };
        format!("available: {}{whose}, {fits}", bytes(memory.available))
    });
    format!("memory at {} positions\n{}  {verdict}\n", need.context, table(&rows, [false, true]))
}

fn words(text: &TextFacts) -> String {
    let ends: Vec<String> = text.ends.iter().map(|(id, spelled)| format!("{spelled:?} ({id})")).collect();
    let template = text.template.map_or("none: use --raw".to_owned(), |size| bytes(size as u64));
    let tags = text.reasoning.as_ref();
    let thoughts = tags.map_or("no tags".to_owned(), |(open, close)| format!("between {open} and {close}"));
    let rows = [
        row([&"tokens", &text.vocab]),
        row([&"ends", &ends.join(", ")]),
        row([&"chat template", &template]),
        row([&"reasoning", &thoughts]),
        row([&"tool calls", &text.dialect.unwrap_or("none known")]),
    ];
    format!("text\n{}", table(&rows, [false, false]))
}
