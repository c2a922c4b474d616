//! What a step costs on paper: bytes it reads by part, products it does. Held against what was measured.

use std::fmt::Write;

use amoeba_backend::KvType;
use amoeba_checkpoint::Checkpoint;
use amoeba_plan::{Op, Part, Plan, Stored, WeightId, WeightShape, parts};
use serde_json::{Map, Value};

use super::parts::Reads;
use crate::Error;
use crate::trace::visible;

/// What identifies a model, and what its steps cost.
#[derive(Clone, Debug)]
pub struct Model {
    /// As a person would call it.
    pub name: String,
    /// Hash of `config.json`, of all shard headers (names, types, shapes, places), and of `SAMPLE` bytes at
    /// the beginning, in the middle and at the end of every tensor. Other training changes it, a few changed
    /// bytes may not.
    pub hash: String,
    /// Bytes of all tensors in the files.
    pub bytes: u64,
    /// Stored formats of matrices, most bytes first.
    pub formats: Vec<String>,
    plan: Plan,
    stored: Vec<Stored>,
    parts: Vec<Part>,
}

impl Model {
    /// Looks at an opened folder.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn new(name: &str, checkpoint: &Checkpoint, plan: &Plan) -> Result<Model, Error> {
        let stored = plan.stored(checkpoint)?;
        let mut sizes: Vec<(String, usize)> = Vec::new();
        for (weight, stored) in plan.weights.iter().zip(&stored) {
            let format = stored.format.to_string();
            match sizes.iter_mut().find(|(known, _)| *known == format) {
                _ if matches!(weight.shape, WeightShape::Vector(_)) => {}
                Some((_, bytes)) => *bytes += stored.bytes,
                None => sizes.push((format, stored.bytes)),
            }
        }
        sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Ok(Model {
            name: name.to_owned(),
            hash: hash(checkpoint),
            bytes: checkpoint.total_bytes(),
            formats: sizes.into_iter().map(|(format, _)| format).collect(),
            parts: parts(plan),
            plan: plan.clone(),
            stored,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How each weight is stored.
    pub fn stored(&self) -> &[Stored] {
        &self.stored
    }

    /// Part of the model each weight belongs to.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Routers of the program, each with its number of experts and of experts per token.
    pub fn routers(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.plan.program.iter().enumerate().filter_map(|(i, step)| match &step.op {
            Op::Router(op) => Some((i, op.experts, op.rule.top_k)),
            _ => None,
        })
    }

    /// Bytes that a decode step of `rows` sequences reads when each attends to `positions` positions.
    /// `distinct` is the number of different experts needed, one per router in the order of the program.
    pub fn reads(&self, rows: usize, positions: f64, kv: KvType, distinct: &[f64]) -> Reads {
        let element = match kv {
            KvType::F32 => 4,
            KvType::F16 => 2,
        };
        let mut reads = Reads::default();
        let shares = self.expert_shares(distinct);
        for (index, (stored, part)) in self.stored.iter().zip(&self.parts).enumerate() {
            let share = self.plan.share_read_per_token(WeightId(index));
            let bytes = stored.bytes as f64;
            match part {
                Part::Experts => {
                    let known = shares.iter().find(|(id, _)| id.0 == index);
                    reads.experts += bytes * known.map_or(share, |(_, share)| *share);
                }
                Part::Embedding => reads.other += bytes * (share * rows as f64).min(1.0),
                Part::Shared => reads.shared_experts += bytes * share,
                Part::Mlp => reads.mlp += bytes * share,
                Part::Attention => reads.attention += bytes * share,
                Part::Recurrent => reads.recurrent += bytes * share,
                Part::Router => reads.router += bytes * share,
                Part::Head => reads.head += bytes * share,
                Part::Other => reads.other += bytes * share,
            }
        }
        for step in &self.plan.program {
            if let Op::Attention(op) = &step.op {
                let elements = self.plan.caches[op.cache.0].kind.elements_per_position();
                reads.kv += visible(positions, op.window) * (elements * element * rows) as f64;
            }
        }
        let state: usize = self.plan.caches.iter().map(|cache| cache.kind.elements_per_sequence()).sum();
        reads.state = (4 * state * rows) as f64;
        reads
    }

    /// Share of each stack of experts that is read: the router before it says how many of its experts are
    /// needed.
    fn expert_shares(&self, distinct: &[f64]) -> Vec<(WeightId, f64)> {
        let mut shares = Vec::new();
        let mut routers = 0_usize;
        for step in &self.plan.program {
            match &step.op {
                Op::Router(_) => routers += 1,
                Op::Experts(op) => {
                    let counted = routers.checked_sub(1).and_then(|router| distinct.get(router));
                    let needed = counted.copied().unwrap_or(op.top_k as f64);
                    let stacks = [op.gate, Some(op.up), Some(op.down)].into_iter().flatten();
                    shares.extend(stacks.map(|weights| (weights.stack, needed / op.experts as f64)));
                }
                _ => {}
            }
        }
        shares
    }

    /// Products of a weight and a number of x that one row passes: up to the head, and in the head.
    pub fn products(&self) -> [f64; 2] {
        let mut products = [0.0; 2];
        for (index, step) in self.plan.program.iter().enumerate() {
            products[usize::from(index >= self.plan.head)] += self.op_products(&step.op);
        }
        products
    }

    /// Products of a weight and a number of x that one row passes in an op.
    pub fn op_products(&self, op: &Op) -> f64 {
        let elements = |id: WeightId| self.plan.weight(id).shape.elements() as f64;
        match op {
            Op::Linear(op) => elements(op.weight),
            Op::HeadLinear(op) => elements(op.weight),
            Op::Experts(op) => {
                let stacks = [op.gate, Some(op.up), Some(op.down)].into_iter().flatten();
                let all: f64 = stacks.map(|weights| elements(weights.stack)).sum();
                all * op.top_k as f64 / op.experts as f64
            }
            _ => 0.0,
        }
    }
}

/// Bytes of a tensor that the hash covers, at three places.
pub const SAMPLE: usize = 64;

/// FNV-1a, 64 bits: the same in every build, and enough to tell models apart.
fn hash(checkpoint: &Checkpoint) -> String {
    let mut text = String::new();
    sorted(checkpoint.config().raw(), &mut text);
    for tensor in checkpoint.index().iter() {
        let (shape, range) = (tensor.shape, &tensor.range);
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{} {} {shape:?} {} {range:?}", tensor.name, tensor.dtype, tensor.shard);
    }
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let mut hash = text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    for tensor in checkpoint.names().filter_map(|name| checkpoint.tensor(name).ok()) {
        let bytes = tensor.bytes;
        let sample = SAMPLE.min(bytes.len());
        for first in [0, (bytes.len() - sample) / 2, bytes.len() - sample] {
            hash = bytes[first..first + sample].iter().fold(hash, step);
        }
    }
    checkpoint.release_all(); // the pages that were looked at
    format!("{hash:016x}")
}

/// Writes an object with its keys in alphabetical order, nested ones too: neither the file nor the build
/// decides.
fn sorted(object: &Map<String, Value>, out: &mut String) {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        *out += &format!("{key:?}:");
        match value {
            Value::Object(inner) => {
                out.push('{');
                sorted(inner, out);
                out.push('}');
            }
            value => *out += &format!("{value},"),
        }
    }
}
