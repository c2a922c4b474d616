//! From [`ModelSpec`] to the decode program: one function per kind of block.

use std::collections::HashMap;

use crate::op::{AttentionOp, ExpertWeights, ExpertsOp, NormOp, Op};
use crate::program::{
    Buffer, BufferId, Cache, CacheId, CacheKind, RopeId, Step, Weight, WeightId, WeightShape,
};
use crate::spec::{
    AttentionSpec, BlockSpec, Body, ExpertSpec, GateKind, LinearSpec, MlpSpec, ModelSpec, MoeSpec, NormSpec,
    QkNormWidth, RopeSpec, SharedSpec,
};

/// Collects the parts of a plan while blocks are lowered.
#[derive(Default)]
pub(crate) struct Lowering {
    pub weights: Vec<Weight>,
    by_path: HashMap<String, WeightId>,
    pub buffers: Vec<Buffer>,
    pub caches: Vec<Cache>,
    pub ropes: Vec<RopeSpec>,
    pub program: Vec<Step>,
    layer: Option<usize>,
}

/// Residual stream, the input of a block's body and what the body adds.
const RESIDUAL: &str = "residual";
const NORMED: &str = "normed";
const BRANCH: &str = "branch";

impl Lowering {
    /// Lowers all of `spec`; returns the index of the first step of the head.
    pub(crate) fn model(&mut self, spec: &ModelSpec) -> usize {
        let table = self.matrix(&spec.embed, spec.vocab, spec.hidden);
        let residual = self.buffer(RESIDUAL, spec.hidden);
        self.push(Op::Embed { table, scale: spec.embed_scale, out: residual });
        for (layer, blocks) in spec.layers.iter().map(|layer| &layer.blocks).enumerate() {
            self.layer = Some(layer);
            for block in blocks {
                self.block(block, spec.hidden);
            }
        }
        self.layer = None;
        let head = self.program.len();
        let normed = self.buffer(NORMED, spec.hidden);
        self.norm(&spec.final_norm, 1, spec.hidden, residual, normed);
        let logits = self.buffer("logits", spec.vocab);
        self.linear(&spec.head.linear, spec.vocab, spec.hidden, normed, logits);
        if spec.head.scale != 1.0 || spec.head.softcap.is_some() {
            let (scale, softcap) = (spec.head.scale, spec.head.softcap);
            self.push(Op::Scale { x: logits, scale, by: None, softcap, width: spec.vocab });
        }
        head
    }

    fn block(&mut self, block: &BlockSpec, hidden: usize) {
        let residual = self.buffer(RESIDUAL, hidden);
        let normed = self.buffer(NORMED, hidden);
        let branch = self.buffer(BRANCH, hidden);
        self.norm(&block.pre_norm, 1, hidden, residual, normed);
        match &block.body {
            Body::Attention(spec) => self.attention(spec, hidden, normed, branch),
            Body::Mlp(spec) => self.mlp(spec, hidden, normed, branch),
            Body::Moe(spec) => self.moe(spec, hidden, normed, branch),
        }
        if let Some(post_norm) = &block.post_norm {
            self.norm(post_norm, 1, hidden, branch, branch);
        }
        self.push(Op::Add { x: residual, y: branch, scale: block.residual_scale, width: hidden });
    }

    fn attention(&mut self, spec: &AttentionSpec, hidden: usize, x: BufferId, out: BufferId) {
        let (q_width, k_width, v_width) =
            (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.kv_heads * spec.v_dim);
        let [q, k, v] =
            [("q", q_width), ("k", k_width), ("v", v_width)].map(|(name, width)| self.buffer(name, width));
        self.linear(&spec.q, q_width, hidden, x, q);
        self.linear(&spec.k, k_width, hidden, x, k);
        self.linear(&spec.v, v_width, hidden, x, v);
        if let Some(norm) = &spec.qk_norm {
            let chunks = |heads: usize| if norm.width == QkNormWidth::Head { heads } else { 1 };
            self.norm(&norm.q, chunks(spec.heads), q_width / chunks(spec.heads), q, q);
            self.norm(&norm.k, chunks(spec.kv_heads), k_width / chunks(spec.kv_heads), k, k);
        }
        if let Some(rope) = &spec.rope {
            let rope = self.rope(rope);
            self.push(Op::Rope { rope, heads: spec.heads, head_dim: spec.head_dim, first: 0, x: q });
            self.push(Op::Rope { rope, heads: spec.kv_heads, head_dim: spec.head_dim, first: 0, x: k });
        }
        let kind = CacheKind::Kv { kv_heads: spec.kv_heads, k_dim: spec.head_dim, v_dim: spec.v_dim };
        let cache = CacheId(self.caches.len());
        self.caches.push(Cache { layer: self.layer.unwrap_or(0), kind });
        self.push(Op::KvAppend { cache, k, v });
        let o_width = spec.heads * spec.v_dim;
        let attended = self.buffer("attended", o_width);
        let sinks = spec.sinks.as_ref().map(|name| self.vector(name.clone(), spec.heads));
        self.push(Op::Attention(AttentionOp {
            cache,
            q,
            out: attended,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            v_dim: spec.v_dim,
            scale: spec.scale,
            window: spec.window,
            sinks,
            softcap: spec.softcap,
        }));
        self.linear(&spec.o, hidden, o_width, attended, out);
    }

