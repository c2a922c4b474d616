//! Attention with grouped query heads.

use super::Lowering;
use crate::op::{AttentionOp, HeadGateOp, KvAppendOp, Op, RopeOp, ScaleOp};
use crate::program::{BufferId, CacheKind};
use crate::spec::{
    Activation, AttentionSpec, GateKind, NormSpec, OutputGate, Projections, QkNormSpec, QkNormWidth, RopeSpec,
};

impl Lowering {
    pub(super) fn attention(&mut self, spec: &AttentionSpec, x: BufferId, out: BufferId) {
        let (q_width, k_width, v_width) =
            (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.kv_heads * spec.v_dim);
        let [q, k, v] =
            [("q", q_width), ("k", k_width), ("v", v_width)].map(|(name, width)| self.buffer(name, width));
        let own_keys = !matches!(spec.projections, Projections::Shared { .. });
        self.projections(spec, x, [q, k, v]);
        let gate = self.gate(spec, x);
        if let Some(norm) = spec.v_norm.as_ref().filter(|_| own_keys) {
            self.norm(norm, spec.kv_heads, spec.v_dim, v, v);
        }
        if spec.v_scale != 1.0 && own_keys {
            let (scale, width) = (spec.v_scale, v_width);
            self.glue(Op::Scale(ScaleOp { x: v, scale, by: None, softcap: None, width }));
        }
        let mut turned = vec![(q, spec.heads, true)];
        turned.extend(own_keys.then_some((k, spec.kv_heads, false)));
        let after = spec.qk_norm.as_ref().is_some_and(|norm| norm.after_rope);
        if !after {
            self.qk_norms(spec, &turned);
        }
        self.turn(spec.rope.as_ref(), &turned, (spec.head_dim, 0));
        if after {
            self.qk_norms(spec, &turned);
        }
        self.temperature(spec.temperature, q, q_width);
        let attended = self.attend_over(spec, q, k, v);
        let (heads, o_width) = (spec.heads, spec.heads * spec.v_dim);
        if let Some((gate, kind)) = gate {
            match kind {
                None => self.activate(Activation::Sigmoid, Some(gate), attended, attended, o_width),
                Some(kind) => {
                    let (x, width) = (attended, spec.v_dim);
                    self.glue(Op::HeadGate(HeadGateOp { kind, gate, heads, x, width }));
                }
            }
        }
        self.linear(&spec.o, self.hidden, o_width, attended, out);
    }

    /// Queries, keys and values as projected.
    fn projections(&mut self, spec: &AttentionSpec, x: BufferId, [q, k, v]: [BufferId; 3]) {
        let (q_width, k_width, v_width) =
            (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.kv_heads * spec.v_dim);
        match &spec.projections {
            Projections::Apart { q: of_q, k: of_k, v: of_v } => {
                self.query(spec, of_q, x, q);
                self.linear(of_k, k_width, self.hidden, x, k);
                match of_v {
                    Some(of_v) => self.linear(of_v, v_width, self.hidden, x, v),
                    None => self.part((k, 0), v, v_width),
                }
            }
            Projections::Fused(linear) => {
                let fused = self.project(linear, "qkv", q_width + k_width + v_width, self.hidden, x);
                self.part((fused, 0), q, q_width);
                self.part((fused, q_width), k, k_width);
                self.part((fused, q_width + k_width), v, v_width);
            }
            Projections::Sharing { q: of_q, k: of_k, v: of_v } => {
                self.query(spec, of_q, x, q);
                for (linear, own, name, width) in
                    [(of_k, k, "shared_k", k_width), (of_v, v, "shared_v", v_width)]
                {
                    let shared = self.project(linear, name, width, self.hidden, x);
                    self.part((shared, 0), own, width);
                }
            }
            Projections::Borrowed(of_q) => {
                self.query(spec, of_q, x, q);
                let [shared_k, shared_v] = [("shared_k", k_width), ("shared_v", v_width)]
                    .map(|(name, width)| self.buffer(name, width));
                self.part((shared_k, 0), k, k_width);
                self.part((shared_v, 0), v, v_width);
            }
            Projections::Shared { q: of_q, .. } => self.query(spec, of_q, x, q),
        }
    }

