//! Ops that share launches: a launch costs as long as a small op runs.
//!
//! Every buffer that an op alone would write is written, but for queries, keys and values of steps of one row: attention alone
//! reads them.

use amoeba_plan::{
    AddOp, BufferId, CacheId, ExpertsOp, KvAppendOp, LinearOp, NormKind, NormOp, Op, RopeOp, RouterOp, Step,
};

use super::{Call, Lowered, Place, Site, Unsupported};
use crate::attention::cuda::Heads;
use crate::experts::cuda::Routing;
use crate::linear::cuda::Product;
use crate::{attention, experts, linear};

/// Most rows of a step that are few: each block of a product keeps all of them.
pub(crate) const ROWS_MAX: usize = 8;

/// Launches of some ops from `index` on, if the first can share.
pub(crate) fn fused(site: &Site<'_>, index: usize) -> Result<Option<Lowered>, Unsupported> {
    let end = if site.head { site.plan.program.len() } else { site.plan.head };
    let ops = &site.plan.program[index..end];
    Ok(match &ops[0].op {
        Op::Norm(norm) if normalises_rows(norm) && reads(&ops[1..], norm.out) > 0 => {
            let count = reads(&ops[1..], norm.out);
            let products = products(site, &ops[1..=count]);
            let calls = linear::cuda::products(site, norm.out, &products, Some(norm))?;
            Some(Lowered { calls, ops: 1 + count })
        }
        Op::Linear(LinearOp { x, .. }) => {
            let count = reads(ops, *x);
            let mut products = products(site, &ops[..count]);
            let added = added(&ops[count - 1..]).filter(|(to, _)| count == 1 && *to != *x);
            if let Some((to, factor)) = added {
                products[0].add = (site.buffer(to), factor);
            }
            let calls = linear::cuda::products(site, *x, &products, None)?;
            Some(Lowered { calls, ops: count + usize::from(added.is_some()) })
        }
        Op::Experts(op) => Some(routed(site, op, ops, None)?),
        Op::Router(_) => match routing(site, ops) {
            Some((op, routing)) => {
                let Lowered { calls, ops } = routed(site, op, &ops[1..], Some(routing))?;
                Some(Lowered { calls, ops: 1 + ops })
            }
            None => None,
        },
        Op::Norm(_) | Op::Rope(_) | Op::KvAppend(_) => heads(site, ops),
        _ => None,
    })
}

/// RMS norm of whole rows into another buffer.
fn normalises_rows(norm: &NormOp) -> bool {
    norm.kind == NormKind::Rms && norm.bias.is_none() && norm.chunks == 1 && norm.x != norm.out
}

/// How many ops at the start are products of that buffer.
fn reads(ops: &[Step], buffer: BufferId) -> usize {
    let product = |step: &&Step| matches!(&step.op, Op::Linear(op) if op.x == buffer && op.out != buffer);
    ops.iter().take_while(product).count()
}

fn products(site: &Site<'_>, ops: &[Step]) -> Vec<Product> {
    let product = |step: &Step| match &step.op {
        Op::Linear(op) => Product::new(site, op),
        _ => unreachable!("`reads` counts products only"),
    };
    ops.iter().map(product).collect()
}

/// Experts, the first of these ops, and the sum that they go into, if the next op is that.
fn routed(
    site: &Site<'_>,
    op: &ExpertsOp,
    ops: &[Step],
    routing: Option<Routing<'_>>,
) -> Result<Lowered, Unsupported> {
    let added = added(ops).filter(|(to, _)| *to != op.x);
    let add = added.map_or((Place::default(), 0.0), |(to, factor)| (site.buffer(to), factor));
    let calls = experts::cuda::experts(site, op, add, routing)?;
    Ok(Lowered { calls, ops: 1 + usize::from(added.is_some()) })
}

/// A router whose experts can choose for themselves, and those.
fn routing<'a>(site: &Site<'_>, ops: &'a [Step]) -> Option<(&'a ExpertsOp, Routing<'a>)> {
    let (router, Op::Experts(op)) = (&ops.first()?.op, &ops.get(1)?.op) else { return None };
    let Op::Router(router) = router else { return None };
    let RouterOp { logits, out, experts, rule, correction: None, per_expert, input_gate: None } = router
    else {
        return None;
    };
    let routing = Routing { logits: *logits, rule, per_expert: *per_expert };
    (op.route == *out && site.rows <= ROWS_MAX && routing.fits(*experts)).then_some((op, routing))
}

