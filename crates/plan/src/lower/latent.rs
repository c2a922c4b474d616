//! Multi-head latent attention.

use super::Lowering;
use crate::op::{AttentionOp, HeadLinearOp, KvAppendOp, Op};
use crate::program::{BufferId, CacheKind, Weight, WeightId, WeightShape};
use crate::spec::{LatentForm, LatentQuery, LatentSpec};

impl Lowering {
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
                self.absorbed(spec, (q, kv_a, latent, k, attended), (embed_q, unembed_out));
            }
        }
        self.linear(&spec.o, self.hidden, heads * v_dim, attended, out);
    }

    /// Queries moved into the latent's space, attention there, results moved back.
    fn absorbed(
        &mut self,
        spec: &LatentSpec,
        (q, kv_a, latent, k, attended): (BufferId, BufferId, BufferId, BufferId, BufferId),
        (embed_q, unembed_out): (&str, &str),
    ) {
        let LatentSpec { heads, nope_dim, rope_dim, v_dim, rank, .. } = *spec;
        let head_dim = nope_dim + rope_dim;
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
        let (rows, cols, x, out) = (rank, nope_dim, q_nope, embedded);
        self.push(Op::HeadLinear(HeadLinearOp { weight, heads, rows, cols, x, out }));
        self.heads((embedded, 0, rank), (q_wide, 0, wide), heads, rank);
        self.heads((q, nope_dim, head_dim), (q_wide, rank, wide), heads, rope_dim);
        self.part((latent, 0), k, rank);
        self.heads((kv_a, rank, 0), (k, rank, 0), 1, rope_dim);
        self.attend(spec, (q_wide, k, latent, narrow), (1, wide, rank));
        let weight = self.stack(unembed_out, heads, v_dim, rank);
        let (rows, cols, x, out) = (v_dim, rank, narrow, attended);
        self.push(Op::HeadLinear(HeadLinearOp { weight, heads, rows, cols, x, out }));
    }

    /// Appends keys and values and attends.
    fn attend(
        &mut self,
        spec: &LatentSpec,
        (q, k, v, out): (BufferId, BufferId, BufferId, BufferId),
        (kv_heads, head_dim, v_dim): (usize, usize, usize),
    ) {
        let cache = self.cache(CacheKind::Kv { kv_heads, k_dim: head_dim, v_dim });
        self.push(Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim: head_dim, v_dim, k, v }));
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