    /// Appends keys and values, unless they are another layer's, and attends.
    fn attend_over(&mut self, spec: &AttentionSpec, q: BufferId, k: BufferId, v: BufferId) -> BufferId {
        let layer = self.layer.unwrap_or(0);
        let cache = match spec.projections {
            Projections::Shared { layer, .. } => self.keys_of[&layer],
            _ => {
                let (kv_heads, k_dim, v_dim) = (spec.kv_heads, spec.head_dim, spec.v_dim);
                let cache = self.cache(CacheKind::Kv { kv_heads, k_dim, v_dim });
                self.push(Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim, v_dim, k, v }));
                cache
            }
        };
        self.keys_of.insert(layer, cache);
        let o_width = spec.heads * spec.v_dim;
        let attended = self.buffer("attended", o_width);
        let sinks = spec.sinks.as_ref().map(|name| self.vector(name.clone(), spec.heads));
        let AttentionSpec { heads, kv_heads, head_dim, v_dim, scale, window, softcap, .. } = *spec;
        self.push(Op::Attention(AttentionOp {
            cache,
            q,
            out: attended,
            heads,
            kv_heads,
            head_dim,
            v_dim,
            scale,
            window,
            sinks,
            softcap,
        }));
        attended
    }

    /// Queries; with a gate in the projection, `[query, gate]` per head are parted.
    fn query(&mut self, spec: &AttentionSpec, linear: &crate::LinearSpec, x: BufferId, q: BufferId) {
        let (heads, dim) = (spec.heads, spec.head_dim);
        if spec.gate != Some(OutputGate::InQuery) {
            return self.linear(linear, heads * dim, self.hidden, x, q);
        }
        let both = self.project(linear, "q_and_gate", 2 * heads * dim, self.hidden, x);
        self.heads((both, 0, 2 * dim), (q, 0, dim), heads, dim);
        let gate = self.buffer("attention_gate", heads * dim);
        self.heads((both, dim, 2 * dim), (gate, 0, dim), heads, dim);
    }

    /// The output gate's buffer, and what makes a gate per head of it.
    fn gate(&mut self, spec: &AttentionSpec, x: BufferId) -> Option<(BufferId, Option<GateKind>)> {
        let width = spec.heads * spec.v_dim;
        match spec.gate.as_ref()? {
            OutputGate::InQuery => Some((self.buffer("attention_gate", width), None)),
            OutputGate::Elementwise(linear) => {
                Some((self.project(linear, "attention_gate", width, self.hidden, x), None))
            }
            OutputGate::PerHead(linear, kind) => {
                Some((self.project(linear, "attention_gate", spec.heads, self.hidden, x), Some(*kind)))
            }
        }
    }

    fn qk_norms(&mut self, spec: &AttentionSpec, turned: &[(BufferId, usize, bool)]) {
        let Some(QkNormSpec { width, q: of_q, k: of_k, .. }) = &spec.qk_norm else { return };
        for &(x, heads, is_q) in turned {
            let chunks = if *width == QkNormWidth::Head { heads } else { 1 };
            let norm: &NormSpec = if is_q { of_q } else { of_k };
            self.norm(norm, chunks, heads * spec.head_dim / chunks, x, x);
        }
    }

    pub(super) fn turn(
        &mut self,
        rope: Option<&RopeSpec>,
        turned: &[(BufferId, usize, bool)],
        (head_dim, first): (usize, usize),
    ) {
        let Some(rope) = rope else { return };
        let rope = self.rope(rope);
        for &(x, heads, _) in turned {
            self.push(Op::Rope(RopeOp { rope, heads, head_dim, first, x }));
        }
    }
}
