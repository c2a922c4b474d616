//! Delta nets, state spaces, short convolutions: projections, the recurrent op, its gate.

use super::Lowering;
use crate::op::{ConvOp, DeltaNetOp, Op, SsmOp};
use crate::program::{BufferId, CacheKind, WeightId};
use crate::spec::{
    Activation, ConvSpec, DeltaProjections, DeltaSpec, MambaSpec, NormKind, NormSpec, ShortConvSpec,
    SsmInputs,
};

impl Lowering {
    pub(super) fn delta(&mut self, spec: &DeltaSpec, x: BufferId, out: BufferId) {
        let DeltaSpec { k_heads, v_heads, k_dim, v_dim, .. } = *spec;
        let (k_width, v_width) = (k_heads * k_dim, v_heads * v_dim);
        let channels = 2 * k_width + v_width;
        let per_channel = matches!(spec.projections, DeltaProjections::LowRank { .. });
        let decays = if per_channel { v_heads * k_dim } else { v_heads };
        let [mixed, z, beta, decay] =
            [("conv_in", channels), ("z", v_width), ("beta", v_heads), ("decay", decays)]
                .map(|(name, width)| self.buffer(name, width));
        self.delta_projections(spec, x, [mixed, z, beta, decay]);
        let [q, k, v, y] =
            [("delta_q", k_width), ("delta_k", k_width), ("delta_v", v_width), ("delta_out", v_width)]
                .map(|(name, width)| self.buffer(name, width));
        self.delta_convs(spec, (x, mixed), [q, k, v]);
        // x / |x| as an RMS norm: its mean square is |x|² / k_dim. Queries also take the factor 1/√k_dim.
        let root = 1.0 / (k_dim as f32).sqrt();
        for (x, scale) in [(q, 1.0 / k_dim as f32), (k, root)] {
            let (kind, eps) = (NormKind::Rms, 1e-6 / k_dim as f32);
            self.norm(
                &NormSpec { kind, weight: None, bias: None, plus_one: false, eps, scale },
                k_heads,
                k_dim,
                x,
                x,
            );
        }
        let cache = self.cache(CacheKind::State { heads: v_heads, rows: v_dim, cols: k_dim });
        let (a_log, dt_bias) =
            (self.vector(spec.a_log.clone(), v_heads), self.vector(spec.dt_bias.clone(), decays));
        self.push(Op::DeltaNet(DeltaNetOp {
            cache,
            q,
            k,
            v,
            decay,
            beta,
            a_log,
            dt_bias,
            per_channel,
            k_heads,
            v_heads,
            k_dim,
            v_dim,
            out: y,
        }));
        self.norm(&spec.norm, v_heads, v_dim, y, y);
        self.activate(spec.gate, Some(z), y, y, v_width);
        self.linear(&spec.out, self.hidden, v_width, y, out);
    }

    /// What goes into the convolution (but low-rank ones), the gate, and the logits of β and the decay.
    fn delta_projections(&mut self, spec: &DeltaSpec, x: BufferId, [mixed, z, beta, decay]: [BufferId; 4]) {
        let DeltaSpec { k_heads, v_heads, k_dim, v_dim, .. } = *spec;
        let (k_width, v_width) = (k_heads * k_dim, v_heads * v_dim);
        let channels = 2 * k_width + v_width;
        match &spec.projections {
            DeltaProjections::Apart { qkv, z: of_z, beta: of_beta, decay: of_decay } => {
                self.linear(qkv, channels, self.hidden, x, mixed);
                self.linear(of_z, v_width, self.hidden, x, z);
                self.linear(of_beta, v_heads, self.hidden, x, beta);
                self.linear(of_decay, v_heads, self.hidden, x, decay);
            }
            DeltaProjections::LowRank { beta: of_beta, decay: of_decay, z: of_z, rank, .. } => {
                self.linear(of_beta, v_heads, self.hidden, x, beta);
                for ([a, b], name, out, width) in
                    [(of_decay, "decay_low", decay, v_heads * k_dim), (of_z, "z_low", z, v_width)]
                {
                    let low = self.project(a, name, *rank, self.hidden, x);
                    self.linear(b, width, *rank, low, out);
                }
            }
            DeltaProjections::Grouped { qkvz, ba } => {
                let per_key = v_heads / k_heads;
                let (v_part, stride) = (per_key * v_dim, 2 * k_dim + 2 * per_key * v_dim);
                let all = self.project(qkvz, "qkvz", k_heads * stride, self.hidden, x);
                self.heads((all, 0, stride), (mixed, 0, k_dim), k_heads, k_dim);
                self.heads((all, k_dim, stride), (mixed, k_width, k_dim), k_heads, k_dim);
                self.heads((all, 2 * k_dim, stride), (mixed, 2 * k_width, v_part), k_heads, v_part);
                self.heads((all, 2 * k_dim + v_part, stride), (z, 0, v_part), k_heads, v_part);
                let all = self.project(ba, "ba", 2 * v_heads, self.hidden, x);
                self.heads((all, 0, 2 * per_key), (beta, 0, per_key), k_heads, per_key);
                self.heads((all, per_key, 2 * per_key), (decay, 0, per_key), k_heads, per_key);
            }
        }
    }

