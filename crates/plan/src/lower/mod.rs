//! From [`ModelSpec`] to the decode program: one function per kind of block.

mod attention;
mod feed_forward;
mod latent;
mod mixers;

use std::collections::HashMap;

use crate::block::{Block, BlockKind};
use crate::op::{ActivateOp, AddOp, CopyOp, EmbedOp, LinearOp, NormOp, Op, ScaleOp, Strided, TemperatureOp};
use crate::part::Part;
use crate::program::{
    Buffer, BufferId, BufferKind, Cache, CacheId, CacheKind, RopeId, Step, Weight, WeightId, WeightShape,
};
use crate::spec::{
    Activation, BlockSpec, Body, LinearSpec, ModelSpec, NormSpec, PerLayerSpec, RopeSpec, TemperatureSpec,
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
    pub blocks: Vec<Block>,
    layer: Option<usize>,
    /// What the products to come serve.
    part: Part,
    hidden: usize,
    /// Values per layer of the second embedding.
    per_layer: usize,
    /// Keys and values by layer, for layers that share them.
    keys_of: HashMap<usize, CacheId>,
}

/// Where a program begins and ends.
pub(crate) struct Ends {
    /// First step of the head.
    pub head: usize,
    /// The residual stream.
    pub residual: BufferId,
    /// The result.
    pub logits: BufferId,
}

/// Residual stream, the input of a block's body, what the body adds, and the sum of several bodies.
const RESIDUAL: &str = "residual";
const NORMED: &str = "normed";
const BRANCH: &str = "branch";
const SUM: &str = "sum";

impl Lowering {
    /// Lowers all of `spec`.
    pub(crate) fn model(&mut self, spec: &ModelSpec) -> Ends {
        self.hidden = spec.hidden;
        let residual = self.buffer(RESIDUAL, spec.hidden);
        self.embed(&spec.embed, (spec.vocab, spec.hidden), spec.embed_scale, residual);
        if let Some(per_layer) = &spec.per_layer {
            self.per_layer_inputs(per_layer, spec.layers.len(), residual);
        }
        for (layer, spec) in spec.layers.iter().enumerate() {
            self.layer = Some(layer);
            for block in &spec.blocks {
                let branch = self.buffer(BRANCH, self.hidden);
                let first = self.blocks.len();
                self.branch(block, residual, branch);
                let joins = self.program.len();
                self.blocks[first..].iter_mut().for_each(|block| block.joins = joins);
                self.add(residual, branch, block.residual_scale, self.hidden);
            }
            if let Some(name) = &spec.scale {
                let by = Some(self.vector(name.clone(), 1));
                let width = self.hidden;
                self.glue(Op::Scale(ScaleOp { x: residual, scale: 1.0, by, softcap: None, width }));
            }
        }
        (self.layer, self.part) = (None, Part::Head);
        let head = self.program.len();
        let normed = self.buffer(NORMED, spec.hidden);
        self.norm(&spec.final_norm, 1, spec.hidden, residual, normed);
        let logits = self.buffer("logits", spec.vocab);
        self.linear(&spec.head.linear, spec.vocab, spec.hidden, normed, logits);
        if spec.head.scale != 1.0 || spec.head.softcap.is_some() {
            let (scale, softcap) = (spec.head.scale, spec.head.softcap);
            self.glue(Op::Scale(ScaleOp { x: logits, scale, by: None, softcap, width: spec.vocab }));
        }
        Ends { head, residual, logits }
    }

    fn embed(&mut self, path: &str, (vocab, width): (usize, usize), scale: f32, out: BufferId) {
        let table = self.matrix(path, vocab, width);
        self.part = Part::Embedding;
        self.push(Op::Embed(EmbedOp { table, vocab, width, scale, out }));
    }

    /// Writes what a block adds to the residual stream, but for its factor, into `out`.
    fn branch(&mut self, block: &BlockSpec, residual: BufferId, out: BufferId) {
        let first = self.program.len();
        let x = match &block.pre_norm {
            None => residual,
            Some(norm) => {
                let normed = self.buffer(NORMED, self.hidden);
                self.norm(norm, 1, self.hidden, residual, normed);
                normed
            }
        };
        let kind = self.body(&block.body, residual, x, out);
        if let Some(post_norm) = &block.post_norm {
            self.norm(post_norm, 1, self.hidden, out, out);
        }
        let (steps, layer) = (first..self.program.len(), self.layer.unwrap_or(0));
        self.blocks.push(Block { layer, kind, joins: steps.end, steps, input: x, output: out });
    }

