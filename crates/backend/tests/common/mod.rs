//! A model with every recurrent op, small and made up: a plan written by hand and a checkpoint with random
//! weights.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Cpu, Limits, LoadOptions, Row};
use amoeba_checkpoint::{Checkpoint, Config};
use amoeba_kernels::testing::{Rng, attention, delta_net, rms_norm, ssm};
use amoeba_plan::{
    AddOp, Buffer, BufferId, BufferKind, Cache, CacheId, CacheKind, ConvOp, EmbedOp, KvAppendOp, LinearOp,
    Op, Part, Plan, SsmOp, Step, Weight, WeightId, WeightShape,
};

/// Width of the residual stream.
const HIDDEN: usize = 48;
/// Tokens. The last one's embedding is NaN.
pub const VOCAB: usize = 40;

/// Plan and weights as they grow.
struct Builder {
    plan: Plan,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    rng: Rng,
    hidden: BufferId,
}

impl Builder {
    fn weight(&mut self, name: &str, sizes: &[usize], by: f32) -> WeightId {
        let name = format!("{name}_{}", self.tensors.len());
        let (path, shape) = match sizes {
            [rows, cols] => (name.clone(), WeightShape::Matrix(*rows, *cols)),
            _ => (name.clone(), WeightShape::Vector(sizes[0])),
        };
        let stored = if sizes.len() == 2 { format!("{name}.weight") } else { name };
        let values = self.rng.vector(sizes.iter().product()).iter().map(|x| x * by).collect();
        self.tensors.push((stored, sizes.to_vec(), values));
        self.plan.weights.push(Weight { path, each: None, shape, shift: 0.0 });
        WeightId(self.plan.weights.len() - 1)
    }

    fn buffer(&mut self, name: &'static str, width: usize) -> BufferId {
        self.plan.buffers.push(Buffer { name, width, kind: BufferKind::Values });
        BufferId(self.plan.buffers.len() - 1)
    }

    fn cache(&mut self, kind: CacheKind) -> CacheId {
        self.plan.caches.push(Cache { layer: 0, kind });
        CacheId(self.plan.caches.len() - 1)
    }

    fn push(&mut self, op: Op) {
        self.plan.program.push(Step { layer: Some(0), part: Part::Other, op });
    }

    fn product(&mut self, weight: WeightId, [rows, cols]: [usize; 2], x: BufferId, out: BufferId) {
        self.push(Op::Linear(LinearOp { weight, bias: None, rows, cols, x, out }));
    }

    /// Projects the residual stream.
    fn project(&mut self, name: &'static str, width: usize, by: f32) -> BufferId {
        let (weight, out) = (self.weight(name, &[width, HIDDEN], by), self.buffer(name, width));
        self.product(weight, [width, HIDDEN], self.hidden, out);
        out
    }

    /// Adds a projection of x to the residual stream.
    fn join(&mut self, x: BufferId) {
        let width = self.plan.buffer(x).width;
        let (weight, out) = (self.weight("out", &[HIDDEN, width], 0.2), self.buffer("out", HIDDEN));
        self.product(weight, [HIDDEN, width], x, out);
        self.push(Op::Add(AddOp { x: self.hidden, y: out, scale: 0.5, width: HIDDEN }));
    }

    fn conv(&mut self, x: BufferId, taps: usize, silu: bool) -> BufferId {
        let channels = self.plan.buffer(x).width;
        let cache = self.cache(CacheKind::Conv { channels, taps });
        let weight = self.weight("conv", &[channels * (taps + 1)], 1.0);
        let bias = silu.then(|| self.weight("conv_bias", &[channels], 0.5));
        let out = self.buffer("conv_out", channels);
        self.push(Op::Conv(ConvOp { cache, weight, bias, channels, taps, silu, x, out }));
        out
    }

    fn delta_net(&mut self, per_channel: bool) {
        let (k_heads, v_heads, k_dim, v_dim) = (2, 4, 24, 40);
        let decays = if per_channel { v_heads * k_dim } else { v_heads };
        // Small enough for keys shorter than one.
        let (q, k) = (self.project("q", k_heads * k_dim, 0.03), self.project("k", k_heads * k_dim, 0.03));
        let v = self.project("v", v_heads * v_dim, 0.3);
        let v = self.conv(v, 3, true);
        let (decay, beta) = (self.project("decay", decays, 0.3), self.project("beta", v_heads, 0.3));
        let cache = self.cache(CacheKind::State { heads: v_heads, rows: v_dim, cols: k_dim });
        let (a_log, dt_bias) = (self.weight("a_log", &[v_heads], 2.0), self.weight("dt", &[decays], 2.0));
        let out = self.buffer("delta_out", v_heads * v_dim);
        let sizes = [k_heads, v_heads, k_dim, v_dim];
        let op = delta_net(cache, [q, k, v, decay, beta], [a_log, dt_bias], per_channel, sizes, out);
        self.push(op);
        self.join(out);
    }

