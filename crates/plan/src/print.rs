//! A plan as text: what `inspect --plan` prints.

use std::fmt;

use crate::program::BufferId;
use crate::{Op, Plan, Strided, WeightId, Window};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut layer = None;
        for (i, step) in self.program.iter().enumerate() {
            if step.layer != layer || i == 0 || i == self.head {
                layer = step.layer;
                match layer {
                    Some(layer) => writeln!(f, "layer {layer}")?,
                    None => writeln!(f, "{}", if i == 0 { "embed" } else { "head" })?,
                }
            }
            writeln!(f, "{i:5}  {}", Line { plan: self, op: &step.op })?;
        }
        Ok(())
    }
}

/// One printed line of a program.
struct Line<'a> {
    plan: &'a Plan,
    op: &'a Op,
}

impl Line<'_> {
    fn name(&self, id: BufferId) -> &'static str {
        self.plan.buffer(id).name
    }

    fn part(&self, part: &Strided) -> String {
        format!("{}[{}, +{}]", self.name(part.buffer), part.first, part.stride)
    }

    fn weight(&self, id: WeightId) -> String {
        let weight = self.plan.weight(id);
        format!("{} {}", weight.path, weight.shape)
    }

    /// Recurrent and elementwise ops.
    fn rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op {
            Op::HeadGate { kind, gate, heads, x, .. } => {
                write!(f, "{} *= {kind:?}({})  {heads} heads", self.name(*x), self.name(*gate))
            }
            Op::Conv(c) => {
                let (out, x, silu) = (self.name(c.out), self.name(c.x), if c.silu { ", silu" } else { "" });
                write!(f, "{out} <- {x}, cache {}  {} × {}{silu}", c.cache.0, c.channels, c.taps + 1)
            }
            Op::DeltaNet(d) => {
                let [out, q, k, v] = [d.out, d.q, d.k, d.v].map(|id| self.name(id));
                write!(f, "{out} <- {q}, {k}, {v}, cache {}  ", d.cache.0)?;
                write!(f, "{} heads / {} key heads, {} × {}", d.v_heads, d.k_heads, d.v_dim, d.k_dim)
            }
            Op::Ssm(s) => {
                let [out, x, dt] = [s.out, s.x, s.dt].map(|id| self.name(id));
                write!(f, "{out} <- {x}, {dt}, cache {}  ", s.cache.0)?;
                write!(f, "{} heads × {} × {}, {} groups", s.heads, s.head_dim, s.state, s.groups)
            }
            Op::Temperature { x, scale, period, .. } => {
                write!(f, "{} *= 1 + {scale} ln(1 + position / {period})", self.name(*x))
            }
            Op::Add { x, y, scale, .. } => write!(f, "{} += {scale} × {}", self.name(*x), self.name(*y)),
            Op::Scale { x, scale, by, softcap, .. } => {
                let by = by.map_or(String::new(), |id| format!(" × {}", self.weight(id)));
                write!(f, "{} × {scale}{by}, cap {softcap:?}", self.name(*x))
            }
            other => f.write_str(other.name()),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:13}", self.op.name())?;
        match self.op {
            Op::Embed { table, scale, out } => {
                write!(f, "{} <- {} × {scale}", self.name(*out), self.weight(*table))
            }
            Op::Norm(norm) => {
                let weight = norm.weight.map_or_else(|| "no weight".to_owned(), |id| self.weight(id));
                let (x, out) = (self.name(norm.x), self.name(norm.out));
                write!(
                    f,
                    "{out} <- {x}  {:?} {} × {} eps {:e}, {weight}",
                    norm.kind, norm.chunks, norm.dim, norm.eps
                )
            }
            Op::Linear { weight, bias, x, out } => {
                let bias = if bias.is_some() { " + bias" } else { "" };
                write!(f, "{} <- {}  {}{bias}", self.name(*out), self.name(*x), self.weight(*weight))
            }
            Op::HeadLinear { weight, x, out, .. } => {
                write!(f, "{} <- {}  {}", self.name(*out), self.name(*x), self.weight(*weight))
            }
            Op::Copy { x, out, heads, len } => {
                write!(f, "{} <- {}  {heads} × {len}", self.part(out), self.part(x))
            }
            Op::Rope { rope, heads, head_dim, first, x } => {
                write!(f, "{}  rope {} on {heads} × {head_dim}", self.name(*x), rope.0)?;
                if *first > 0 { write!(f, " from {first}") } else { Ok(()) }
            }
            Op::KvAppend { cache, k, v } => {
                write!(f, "cache {} <- {}, {}", cache.0, self.name(*k), self.name(*v))
            }
            Op::Attention(a) => {
                write!(f, "{} <- {}, cache {}  ", self.name(a.out), self.name(a.q), a.cache.0)?;
                write!(f, "{} heads / {} kv × {}, scale {}", a.heads, a.kv_heads, a.head_dim, a.scale)?;
                match a.window {
                    None => Ok(()),
                    Some(Window::Sliding(width)) => write!(f, ", window {width}"),
                    Some(Window::Chunk(width)) => write!(f, ", chunks of {width}"),
                }
            }
            Op::Activate { activation, up, out, width, .. } => {
                write!(f, "{} <- gate, {}  {activation:?} × {width}", self.name(*out), self.name(*up))
            }
            Op::Router { logits, out, rule, .. } => {
                write!(
                    f,
                    "{} <- {}  {:?} top {}",
                    self.name(*out),
                    self.name(*logits),
                    rule.score,
                    rule.top_k
                )?;
                if rule.normalise.is_some() { write!(f, ", normalised") } else { Ok(()) }
            }
            Op::Experts(e) => {
                write!(f, "{} <- {}, {}  ", self.name(e.out), self.name(e.x), self.name(e.route))?;
                write!(
                    f,
                    "{} of {} × {}, {:?}, {}",
                    e.top_k,
                    e.experts,
                    e.d_ff,
                    e.activation,
                    self.weight(e.up.stack)
                )
            }
            _ => self.rest(f),
        }
    }
}