    fn body(&mut self, body: &Body, residual: BufferId, x: BufferId, out: BufferId) -> BlockKind {
        self.part = match body {
            Body::Attention(_) | Body::Latent(_) => Part::Attention,
            Body::Delta(_) | Body::Mamba(_) | Body::ShortConv(_) => Part::Recurrent,
            Body::Mlp(_) => Part::Mlp,
            Body::Moe(_) => Part::Experts,
            Body::PerLayer { .. } | Body::Sum(_) => Part::Other,
        };
        match body {
            Body::Attention(spec) => self.attention(spec, x, out),
            Body::Latent(spec) => self.latent(spec, x, out),
            Body::Delta(spec) => self.delta(spec, x, out),
            Body::Mamba(spec) => self.mamba(spec, x, out),
            Body::ShortConv(spec) => self.short_conv(spec, x, out),
            Body::Mlp(spec) => self.mlp(spec, x, out),
            Body::Moe(spec) => return BlockKind::Experts(self.moe(spec, x, residual, out)),
            Body::PerLayer { gate, projection } => self.per_layer_block(gate, projection, x, out),
            Body::Sum(blocks) => self.sum(blocks, residual, x, out),
        }
        match body {
            Body::Attention(_) => BlockKind::Attention,
            Body::Latent(_) => BlockKind::Latent,
            Body::Delta(_) => BlockKind::Delta,
            Body::Mamba(_) => BlockKind::Mamba,
            Body::ShortConv(_) => BlockKind::ShortConv,
            Body::Mlp(_) => BlockKind::Mlp,
            Body::PerLayer { .. } => BlockKind::PerLayer,
            Body::Moe(_) | Body::Sum(_) => BlockKind::Sum,
        }
    }

    /// The first goes straight into the result. One without a norm reads what the sum reads.
    fn sum(&mut self, blocks: &[BlockSpec], residual: BufferId, x: BufferId, out: BufferId) {
        let sum = self.buffer(SUM, self.hidden);
        for (i, block) in blocks.iter().enumerate() {
            let part = if i == 0 { out } else { sum };
            self.branch(block, if block.pre_norm.is_some() { residual } else { x }, part);
            let (scale, width) = (block.residual_scale, self.hidden);
            if i > 0 {
                self.add(out, part, scale, width);
            } else if scale != 1.0 {
                self.glue(Op::Scale(ScaleOp { x: out, scale, by: None, softcap: None, width }));
            }
        }
    }

    /// The inputs of all layers from the second embedding, apart from the residual stream.
    fn per_layer_inputs(&mut self, spec: &PerLayerSpec, layers: usize, residual: BufferId) {
        let width = layers * spec.width;
        self.per_layer = spec.width;
        let [inputs, own] = ["per_layer", "per_layer_own"].map(|name| self.buffer(name, width));
        self.embed(&spec.embed, (spec.vocab, width), (spec.width as f32).sqrt(), own);
        self.part = Part::Other;
        self.linear(&spec.projection, width, self.hidden, residual, inputs);
        let root = 1.0 / (self.hidden as f32).sqrt();
        self.glue(Op::Scale(ScaleOp { x: inputs, scale: root, by: None, softcap: None, width }));
        self.norm(&spec.norm, layers, spec.width, inputs, inputs);
        self.add(inputs, own, 1.0, width);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        self.glue(Op::Scale(ScaleOp { x: inputs, scale: half, by: None, softcap: None, width }));
    }

    fn per_layer_block(&mut self, gate: &LinearSpec, projection: &LinearSpec, x: BufferId, out: BufferId) {
        let width = self.per_layer;
        let [inputs, own, gated] =
            ["per_layer", "per_layer_own", "per_layer_gate"].map(|name| self.buffer(name, width));
        self.linear(gate, width, self.hidden, x, gated);
        let at = self.layer.unwrap_or(0) * width;
        self.part((inputs, at), own, width);
        let activation = Activation::GeGlu;
        self.activate(activation, Some(gated), own, own, width);
        self.linear(projection, self.hidden, width, own, out);
    }

    fn norm(&mut self, spec: &NormSpec, chunks: usize, dim: usize, x: BufferId, out: BufferId) {
        self.norm_with(spec, (chunks, dim, false), x, out);
    }

