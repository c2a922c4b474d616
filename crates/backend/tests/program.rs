//! Ops that no bundled model has, in a program made by hand over a fixture's weights: the CPU against the
//! reference op by op, and the same bits whatever the instruction set, threads and rows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Buffers, Cpu, Executable, Flow, Limits, LoadOptions, Probe, Reference, Row};
use amoeba_checkpoint::Checkpoint;
use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::{attention, rms_norm};
use amoeba_plan::{
    ActivateOp, Activation, AddOp, AttentionOp, Buffer, BufferId, BufferKind, Cache, CacheId, CacheKind,
    CopyOp, EmbedOp, GateKind, HeadGateOp, HeadLinearOp, KvAppendOp, LinearOp, NormOp, Op, Part, Plan,
    RopeId, RopeOp, RouterOp, ScaleOp, Score, Step, Strided, TemperatureOp, WeightId, WeightShape, Window,
};

const TOKENS: usize = 300;
/// More query heads than a kernel takes at a time share their keys.
const HEADS: usize = 40;
const K_DIM: usize = 24;
const V_DIM: usize = 20;

/// A plan whose program is replaced.
struct Made {
    plan: Plan,
    ops: Vec<Op>,
}

impl Made {
    fn buffer(&mut self, name: &'static str, width: usize) -> BufferId {
        self.plan.buffers.push(Buffer { name, width, kind: BufferKind::Values });
        BufferId(self.plan.buffers.len() - 1)
    }

    fn weight(&self, part: &str) -> WeightId {
        WeightId(self.plan.weights.iter().position(|weight| weight.path.contains(part)).unwrap())
    }

    /// As the weight is shaped.
    fn linear(&self, part: &str, x: BufferId, out: BufferId) -> Op {
        let weight = self.weight(part);
        let WeightShape::Matrix(rows, cols) = self.plan.weight(weight).shape else { unreachable!() };
        Op::Linear(LinearOp { weight, bias: None, rows, cols, x, out })
    }

    fn embed(&mut self, part: &str, width: usize) -> Op {
        let table = self.weight(part);
        let WeightShape::Matrix(vocab, _) = self.plan.weight(table).shape else { unreachable!() };
        Op::Embed(EmbedOp { table, vocab, width, scale: 0.5, out: self.buffer("wide", width) })
    }

    fn attention(
        &mut self,
        q: BufferId,
        name: &'static str,
        window: Option<Window>,
        sinks: bool,
    ) -> BufferId {
        let out = self.buffer(name, HEADS * V_DIM);
        let sinks = sinks.then(|| self.weight("input_layernorm"));
        let plain = attention(CacheId(0), q, out, [HEADS, 1, K_DIM, V_DIM], 0.2);
        self.ops.push(Op::Attention(AttentionOp { window, sinks, ..plain }));
        out
    }

    /// Every kind of window over the same keys and values.
    fn attentions(&mut self, k: BufferId, v: BufferId, q: BufferId) -> [BufferId; 3] {
        let kind = CacheKind::Kv { kv_heads: 1, k_dim: K_DIM, v_dim: V_DIM };
        self.plan.caches = vec![Cache { layer: 0, kind }];
        let (cache, kv_heads, k_dim, v_dim) = (CacheId(0), 1, K_DIM, V_DIM);
        self.ops.push(Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim, v_dim, k, v }));
        [
            self.attention(q, "all", None, true),
            self.attention(q, "slid", Some(Window::Sliding(270)), true),
            self.attention(q, "chunked", Some(Window::Chunk(70)), false),
        ]
    }
}