    fn mlp(&mut self, spec: &MlpSpec, hidden: usize, x: BufferId, out: BufferId) {
        let up = self.buffer("up", spec.d_ff);
        let gate = spec.gate.as_ref().map(|linear| {
            let gate = self.buffer("gate", spec.d_ff);
            self.linear(linear, spec.d_ff, hidden, x, gate);
            gate
        });
        self.linear(&spec.up, spec.d_ff, hidden, x, up);
        let activated = self.buffer("activated", spec.d_ff);
        self.push(Op::Activate { activation: spec.activation, gate, up, out: activated, width: spec.d_ff });
        self.linear(&spec.down, hidden, spec.d_ff, activated, out);
    }

    fn moe(&mut self, spec: &MoeSpec, hidden: usize, x: BufferId, out: BufferId) {
        let logits = self.buffer("router_logits", spec.experts);
        self.linear(&spec.router, spec.experts, hidden, x, logits);
        let route = self.buffer("route", 2 * spec.rule.top_k);
        let correction = spec.rule.correction.as_ref().map(|name| self.vector(name.clone(), spec.experts));
        let per_expert = spec.rule.per_expert.as_ref().map(|name| self.vector(name.clone(), spec.experts));
        self.push(Op::Router {
            logits,
            out: route,
            experts: spec.experts,
            rule: spec.rule.clone(),
            correction,
            per_expert,
            input_gate: None,
        });
        let gate = spec.gate.as_ref().map(|gate| self.experts(gate, spec.experts, spec.d_ff, hidden));
        let up = self.experts(&spec.up, spec.experts, spec.d_ff, hidden);
        let down = self.experts(&spec.down, spec.experts, hidden, spec.d_ff);
        self.push(Op::Experts(ExpertsOp {
            x,
            route,
            out,
            experts: spec.experts,
            top_k: spec.rule.top_k,
            hidden,
            d_ff: spec.d_ff,
            activation: spec.activation,
            gate,
            up,
            down,
        }));
        if let Some(shared) = &spec.shared {
            self.shared(shared, hidden, x, out);
        }
    }

    fn shared(&mut self, spec: &SharedSpec, hidden: usize, x: BufferId, out: BufferId) {
        let result = self.buffer("shared", hidden);
        self.mlp(&spec.mlp, hidden, x, result);
        if let Some(linear) = &spec.gate {
            let gate = self.buffer("shared_gate", 1);
            self.linear(linear, 1, hidden, x, gate);
            let kind = GateKind::Sigmoid;
            self.push(Op::HeadGate { kind, gate, heads: 1, x: result, width: hidden });
        }
        self.push(Op::Add { x: out, y: result, scale: 1.0, width: hidden });
    }

    fn norm(&mut self, spec: &NormSpec, chunks: usize, dim: usize, x: BufferId, out: BufferId) {
        let weight = spec.path.as_ref().map(|path| self.vector(format!("{path}.weight"), dim));
        let bias =
            spec.path.as_ref().filter(|_| spec.bias).map(|path| self.vector(format!("{path}.bias"), dim));
        let NormSpec { kind, eps, scale, .. } = *spec;
        self.push(Op::Norm(NormOp { kind, weight, bias, per_chunk: false, eps, scale, chunks, dim, x, out }));
    }

    fn linear(&mut self, spec: &LinearSpec, rows: usize, cols: usize, x: BufferId, out: BufferId) {
        let weight = self.matrix(&spec.path, rows, cols);
        let bias = spec.bias.then(|| self.vector(format!("{}.bias", spec.path), rows));
        self.push(Op::Linear { weight, bias, x, out });
    }

    fn experts(&mut self, spec: &ExpertSpec, experts: usize, rows: usize, cols: usize) -> ExpertWeights {
        let shape = WeightShape::Stack(experts, rows, cols);
        let stack = self.weight(Weight { path: spec.path.clone(), each: spec.each.clone(), shape });
        let bias = spec.bias.then(|| self.vector(format!("{}.bias", spec.path), experts * rows));
        ExpertWeights { stack, bias }
    }

    fn push(&mut self, op: Op) {
        self.program.push(Step { layer: self.layer, op });
    }

    /// The buffer of that name, widened if it was narrower.
    fn buffer(&mut self, name: &'static str, width: usize) -> BufferId {
        if let Some(i) = self.buffers.iter().position(|buffer| buffer.name == name) {
            self.buffers[i].width = self.buffers[i].width.max(width);
            return BufferId(i);
        }
        self.buffers.push(Buffer { name, width });
        BufferId(self.buffers.len() - 1)
    }

    fn rope(&mut self, rope: &RopeSpec) -> RopeId {
        let known = self.ropes.iter().position(|other| other == rope);
        RopeId(known.unwrap_or_else(|| {
            self.ropes.push(rope.clone());
            self.ropes.len() - 1
        }))
    }

    fn matrix(&mut self, path: &str, rows: usize, cols: usize) -> WeightId {
        self.weight(Weight { path: path.to_owned(), each: None, shape: WeightShape::Matrix(rows, cols) })
    }

    fn vector(&mut self, name: String, len: usize) -> WeightId {
        self.weight(Weight { path: name, each: None, shape: WeightShape::Vector(len) })
    }

    /// The weight at that path; a tied head finds the embedding's.
    fn weight(&mut self, weight: Weight) -> WeightId {
        if let Some(&id) = self.by_path.get(&weight.path) {
            return id;
        }
        let id = WeightId(self.weights.len());
        self.by_path.insert(weight.path.clone(), id);
        self.weights.push(weight);
        id
    }
}