    fn norm_with(
        &mut self,
        spec: &NormSpec,
        (chunks, dim, per_chunk): (usize, usize, bool),
        x: BufferId,
        out: BufferId,
    ) {
        let len = if per_chunk { chunks * dim } else { dim };
        let shift = if spec.plus_one { 1.0 } else { 0.0 };
        let shape = WeightShape::Vector(len);
        let stored = |name: &String| Weight { path: name.clone(), each: None, shape, shift };
        let weight = spec.weight.as_ref().map(|name| self.weight(stored(name)));
        let bias = spec.bias.as_ref().map(|name| self.vector(name.clone(), len));
        let NormSpec { kind, eps, scale, .. } = *spec;
        self.glue(Op::Norm(NormOp { kind, weight, bias, per_chunk, eps, scale, chunks, dim, x, out }));
    }

    fn linear(&mut self, spec: &LinearSpec, rows: usize, cols: usize, x: BufferId, out: BufferId) {
        let weight = self.matrix(&spec.path, rows, cols);
        let bias = spec.bias.then(|| self.vector(format!("{}.bias", spec.path), rows));
        self.push(Op::Linear(LinearOp { weight, bias, rows, cols, x, out }));
    }

    /// A projection into a buffer of its own.
    fn project(
        &mut self,
        spec: &LinearSpec,
        name: &'static str,
        rows: usize,
        cols: usize,
        x: BufferId,
    ) -> BufferId {
        let out = self.buffer(name, rows);
        self.linear(spec, rows, cols, x, out);
        out
    }

    fn temperature(&mut self, spec: Option<TemperatureSpec>, x: BufferId, width: usize) {
        if let Some(TemperatureSpec { scale, period, shift }) = spec {
            self.push(Op::Temperature(TemperatureOp { x, width, scale, period, shift }));
        }
    }

    /// Copies `len` elements of `x` from element `first` on to the start of `out`.
    fn part(&mut self, (x, first): (BufferId, usize), out: BufferId, len: usize) {
        self.heads((x, first, 0), (out, 0, 0), 1, len);
    }

    /// Copies of each head: buffer, first element, elements from head to head.
    fn heads(
        &mut self,
        (x, x_first, x_stride): (BufferId, usize, usize),
        (out, out_first, out_stride): (BufferId, usize, usize),
        heads: usize,
        len: usize,
    ) {
        let x = Strided { buffer: x, first: x_first, stride: x_stride };
        let out = Strided { buffer: out, first: out_first, stride: out_stride };
        self.glue(Op::Copy(CopyOp { x, out, heads, len }));
    }

    fn activate(
        &mut self,
        activation: Activation,
        gate: Option<BufferId>,
        up: BufferId,
        out: BufferId,
        width: usize,
    ) {
        self.glue(Op::Activate(ActivateOp { activation, gate, up, out, width }));
    }

    fn add(&mut self, x: BufferId, y: BufferId, scale: f32, width: usize) {
        self.glue(Op::Add(AddOp { x, y, scale, width }));
    }

    /// A step that serves the present part.
    fn push(&mut self, op: Op) {
        self.program.push(Step { layer: self.layer, part: self.part, op });
    }

    /// A step between products: it counts as no part in particular.
    fn glue(&mut self, op: Op) {
        self.program.push(Step { layer: self.layer, part: Part::Other, op });
    }

    fn cache(&mut self, kind: CacheKind) -> CacheId {
        self.caches.push(Cache { layer: self.layer.unwrap_or(0), kind });
        CacheId(self.caches.len() - 1)
    }

    /// The buffer of that name, widened if it was narrower.
    fn buffer(&mut self, name: &'static str, width: usize) -> BufferId {
        if let Some(i) = self.buffers.iter().position(|buffer| buffer.name == name) {
            self.buffers[i].width = self.buffers[i].width.max(width);
            return BufferId(i);
        }
        self.buffers.push(Buffer { name, width, kind: BufferKind::Values });
        BufferId(self.buffers.len() - 1)
    }

    /// The buffer of that name, for a choice of `top_k` experts.
    fn route_buffer(&mut self, name: &'static str, top_k: usize) -> BufferId {
        let id = self.buffer(name, 2 * top_k);
        self.buffers[id.0].kind = BufferKind::Route;
        id
    }

    fn rope(&mut self, rope: &RopeSpec) -> RopeId {
        let known = self.ropes.iter().position(|other| other == rope);
        RopeId(known.unwrap_or_else(|| {
            self.ropes.push(rope.clone());
            self.ropes.len() - 1
        }))
    }

    fn matrix(&mut self, path: &str, rows: usize, cols: usize) -> WeightId {
        self.weight(Weight {
            path: path.to_owned(),
            each: None,
            shape: WeightShape::Matrix(rows, cols),
            shift: 0.0,
        })
    }

    fn vector(&mut self, name: String, len: usize) -> WeightId {
        self.weight(Weight { path: name, each: None, shape: WeightShape::Vector(len), shift: 0.0 })
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