    fn ssm(&mut self, heads: usize, head_dim: usize, groups: usize, state: usize) {
        let per_state = head_dim == 1;
        let x = self.project("x", heads * head_dim, 0.3);
        let x = self.conv(x, 2, true);
        let [b, c] = ["b", "c"].map(|name| self.project(name, groups * state, 0.3));
        let dt = self.project("dt", heads, 0.3);
        let cache = self.cache(CacheKind::State { heads, rows: head_dim, cols: state });
        let a_log = self.weight("a_log", &[if per_state { heads * state } else { heads }], 2.0);
        let d = self.weight("d", &[heads], 1.0);
        let dt_bias = (!per_state).then(|| self.weight("dt_bias", &[heads], 2.0));
        let dt_limit = if per_state { (0.0, f32::INFINITY) } else { (0.01, 1.5) };
        let out = self.buffer("ssm_out", heads * head_dim);
        let plain = ssm(cache, [x, b, c, dt], [a_log, d], [heads, head_dim, groups, state], out);
        self.push(Op::Ssm(SsmOp { per_state, dt_bias, dt_limit, ..plain }));
        self.join(out);
    }

    fn attention(&mut self) {
        let (heads, kv_heads, dim) = (4, 2, 16);
        let [q, k, v] = [("q", heads), ("k", kv_heads), ("v", kv_heads)]
            .map(|(name, heads)| self.project(name, heads * dim, 0.3));
        let cache = self.cache(CacheKind::Kv { kv_heads, k_dim: dim, v_dim: dim });
        self.push(Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim: dim, v_dim: dim, k, v }));
        let out = self.buffer("attended", heads * dim);
        self.push(Op::Attention(attention(cache, q, out, [heads, kv_heads, dim, dim], 0.25)));
        self.join(out);
    }

    fn head(&mut self) {
        self.plan.head = self.plan.program.len();
        let out = self.buffer("last", HIDDEN);
        self.push(Op::Norm(rms_norm(self.hidden, out, None, [1, HIDDEN])));
        let (weight, logits) = (self.weight("lm_head", &[VOCAB, HIDDEN], 0.5), self.buffer("logits", VOCAB));
        self.plan.logits = logits;
        self.product(weight, [VOCAB, HIDDEN], out, logits);
    }
}

/// The plan with its checkpoint, in a folder of that name.
pub fn model(name: &str) -> (Plan, Arc<Checkpoint>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama-q4g64");
    let mut plan = Plan::new(&Config::read(&fixture, "config.json").unwrap().unwrap()).unwrap();
    (plan.spec.hidden, plan.spec.vocab) = (HIDDEN, VOCAB);
    plan = Plan {
        weights: Vec::new(),
        buffers: Vec::new(),
        caches: Vec::new(),
        ropes: Vec::new(),
        program: Vec::new(),
        head: 0,
        blocks: Vec::new(),
        ..plan
    };
    let mut builder = Builder { plan, tensors: Vec::new(), rng: Rng(61), hidden: BufferId(0) };
    builder.hidden = builder.buffer("hidden", HIDDEN);
    builder.plan.residual = builder.hidden;
    let table = builder.weight("embed", &[VOCAB, HIDDEN], 1.0);
    builder.tensors[0].2[(VOCAB - 1) * HIDDEN..].fill(f32::NAN);
    builder.push(Op::Embed(EmbedOp { table, vocab: VOCAB, width: HIDDEN, scale: 1.0, out: builder.hidden }));
    builder.delta_net(false);
    builder.ssm(4, 20, 2, 16);
    builder.attention();
    builder.delta_net(true);
    builder.ssm(56, 1, 1, 8);
    let mixed = builder.project("mixed", 100, 0.3);
    let mixed = builder.conv(mixed, 3, false);
    builder.join(mixed);
    builder.head();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = format!("{name}.safetensors");
    // A file that is mapped is not written again, but replaced.
    std::fs::write(dir.join(format!("{file}.new")), safetensors(&builder.tensors)).unwrap();
    std::fs::rename(dir.join(format!("{file}.new")), dir.join(&file)).unwrap();
    (builder.plan, Arc::new(Checkpoint::open_file(dir, &file).unwrap()))
}

fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let end = data.len();
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A model of the repository.
pub fn open(model: &str) -> (Plan, Arc<Checkpoint>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let checkpoint = Arc::new(Checkpoint::open(&root.join(model)).unwrap());
    (Plan::of(&checkpoint).unwrap(), checkpoint)
}

/// How to load for the CPU.
pub fn options(threads: usize, limits: Limits) -> LoadOptions {
    LoadOptions { threads: Some(threads), ..LoadOptions::sized(limits) }
}

/// The model on the CPU.
pub fn cpu(name: &str, options: &LoadOptions) -> Cpu {
    let (plan, checkpoint) = model(name);
    Cpu::load(plan, &checkpoint, options, &mut |_, _| {}).unwrap()
}

/// A row of a sequence with a token of its own.
pub fn row(slot: usize, position: usize) -> Row {
    let token = ((position * 37 + slot * 11) % (VOCAB - 1)) as u32;
    Row { token, slot, position, logits: true }
}
