//! The facts for programs. Keys are only ever added.
use serde_json::{Value, json};

use super::facts::Facts;

/// All facts.
pub fn render(facts: &Facts) -> Value {
    let spec = &facts.plan.spec;
    let (layers, expert_layers) = facts.layer_counts();
    let formats: Vec<Value> = facts
        .formats
        .iter()
        .map(|((part, format), (tensors, bytes))| {
            json!({ "format": format, "part": part.to_string(), "tensors": tensors, "bytes": bytes })
        })
        .collect();
    let reads: Value = facts.reads.iter().map(|(part, bytes)| (part.to_string(), bytes.round())).collect();
    let [cache_per_position, state] = facts.cache_bytes();
    let [decode, prefill] = &facts.paths;
    let end = |(id, text): &(u32, String)| json!({ "id": id, "text": text });
    let text = match &facts.text {
        Ok(text) => json!({
            "vocabulary": text.vocab,
            "end_tokens": text.ends.iter().map(end).collect::<Vec<_>>(),
            "chat_template_bytes": text.template,
            "reasoning_tags": text.reasoning,
            "tool_dialect": text.dialect,
        }),
        Err(error) => json!({ "error": error }),
    };
    json!({
        "folder": facts.dir,
        "family": spec.family,
        "part_of": spec.part_of,
        "layers": layers,
        "expert_layers": expert_layers,
        "hidden": spec.hidden,
        "vocabulary": spec.vocab,
        "context_max": spec.context_max,
        "parameters": { "total": facts.plan.parameters(), "active": facts.active.round() },
        "weights": {
            "present": facts.files.is_some(),
            "files": facts.files,
            "bytes": facts.bytes,
            "bits_per_parameter": facts.bits_per_parameter(),
            "formats": formats,
        },
        "bytes_per_token": {
            "total": facts.bytes_per_token().round(),
            "parts": reads,
            "cache_per_position": cache_per_position,
            "state": state,
        },
        "memory": {
            "context": facts.need.context,
            "weights": facts.need.weights,
            "cache": facts.need.cache,
            "buffers": facts.need.buffers,
            "needed": facts.need.total(),
            "available": facts.memory.map(|memory| memory.available),
            "fits": facts.memory.map(|memory| facts.need.total() <= memory.available),
        },
        "layer_paths": facts.layers.iter().map(|layers| json!({
            "first": layers.first, "last": layers.last, "blocks": layers.blocks,
            "decode": layers.decode, "prefill": layers.prefill,
        })).collect::<Vec<_>>(),
        "path": { "decode": decode, "prefill": prefill, "prefill_rows": facts.rows },
        "text": text,
        "notes": facts.notes,
    })
}
