//! Attention, grouped and latent.

use super::Lowering;
use crate::op::{AttentionOp, Op};
use crate::program::{BufferId, CacheKind, Weight, WeightId, WeightShape};
use crate::spec::{
    Activation, AttentionSpec, GateKind, LatentForm, LatentQuery, LatentSpec, NormSpec, OutputGate,
    Projections, QkNormSpec, QkNormWidth, RopeSpec,
};

impl Lowering {
    pub(super) fn attention(&mut self, spec: &AttentionSpec, x: BufferId, out: BufferId) {
        let (q_width, k_width, v_width) =
            (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.kv_heads * spec.v_dim);
        let [q, k, v] =
            [("q", q_width), ("k", k_width), ("v", v_width)].map(|(name, width)| self.buffer(name, width));
        let own_keys = !matches!(spec.projections, Projections::Shared { .. });
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
            Projections::Lent { q: of_q, k: of_k, v: of_v } => {
                self.query(spec, of_q, x, q);
                for (linear, own, name, width) in [(of_k, k, "k_lent", k_width), (of_v, v, "v_lent", v_width)]
                {
                    let lent = self.project(linear, name, width, self.hidden, x);
                    self.part((lent, 0), own, width);
                }
            }
            Projections::Borrowed(of_q) => {
                self.query(spec, of_q, x, q);
                let [k_lent, v_lent] =
                    [("k_lent", k_width), ("v_lent", v_width)].map(|(name, width)| self.buffer(name, width));
                self.part((k_lent, 0), k, k_width);
                self.part((v_lent, 0), v, v_width);
            }
            Projections::Shared { q: of_q, .. } => self.query(spec, of_q, x, q),
        }
        let gate = self.gate(spec, x);
        if let Some(norm) = spec.v_norm.as_ref().filter(|_| own_keys) {
            self.norm(norm, spec.kv_heads, spec.v_dim, v, v);
        }
        if spec.v_scale != 1.0 && own_keys {
            self.push(Op::Scale { x: v, scale: spec.v_scale, by: None, softcap: None, width: v_width });
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
        let layer = self.layer.unwrap_or(0);
        let cache = match spec.projections {
            Projections::Shared { layer, .. } => self.keys_of[&layer],
            _ => {
                let (kv_heads, k_dim, v_dim) = (spec.kv_heads, spec.head_dim, spec.v_dim);
                let cache = self.cache(CacheKind::Kv { kv_heads, k_dim, v_dim });
                self.push(Op::KvAppend { cache, k, v });
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
        if let Some((gate, kind)) = gate {
            self.push(match kind {
                None => Op::Activate {
                    activation: Activation::Sigmoid,
                    gate: Some(gate),
                    up: attended,
                    out: attended,
                    width: o_width,
                },
                Some(kind) => Op::HeadGate { kind, gate, heads, x: attended, width: v_dim },
            });
        }
        self.linear(&spec.o, self.hidden, o_width, attended, out);
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

    fn turn(
        &mut self,
        rope: Option<&RopeSpec>,
        turned: &[(BufferId, usize, bool)],
        (head_dim, first): (usize, usize),
    ) {
        let Some(rope) = rope else { return };
        let rope = self.rope(rope);
        for &(x, heads, _) in turned {
            self.push(Op::Rope { rope, heads, head_dim, first, x });
        }
    }

    pub(super) fn latent(&mut self, spec: &LatentSpec, x: BufferId, out: BufferId) {
        let LatentSpec { heads, nope_dim, rope_dim, v_dim, rank, .. } = *spec;
        let head_dim = nope_dim + rope_dim;
        let q = self.buffer("q", heads * head_dim);
        match &spec.q {
            LatentQuery::Direct(linear) => self.linear(linear, heads * head_dim, self.hidden, x, q),
            LatentQuery::LowRank { a, norm, b, rank } => {
                let low = self.project(a, "q_low", *rank, self.hidden, x);
                self.norm(norm, 1, *rank, low, low);
                self.linear(b, heads * head_dim, *rank, low, q);
            }
        }
        let kv_a = self.project(&spec.kv_a, "kv_a", rank + rope_dim, self.hidden, x);
        let latent = self.buffer("latent", rank);
        self.part((kv_a, 0), latent, rank);
        self.norm(&spec.kv_norm, 1, rank, latent, latent);
        self.turn(spec.rope.as_ref(), &[(q, heads, true)], (head_dim, nope_dim));
        self.turn(spec.rope.as_ref(), &[(kv_a, 1, false)], (rank + rope_dim, rank));
        self.temperature(spec.temperature, q, heads * head_dim);
        let kv_width = match &spec.form {
            LatentForm::Expanded(_) => heads * head_dim,
            LatentForm::Absorbed { .. } => rank + rope_dim,
        };
        let k = self.buffer("k", kv_width);
        let attended = self.buffer("attended", heads * v_dim);
        match &spec.form {
            LatentForm::Expanded(kv_b) => {
                let kv = self.project(kv_b, "kv", heads * (nope_dim + v_dim), rank, latent);
                let v = self.buffer("v", heads * v_dim);
                self.heads((kv, 0, nope_dim + v_dim), (k, 0, head_dim), heads, nope_dim);
                self.heads((kv_a, rank, 0), (k, nope_dim, head_dim), heads, rope_dim);
                self.heads((kv, nope_dim, nope_dim + v_dim), (v, 0, v_dim), heads, v_dim);
                self.attend(spec, (q, k, v, attended), (heads, head_dim, v_dim));
            }
            LatentForm::Absorbed { embed_q, unembed_out } => {
                let wide = rank + rope_dim;
                let [q_nope, embedded, q_wide, narrow] = [
                    ("q_nope", heads * nope_dim),
                    ("q_embedded", heads * rank),
                    ("q_latent", heads * wide),
                    ("attended_latent", heads * rank),
                ]
                .map(|(name, width)| self.buffer(name, width));
                self.heads((q, 0, head_dim), (q_nope, 0, nope_dim), heads, nope_dim);
                let weight = self.stack(embed_q, heads, rank, nope_dim);
                self.push(Op::HeadLinear {
                    weight,
                    heads,
                    rows: rank,
                    cols: nope_dim,
                    x: q_nope,
                    out: embedded,
                });
                self.heads((embedded, 0, rank), (q_wide, 0, wide), heads, rank);
                self.heads((q, nope_dim, head_dim), (q_wide, rank, wide), heads, rope_dim);
                self.part((latent, 0), k, rank);
                self.heads((kv_a, rank, 0), (k, rank, 0), 1, rope_dim);
                self.attend(spec, (q_wide, k, latent, narrow), (1, wide, rank));
                let weight = self.stack(unembed_out, heads, v_dim, rank);
                self.push(Op::HeadLinear {
                    weight,
                    heads,
                    rows: v_dim,
                    cols: rank,
                    x: narrow,
                    out: attended,
                });
            }
        }
        self.linear(&spec.o, self.hidden, heads * v_dim, attended, out);
    }

    /// Appends keys and values and attends.
    fn attend(
        &mut self,
        spec: &LatentSpec,
        (q, k, v, out): (BufferId, BufferId, BufferId, BufferId),
        (kv_heads, head_dim, v_dim): (usize, usize, usize),
    ) {
        let cache = self.cache(CacheKind::Kv { kv_heads, k_dim: head_dim, v_dim });
        self.push(Op::KvAppend { cache, k, v });
        self.push(Op::Attention(AttentionOp {
            cache,
            q,
            out,
            heads: spec.heads,
            kv_heads,
            head_dim,
            v_dim,
            scale: spec.scale,
            window: None,
            sinks: None,
            softcap: None,
        }));
    }

    fn stack(&mut self, path: &str, heads: usize, rows: usize, cols: usize) -> WeightId {
        self.weight(Weight {
            path: path.to_owned(),
            each: None,
            shape: WeightShape::Stack(heads, rows, cols),
            shift: 0.0,
        })
    }
}
