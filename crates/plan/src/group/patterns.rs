//! Which ops share a group: a function per pattern.

use super::{Append, Capabilities, FEW_ROWS_MAX, GroupKind, Heads, Sharing};
use crate::{
    AddOp, AttentionOp, BufferId, CacheId, ExpertsOp, KvAppendOp, NormKind, NormOp, Op, PathKind, RopeOp,
    RouterOp, Score, Step,
};

/// What groups are looked for.
pub(super) struct Search<'a> {
    pub can: &'a Capabilities,
    /// Most rows of a step.
    pub rows: usize,
    /// The way through the experts.
    pub path: PathKind,
}

impl Search<'_> {
    /// The group that begins with the first of these ops, and how many they are.
    pub fn first(&self, ops: &[Step]) -> (GroupKind, usize) {
        let shared = match self.can.sharing {
            Sharing::Alone => None,
            Sharing::Workers => workers(ops),
            Sharing::Launches => self.launch(ops),
        };
        shared.unwrap_or_else(|| match ops[0].op {
            Op::Experts(_) => (GroupKind::Experts { router: false, add: false, path: self.path }, 1),
            _ => (GroupKind::Op, 1),
        })
    }

    fn launch(&self, ops: &[Step]) -> Option<(GroupKind, usize)> {
        match &ops[0].op {
            Op::Norm(norm) if normalises_rows(norm) && products_of(&ops[1..], norm.out) > 0 => {
                let count = products_of(&ops[1..], norm.out);
                Some((GroupKind::Products { norm: true, add: false }, 1 + count))
            }
            Op::Linear(first) => {
                let count = products_of(ops, first.x);
                let add = count == 1 && added_to(ops).is_some_and(|to| to != first.x);
                Some((GroupKind::Products { norm: false, add }, count + usize::from(add)))
            }
            Op::Experts(op) => Some(self.experts(op, ops, false)),
            Op::Router(router) => {
                let op = self.chosen_by(router, ops.get(1)?)?;
                let (kind, count) = self.experts(op, &ops[1..], true);
                Some((kind, 1 + count))
            }
            Op::Norm(_) | Op::Rope(_) | Op::KvAppend(_) => self.heads(ops),
            _ => None,
        }
    }

    /// Experts, the first of these ops, and the sum that they go into, if the next op is that.
    fn experts(&self, op: &ExpertsOp, ops: &[Step], router: bool) -> (GroupKind, usize) {
        let add = added_to(ops).is_some_and(|to| to != op.x);
        (GroupKind::Experts { router, add, path: self.path }, 1 + usize::from(add))
    }

    /// The experts that can choose for themselves what the router would, by the logits alone.
    fn chosen_by<'a>(&self, router: &RouterOp, next: &'a Step) -> Option<&'a ExpertsOp> {
        let Op::Experts(op) = &next.op else { return None };
        let rule = &router.rule;
        let plain = router.correction.is_none() && router.input_gate.is_none() && rule.groups.is_none();
        let by_logits = plain && matches!(rule.score, Score::Softmax | Score::TopKSoftmax);
        let few = self.rows <= FEW_ROWS_MAX && self.path == PathKind::Fused;
        let fits = few && by_logits && router.experts <= self.can.choice_max;
        (fits && op.route == router.out).then_some(op)
    }

    /// Norms of heads and rotations, up to where keys and values are appended, perhaps with the attention of
    /// one row.
    fn heads(&self, ops: &[Step]) -> Option<(GroupKind, usize)> {
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
        of(&mut all, k, kv_heads, k_dim)?.append = Append::Keys;
        of(&mut all, v, kv_heads, v_dim)?.append = Append::Values;
        if let Some(Op::Attention(op)) = ops.get(append + 1).map(|step| &step.op)
            && let Some(heads) = self.one_row(op, cache, [k, v], &all)
        {
            return Some((GroupKind::Heads { heads, attention: true }, append + 2));
        }
        let fits = k != v && all.len() <= 3 && all.iter().all(|heads| heads.dim <= k_dim.max(v_dim));
        fits.then_some((GroupKind::Heads { heads: all, attention: false }, append + 1))
    }

    /// Queries, keys and values of a row whose attention does with them what is to be done.
    fn one_row(
        &self,
        op: &AttentionOp,
        cache: CacheId,
        [k, v]: [BufferId; 2],
        all: &[Heads],
    ) -> Option<Vec<Heads>> {
        let mut all = all.to_vec();
        of(&mut all, op.q, op.heads, op.head_dim)?;
        let find = |buffer| all.iter().find(|heads| heads.buffer == buffer).copied();
        let heads = [find(op.q)?, find(k)?, find(v)?];
        let [of_q, of_k, of_v] = heads.map(|heads| heads.rope.map(|(rope, _)| rope));
        let same_angles = of_v.is_none() && (of_q.is_none() || of_k.is_none() || of_q == of_k);
        let apart = all.len() == 3 && k != v && all.iter().all(|heads| heads.buffer != op.out);
        let narrow = op.head_dim.max(op.v_dim) <= self.can.one_row_dim_max;
        let fits = self.rows == 1 && op.cache == cache && same_angles && apart && narrow;
        fits.then(|| heads.to_vec())
    }
}