/// Every op that the families of the fixtures do not have.
fn plan(checkpoint: &Checkpoint) -> Plan {
    let plan = Plan::of(checkpoint).unwrap();
    let (hidden, head) = (plan.spec.hidden, plan.program[plan.head..].to_vec());
    let op = |name: &str| plan.program.iter().find(|step| step.op.name() == name).unwrap().op.clone();
    let (Op::Experts(experts), Op::Router(RouterOp { mut rule, .. })) = (op("experts"), op("router")) else {
        unreachable!("the fixture has experts")
    };
    let (n, d_ff) = (experts.experts, experts.d_ff);
    let [residual, normed] = ["residual", "normed"].map(|name| plan.buffer_named(name).unwrap());
    let first = plan.program[0].op.clone();
    let mut made = Made { plan, ops: vec![first] };
    let m = &mut made;
    let wide = m.embed("o_proj", hidden);
    let weight = Some(m.weight("input_layernorm"));
    let (chunks, dim, x, out) = (4, hidden / 4, residual, normed);
    let plain = rms_norm(x, out, weight, [chunks, dim]);
    let norm = Op::Norm(NormOp { scale: 0.7, per_chunk: true, ..plain });
    let (logits, route, gate) = (m.buffer("scores", n), m.buffer("way", 2), m.buffer("input_gate", 1));
    let score = m.linear("mlp.gate", normed, logits);
    (rule.top_k, rule.score) = (1, Score::Sigmoid);
    let (correction, per_expert, input_gate) = (None, Some(m.weight("input_layernorm")), Some(gate));
    let router =
        Op::Router(RouterOp { logits, out: route, experts: n, rule, correction, per_expert, input_gate });
    let (kind, heads, width) = (GateKind::Plain, 1, hidden);
    let gated = Op::HeadGate(HeadGateOp { kind, gate, heads, x: normed, width });
    m.ops.extend([wide, norm, score, router, gated]);
    // Every head the same input, then each its own.
    let [many, inner, outs] =
        [("many", n * hidden), ("inner", n * d_ff), ("outs", n * hidden)].map(|(name, w)| m.buffer(name, w));
    let at = |buffer, first, stride| Strided { buffer, first, stride };
    let spread = Op::Copy(CopyOp { x: at(normed, 0, 0), out: at(many, 0, hidden), heads: n, len: hidden });
    let own =
        Op::HeadGate(HeadGateOp { kind: GateKind::Softplus, gate: logits, heads: n, x: many, width: hidden });
    let q = m.buffer("q_made", hidden);
    let beside = m.linear("q_proj", normed, q);
    let (weight, x, out) = (experts.up.stack, many, inner);
    let up = Op::HeadLinear(HeadLinearOp { weight, heads: n, rows: d_ff, cols: hidden, x, out });
    let (activation, gate, width) = (Activation::Silu, None, n * d_ff);
    let activate = Op::Activate(ActivateOp { activation, gate, up: inner, out: inner, width });
    let (weight, x, out) = (experts.down.stack, inner, outs);
    let down = Op::HeadLinear(HeadLinearOp { weight, heads: n, rows: hidden, cols: d_ff, x, out });
    // Every second head from one buffer to another, then the first half of that onto the second.
    let half = n / 2;
    let second = Op::Copy(CopyOp {
        x: at(outs, hidden, 2 * hidden),
        out: at(many, 0, hidden),
        heads: half,
        len: hidden,
    });
    let (x, out) = (at(many, 0, hidden), at(many, half * hidden, hidden));
    let within = Op::Copy(CopyOp { x, out, heads: half, len: hidden });
    let (rope, turned) = (RopeId(0), hidden - m.plan.ropes[0].dims);
    let turn = Op::Rope(RopeOp { rope, heads: n, head_dim: hidden, first: turned, x: many });
    let sharpen =
        Op::Temperature(TemperatureOp { x: many, width: n * hidden, scale: 0.1, period: 4.0, shift: 1.0 });
    m.ops.extend([spread, own, beside, up, activate, down, second, within, turn, sharpen]);
    let seen = m.attentions(outs, inner, many);
    let wide = BufferId(m.plan.buffers.iter().position(|buffer| buffer.name == "wide").unwrap());
    let add = |y| Op::Add(AddOp { x: residual, y, scale: 0.3, width: hidden });
    m.ops.extend(seen.into_iter().chain([wide, q, outs]).map(add));
    m.ops.push(Op::Scale(ScaleOp { x: residual, scale: 0.5, by: None, softcap: Some(4.0), width: hidden }));
    let Made { mut plan, ops } = made;
    plan.head = ops.len();
    plan.program =
        ops.into_iter().map(|op| Step { layer: Some(0), part: Part::Other, op }).chain(head).collect();
    plan
}

fn open(fixture: &str) -> (Plan, Arc<Checkpoint>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
    let checkpoint = Arc::new(Checkpoint::open(&dir).unwrap());
    (plan(&checkpoint), checkpoint)
}