    /// Queries, keys and values after their convolutions.
    fn delta_convs(&mut self, spec: &DeltaSpec, (x, mixed): (BufferId, BufferId), [q, k, v]: [BufferId; 3]) {
        let (k_width, v_width) = (spec.k_heads * spec.k_dim, spec.v_heads * spec.v_dim);
        let channels = 2 * k_width + v_width;
        let parts = [(q, 0, k_width), (k, k_width, k_width), (v, 2 * k_width, v_width)];
        match (&spec.projections, &spec.convs[..]) {
            (DeltaProjections::LowRank { qkv, .. }, convs) => {
                for ((linear, conv), (part, _, width)) in qkv.iter().zip(convs).zip(parts) {
                    self.linear(linear, width, self.hidden, x, mixed);
                    let y = self.conv(conv, width, true, mixed);
                    self.part((y, 0), part, width);
                }
            }
            (_, convs) => {
                let y = self.conv(&convs[0], channels, true, mixed);
                parts.into_iter().for_each(|(part, first, width)| self.part((y, first), part, width));
            }
        }
    }

    pub(super) fn mamba(&mut self, spec: &MambaSpec, x: BufferId, out: BufferId) {
        let MambaSpec { heads, head_dim, groups, state, .. } = *spec;
        let (width, bc) = (heads * head_dim, groups * state);
        let [z, mixed, dt, b, c, y] = [
            ("z", width),
            ("conv_in", width),
            ("dt", heads),
            ("ssm_b", bc),
            ("ssm_c", bc),
            ("ssm_out", width),
        ]
        .map(|(name, width)| self.buffer(name, width));
        let (inner, dt_bias) = self.ssm_inputs(spec, x, [z, mixed, dt, b, c]);
        let per_state = dt_bias.is_none();
        let cache = self.cache(CacheKind::State { heads, rows: head_dim, cols: state });
        let a_log = self.vector(spec.a_log.clone(), if per_state { heads * state } else { heads });
        let d = self.vector(spec.d.clone(), heads);
        self.push(Op::Ssm(SsmOp {
            cache,
            x: inner,
            b,
            c,
            dt,
            a_log,
            per_state,
            d,
            dt_bias,
            dt_limit: spec.dt_limit,
            heads,
            head_dim,
            groups,
            state,
            out: y,
        }));
        self.activate(Activation::SwiGlu, Some(z), y, y, width);
        if let SsmInputs::Joint { norm, norm_groups, .. } = &spec.inputs {
            self.norm_with(norm, (*norm_groups, width / norm_groups, true), y, y);
        }
        self.linear(&spec.out, self.hidden, width, y, out);
    }

    /// Fills gate, time step, B and C; gives what goes through the state, and the bias of the time step.
    fn ssm_inputs(
        &mut self,
        spec: &MambaSpec,
        x: BufferId,
        [z, mixed, dt, b, c]: [BufferId; 5],
    ) -> (BufferId, Option<WeightId>) {
        let MambaSpec { heads, head_dim, groups, state, .. } = *spec;
        let (width, bc) = (heads * head_dim, groups * state);
        match &spec.inputs {
            SsmInputs::Joint { dt_bias, .. } => {
                let channels = width + 2 * bc;
                let mixed = self.buffer("conv_in", channels);
                let all = self.project(&spec.input, "mamba_in", width + channels + heads, self.hidden, x);
                self.part((all, 0), z, width);
                self.part((all, width), mixed, channels);
                self.part((all, width + channels), dt, heads);
                let conv = self.conv(&spec.conv, channels, true, mixed);
                let inner = self.buffer("ssm_x", width);
                self.part((conv, 0), inner, width);
                self.part((conv, width), b, bc);
                self.part((conv, width + bc), c, bc);
                (inner, Some(self.vector(dt_bias.clone(), heads)))
            }
            SsmInputs::Selected { x_proj, dt_proj, norms, rank } => {
                let all = self.project(&spec.input, "mamba_in", 2 * width, self.hidden, x);
                self.part((all, 0), mixed, width);
                self.part((all, width), z, width);
                let inner = self.conv(&spec.conv, width, true, mixed);
                let all = self.project(x_proj, "selected", rank + 2 * state, width, inner);
                let low = self.buffer("dt_low", *rank);
                let mut first = 0;
                for (norm, (part, width)) in norms.iter().zip([(low, *rank), (b, state), (c, state)]) {
                    self.part((all, first), part, width);
                    self.norm(norm, 1, width, part, part);
                    first += width;
                }
                self.linear(dt_proj, width, *rank, low, dt);
                (inner, None)
            }
        }
    }

    pub(super) fn short_conv(&mut self, spec: &ShortConvSpec, x: BufferId, out: BufferId) {
        let width = self.hidden;
        let all = self.project(&spec.input, "conv_bcx", 3 * width, width, x);
        let [b, c, mixed] = ["conv_b", "conv_c", "conv_in"].map(|name| self.buffer(name, width));
        self.part((all, 0), b, width);
        self.part((all, width), c, width);
        self.part((all, 2 * width), mixed, width);
        self.activate(Activation::Product, Some(b), mixed, mixed, width);
        let y = self.conv(&spec.conv, width, false, mixed);
        self.activate(Activation::Product, Some(c), y, y, width);
        self.linear(&spec.out, width, width, y, out);
    }

    fn conv(&mut self, spec: &ConvSpec, channels: usize, silu: bool, x: BufferId) -> BufferId {
        let taps = spec.kernel - 1;
        let weight = self.vector(format!("{}.weight", spec.path), channels * spec.kernel);
        let bias = spec.bias.then(|| self.vector(format!("{}.bias", spec.path), channels));
        let cache = self.cache(CacheKind::Conv { channels, taps });
        let out = self.buffer("conv_out", channels);
        self.push(Op::Conv(ConvOp { cache, weight, bias, channels, taps, silu, x, out }));
        out
    }
}
