//! A plan as text: what `inspect --plan` prints.

use std::fmt;

use crate::program::CacheId;
use crate::{BufferId, Part, Plan, Region, Step};

impl fmt::Display for Plan {
    /// A line per step: its index, op and part, what it writes and reads, its settings and weights.
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
            writeln!(f, "{i:5}  {}", Line { plan: self, step })?;
        }
        Ok(())
    }
}

impl Plan {
    /// Buffers by name, separated by commas.
    pub fn names(&self, buffers: &[BufferId]) -> String {
        buffers.iter().map(|id| self.buffer(*id).name).collect::<Vec<_>>().join(", ")
    }

    /// Name of a buffer, with the elements unless they are its first ones: `q[64..80]`, or
    /// `q[64..80, + 96 × 4]` of four heads.
    fn region(&self, region: Region) -> String {
        let Region { buffer, first, stride, heads, len } = region;
        let name = self.buffer(buffer).name;
        match heads {
            1 if first == 0 => name.to_owned(),
            1 => format!("{name}[{first}..{}]", first + len),
            _ => format!("{name}[{first}..{}, + {stride} × {heads}]", first + len),
        }
    }

    fn places(&self, regions: &[Region], caches: &[CacheId]) -> String {
        let mut places: Vec<String> = regions.iter().map(|region| self.region(*region)).collect();
        places.extend(caches.iter().map(|cache| format!("cache {}", cache.0)));
        places.join(", ")
    }
}

/// One printed line of a program.
struct Line<'a> {
    plan: &'a Plan,
    step: &'a Step,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { plan, step } = self;
        let io = step.op.io();
        let part = if step.part == Part::Other { String::new() } else { step.part.to_string() };
        write!(f, "{:13}{part:15}", step.op.name())?;
        write!(f, "{}", plan.places(&io.writes, &io.written_caches))?;
        let reads = plan.places(&io.reads, &io.read_caches);
        if !reads.is_empty() {
            write!(f, " <- {reads}")?;
        }
        let details = step.op.details();
        let weights =
            io.weights.iter().map(|weight| format!("{} {}", plan.weight(weight.id).path, weight.shape));
        let all: Vec<String> = (!details.is_empty()).then_some(details).into_iter().chain(weights).collect();
        if all.is_empty() { Ok(()) } else { write!(f, "  {}", all.join(", ")) }
    }
}