/// What workers share out together: work on single rows up to the next op that is cut otherwise, or
/// independent products.
fn workers(ops: &[Step]) -> Option<(GroupKind, usize)> {
    let product = |step: &Step| matches!(step.op, Op::Linear(_) | Op::HeadLinear(_));
    let count = if product(&ops[0]) {
        let independent = |end: &usize| {
            let next = ops[*end].op.io();
            product(&ops[*end]) && !ops[..*end].iter().any(|step| step.op.io().precedes(&next))
        };
        1 + (1..ops.len()).take_while(independent).count()
    } else {
        ops.iter().take_while(|step| step.op.is_row_work()).count()
    };
    let kind =
        if product(&ops[0]) { GroupKind::Products { norm: false, add: false } } else { GroupKind::Rows };
    (count > 0).then_some((kind, count))
}

/// RMS norm of whole rows into another buffer.
fn normalises_rows(norm: &NormOp) -> bool {
    norm.kind == NormKind::Rms && norm.bias.is_none() && norm.chunks == 1 && norm.x != norm.out
}

/// How many ops at the start are products of that buffer.
fn products_of(ops: &[Step], buffer: BufferId) -> usize {
    let product = |step: &&Step| matches!(&step.op, Op::Linear(op) if op.x == buffer && op.out != buffer);
    ops.iter().take_while(product).count()
}

/// Where all of the first op's output is added to by the second.
fn added_to(ops: &[Step]) -> Option<BufferId> {
    let (first, Op::Add(AddOp { x, y, width, .. })) = (&ops.first()?.op, &ops.get(1)?.op) else {
        return None;
    };
    let (out, outputs) = match first {
        Op::Linear(op) => (op.out, op.rows),
        Op::Experts(op) => (op.out, op.hidden),
        _ => return None,
    };
    (out == *y && x != y && *width == outputs).then_some(*x)
}

/// The heads of a buffer, anew if not known; `None` if it was known as other ones.
fn of(all: &mut Vec<Heads>, buffer: BufferId, heads: usize, dim: usize) -> Option<&mut Heads> {
    let at = all.iter().position(|heads| heads.buffer == buffer).unwrap_or_else(|| {
        all.push(Heads::new(buffer, heads, dim));
        all.len() - 1
    });
    (all[at].heads == heads && all[at].dim == dim).then_some(&mut all[at])
}

impl Heads {
    /// Nothing becomes of them.
    pub const fn new(buffer: BufferId, heads: usize, dim: usize) -> Heads {
        Heads { buffer, heads, dim, norm: None, rope: None, append: Append::Nowhere }
    }
}