fn cpu(fixture: &str, threads: usize, isa: Isa, rows: usize) -> Cpu {
    let (plan, checkpoint) = open(fixture);
    let limits = Limits { slots: 1, context: TOKENS, rows };
    let options = LoadOptions { threads: Some(threads), isa: Some(isa), ..LoadOptions::sized(limits) };
    Cpu::load(plan, &checkpoint, &options, &mut |_, _| {}).unwrap()
}

fn rows(range: std::ops::Range<usize>) -> Vec<Row> {
    // Tokens that both tables have.
    range.map(|i| Row { token: (i * 37 % 128) as u32, slot: 0, position: i, logits: true }).collect()
}

/// Outputs of all ops.
struct All {
    outputs: Vec<Option<BufferId>>,
    rows: usize,
    values: Vec<Vec<Vec<f32>>>,
}

impl Probe for All {
    fn wants(&self, _op: usize) -> bool {
        true
    }

    fn see(&mut self, op: usize, buffers: &dyn Buffers) -> Flow {
        let output = self.outputs[op];
        let of = |buffer| (0..self.rows).map(|row| buffers.row(buffer, row).to_vec()).collect();
        self.values[op] = output.map(of).unwrap_or_default();
        Flow::Continue
    }
}

fn outputs(executable: &mut dyn Executable, rows: &[Row]) -> Vec<Vec<Vec<f32>>> {
    let outputs: Vec<_> = executable.plan().program.iter().map(|step| step.op.output()).collect();
    let mut all = All { values: vec![Vec::new(); outputs.len()], outputs, rows: rows.len() };
    executable.step(rows, Some(&mut all)).unwrap();
    all.values
}

#[test]
fn each_op_follows_the_reference() {
    for fixture in
        ["qwen3_moe-q4g64", "qwen3_moe-q3g64", "qwen3_moe-mxfp4", "qwen3_moe-mxfp8", "qwen3_moe-bf16"]
    {
        let (plan, checkpoint) = open(fixture);
        let limits = Limits { slots: 1, context: TOKENS, rows: 17 };
        let mut reference = Reference::load(plan.clone(), checkpoint, limits).unwrap();
        let mut cpu = cpu(fixture, 2, Isa::best(), 17);
        for range in [0..17, 17..18, 18..23, 23..24] {
            let rows = rows(range.clone());
            let [truth, found] = [outputs(&mut reference, &rows), outputs(&mut cpu, &rows)];
            for (op, (truth, found)) in truth.iter().zip(&found).enumerate() {
                for (truth, found) in truth.iter().zip(found) {
                    let size = truth.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                    let off = truth.iter().zip(found).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                    let name = plan.program[op].op.name();
                    assert!(
                        off <= 2e-5 * size,
                        "{fixture} rows {range:?}, op {op} {name}: {off:e} of {size:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_how_the_work_is_done() {
    for fixture in ["qwen3_moe-q4g64", "qwen3_moe-mxfp4", "qwen3_moe-bf16"] {
        let logits = |threads, isa, chunk: usize| -> Vec<u32> {
            let mut cpu = cpu(fixture, threads, isa, chunk);
            for start in (0..TOKENS).step_by(chunk) {
                cpu.step(&rows(start..TOKENS.min(start + chunk)), None).unwrap();
            }
            cpu.logits((TOKENS - 1) % chunk).iter().map(|x| x.to_bits()).collect()
        };
        let first = logits(1, Isa::best(), 1);
        for (threads, chunk) in [(3, 1), (2, 2), (3, 8), (2, 9), (4, TOKENS)] {
            assert!(
                logits(threads, Isa::best(), chunk) == first,
                "{fixture}: {threads} threads, {chunk} rows"
            );
        }
        for isa in Isa::available() {
            assert!(logits(2, isa, 64) == first, "{fixture} on {isa}");
        }
    }
}

#[test]
fn weights_of_products_per_head_are_read_whole() {
    let (plan, _) = open("qwen3_moe-q4g64");
    let share = |part: &str| {
        let id = plan.weights.iter().position(|weight| weight.path.contains(part)).unwrap();
        (plan.share_read_per_token(WeightId(id)), plan.weights[id].shape)
    };
    assert!(matches!(share("layers.0.mlp.switch_mlp.up_proj"), (1.0, WeightShape::Stack(..))));
    assert_eq!(share("layers.0.self_attn.o_proj").0, 1.0 / 128.0, "a table is read by rows");
}
