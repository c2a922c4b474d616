//! Dense MLPs and routed experts.

use super::Lowering;
use crate::block::RoutedBlock;
use crate::op::{ExpertWeights, ExpertsOp, HeadGateOp, Op, RouterOp};
use crate::part::Part;
use crate::program::{BufferId, Weight, WeightShape};
use crate::spec::{ExpertSpec, GateKind, Inner, LinearSpec, MlpSpec, MoeSpec, RouterRule, Score, SharedSpec};

impl Lowering {
    pub(super) fn mlp(&mut self, spec: &MlpSpec, x: BufferId, out: BufferId) {
        let (d_ff, hidden) = (spec.d_ff, self.hidden);
        let up = self.buffer("up", d_ff);
        let gate = match &spec.inner {
            Inner::Apart(gate, of_up) => {
                let gate = gate.as_ref().map(|gate| self.project(gate, "gate", d_ff, hidden, x));
                self.linear(of_up, d_ff, hidden, x, up);
                gate
            }
            Inner::Fused(linear) => {
                let both = self.project(linear, "gate_and_up", 2 * d_ff, hidden, x);
                let gate = self.buffer("gate", d_ff);
                self.part((both, 0), gate, d_ff);
                self.part((both, d_ff), up, d_ff);
                Some(gate)
            }
        };
        let activated = self.buffer("activated", d_ff);
        self.activate(spec.activation, gate, up, activated, d_ff);
        self.linear(&spec.down, hidden, d_ff, activated, out);
    }

    /// Routed experts on `x`; a router with a norm of its own reads the residual stream.
    pub(super) fn moe(
        &mut self,
        spec: &MoeSpec,
        x: BufferId,
        residual: BufferId,
        out: BufferId,
    ) -> RoutedBlock {
        let hidden = self.hidden;
        let routed = match &spec.router_norm {
            None => x,
            Some(norm) => {
                let normed = self.buffer("router_in", hidden);
                self.norm(norm, 1, hidden, residual, normed);
                normed
            }
        };
        let scores = self.program.len();
        self.part = Part::Router;
        let logits = self.project(&spec.router, "router_logits", spec.experts, hidden, routed);
        self.part = Part::Experts;
        let (width, inner) = match &spec.latent {
            None => (hidden, x),
            Some(latent) => (latent.width, self.project(&latent.down, "experts_in", latent.width, hidden, x)),
        };
        let input_gate = spec.input_gate.then(|| self.buffer("input_gate", 1));
        let router = self.program.len();
        let route = self.route(&spec.rule, logits, spec.experts, input_gate);
        let mix = spec.shared.as_ref().and_then(|shared| shared.mix.as_ref());
        let shared_weight = mix.map(|linear| self.mix(linear, x, route, spec.rule.top_k));
        let inner = match input_gate {
            None => inner,
            Some(gate) => {
                let gated = self.buffer("experts_in", width);
                self.part((inner, 0), gated, width);
                self.gate_all(GateKind::Plain, gate, gated, width);
                gated
            }
        };
        let sum = if spec.latent.is_some() { self.buffer("experts_out", width) } else { out };
        let experts = self.routed(spec, width, [inner, route, sum]);
        if let Some(latent) = &spec.latent {
            self.linear(&latent.up, hidden, width, sum, out);
        }
        if let Some(shared) = &spec.shared {
            self.shared(shared, shared_weight, x, out);
        }
        let (end, own_norm) = (self.program.len(), spec.router_norm.is_some());
        RoutedBlock { scores, router, experts, end, own_norm }
    }

    /// The experts themselves; gives the index of their step.
    fn routed(&mut self, spec: &MoeSpec, width: usize, [x, route, out]: [BufferId; 3]) -> usize {
        let gate = spec.gate.as_ref().map(|gate| self.experts(gate, spec.experts, spec.d_ff, width));
        let up = self.experts(&spec.up, spec.experts, spec.d_ff, width);
        let down = self.experts(&spec.down, spec.experts, width, spec.d_ff);
        let (experts, top_k) = (spec.experts, spec.rule.top_k);
        let (hidden, d_ff, activation) = (width, spec.d_ff, spec.activation);
        self.part = Part::Experts;
        self.push(Op::Experts(ExpertsOp {
            x,
            route,
            out,
            experts,
            top_k,
            hidden,
            d_ff,
            activation,
            gate,
            up,
            down,
        }));
        self.program.len() - 1
    }

    fn route(
        &mut self,
        rule: &RouterRule,
        logits: BufferId,
        experts: usize,
        input_gate: Option<BufferId>,
    ) -> BufferId {
        let route = self.route_buffer("route", rule.top_k);
        let mut named = |name: &Option<String>| name.as_ref().map(|name| self.vector(name.clone(), experts));
        let (correction, per_expert) = (named(&rule.correction), named(&rule.per_expert));
        let rule = rule.clone();
        self.choose(RouterOp { logits, out: route, experts, rule, correction, per_expert, input_gate });
        route
    }

    fn shared(&mut self, spec: &SharedSpec, weight: Option<BufferId>, x: BufferId, out: BufferId) {
        let width = self.hidden;
        let result = self.buffer("shared", width);
        self.part = Part::Shared;
        self.mlp(&spec.mlp, x, result);
        if let Some(linear) = &spec.gate {
            let gate = self.project(linear, "shared_gate", 1, width, x);
            self.gate_all(GateKind::Sigmoid, gate, result, width);
        }
        if let Some(gate) = weight {
            self.gate_all(GateKind::Plain, gate, result, width);
        }
        self.add(out, result, 1.0, width);
    }

    /// One factor for `width` elements of `x`.
    fn gate_all(&mut self, kind: GateKind, gate: BufferId, x: BufferId, width: usize) {
        self.glue(Op::HeadGate(HeadGateOp { kind, gate, heads: 1, x, width }));
    }

    fn choose(&mut self, op: RouterOp) {
        self.part = Part::Router;
        self.push(Op::Router(op));
    }

    /// The softmax of two logits: the first scales the weights of a route, the second is returned.
    fn mix(&mut self, linear: &LinearSpec, x: BufferId, route: BufferId, top_k: usize) -> BufferId {
        self.part = Part::Shared;
        let logits = self.project(linear, "mix_logits", 2, self.hidden, x);
        let both = self.route_buffer("mix", 2);
        let [weights, routed, shared] = [("mix_weights", top_k), ("mix_routed", 1), ("mix_shared", 1)]
            .map(|(name, width)| self.buffer(name, width));
        let rule = RouterRule {
            top_k: 2,
            score: Score::Softmax,
            correction: None,
            groups: None,
            normalise: None,
            scale: 1.0,
            per_expert: None,
        };
        let (correction, per_expert, input_gate) = (None, None, None);
        self.choose(RouterOp { logits, out: both, experts: 2, rule, correction, per_expert, input_gate });
        self.part((both, 2), routed, 1);
        self.part((both, 3), shared, 1);
        self.part((route, top_k), weights, top_k);
        self.gate_all(GateKind::Plain, routed, weights, top_k);
        self.heads((weights, 0, 0), (route, top_k, 0), 1, top_k);
        shared
    }

    fn experts(&mut self, spec: &ExpertSpec, experts: usize, rows: usize, cols: usize) -> ExpertWeights {
        let shape = WeightShape::Stack(experts, rows, cols);
        let stack =
            self.weight(Weight { path: spec.path.clone(), each: spec.each.clone(), shape, shift: 0.0 });
        let bias = spec.bias.then(|| self.vector(format!("{}.bias", spec.path), experts * rows));
        ExpertWeights { stack, bias }
    }
}