/// Where all of the first op's output is added to by the second, and its factor.
fn added(ops: &[Step]) -> Option<(BufferId, f32)> {
    let (first, Op::Add(AddOp { x, y, scale, width })) = (&ops.first()?.op, &ops.get(1)?.op) else {
        return None;
    };
    let (out, outputs) = match first {
        Op::Linear(op) => (op.out, op.rows),
        Op::Experts(op) => (op.out, op.hidden),
        _ => return None,
    };
    (out == *y && x != y && *width == outputs).then_some((*x, *scale))
}

/// Norms of heads and rotations, up to where keys and values are appended.
fn heads(site: &Site<'_>, ops: &[Step]) -> Option<Lowered> {
    let append = ops.iter().position(|step| matches!(step.op, Op::KvAppend(_)))?;
    let Op::KvAppend(KvAppendOp { cache, kv_heads, k_dim, v_dim, k, v }) = ops[append].op else {
        return None;
    };
    let mut all: Vec<Heads> = Vec::new();
    for step in &ops[..append] {
        match &step.op {
            Op::Norm(norm) if norm.kind == NormKind::Rms && norm.x == norm.out => {
                let known = all.iter().any(|heads| heads.buffer == norm.x);
                if known || norm.bias.is_some() || norm.per_chunk {
                    return None;
                }
                all.push(Heads { norm: Some(*norm), ..Heads::new(norm.x, norm.chunks, norm.dim) });
            }
            Op::Rope(RopeOp { rope, heads, head_dim, first, x }) => {
                let of = of(&mut all, *x, *heads, *head_dim)?;
                if of.rope.replace((*rope, *first)).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    of(&mut all, k, kv_heads, k_dim)?.append = 1;
    of(&mut all, v, kv_heads, v_dim)?.append = 2;
    if let Some(call) = ops.get(append + 1).and_then(|step| one_row(site, &step.op, cache, [k, v], &all)) {
        return Some(Lowered { calls: vec![call], ops: append + 2 });
    }
    let fits = k != v && all.len() <= 3 && all.iter().all(|heads| heads.dim <= k_dim.max(v_dim));
    fits.then(|| Lowered { calls: vec![attention::cuda::heads(site, cache, &all)], ops: append + 1 })
}

/// Attention of one row together with what becomes of its heads.
fn one_row(site: &Site<'_>, op: &Op, cache: CacheId, [k, v]: [BufferId; 2], all: &[Heads]) -> Option<Call> {
    let Op::Attention(op) = op else { return None };
    let mut all = all.to_vec();
    of(&mut all, op.q, op.heads, op.head_dim)?;
    let find = |buffer| all.iter().find(|heads| heads.buffer == buffer).copied();
    let heads = [find(op.q)?, find(k)?, find(v)?];
    let [of_q, of_k, of_v] = heads.map(|heads| heads.rope.map(|(rope, _)| rope));
    let same_angles = of_v.is_none() && (of_q.is_none() || of_k.is_none() || of_q == of_k);
    let apart = all.len() == 3 && k != v && all.iter().all(|heads| heads.buffer != op.out);
    let narrow = op.head_dim.max(op.v_dim) <= attention::cuda::ONE_DIM_MAX;
    let fits = site.rows == 1 && op.cache == cache && same_angles && apart && narrow;
    fits.then(|| attention::cuda::one(site, op, &heads))
}

/// The heads of a buffer, anew if not known; `None` if it was known as other ones.
fn of(all: &mut Vec<Heads>, buffer: BufferId, heads: usize, dim: usize) -> Option<&mut Heads> {
    let at = all.iter().position(|heads| heads.buffer == buffer).unwrap_or_else(|| {
        all.push(Heads::new(buffer, heads, dim));
        all.len() - 1
    });
    (all[at].heads == heads && all[at].dim == dim).then_some(&mut all[at])
}
