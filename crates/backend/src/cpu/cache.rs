//! Caches of all sequences: keys and values in f32, heads apart, positions side by side.

use amoeba_plan::{CacheId, CacheKind, Plan};

use super::shared::Shared;
use crate::{Error, Limits};

/// Keys and values of one layer.
struct Kv {
    /// Row `slot · kv_heads + head`: `[context, k_dim]`.
    keys: Shared,
    /// Row `slot · kv_heads + head`: `[context, v_dim]`.
    values: Shared,
    kind: CacheKind,
}

/// All caches of a plan.
pub struct Caches(Vec<Kv>);

impl Caches {
    /// Reserves `limits.context` positions for `limits.slots` sequences; mapped when written.
    ///
    /// # Errors
    /// More than can be reserved.
    pub fn new(plan: &Plan, limits: Limits) -> Result<Caches, Error> {
        let caches = plan.caches.iter().map(|cache| {
            let CacheKind::Kv { kv_heads, k_dim, v_dim } = cache.kind;
            let room = |dim: usize| Shared::zeroed(limits.slots * kv_heads, limits.context * dim);
            Ok(Kv { keys: room(k_dim)?, values: room(v_dim)?, kind: cache.kind })
        });
        Ok(Caches(caches.collect::<Result<_, Error>>()?))
    }

    /// Writes one position of a sequence: `k [kv_heads · k_dim]`, `v [kv_heads · v_dim]`.
    pub fn append(&self, cache: CacheId, slot: usize, position: usize, k: &[f32], v: &[f32]) {
        let kv = &self.0[cache.0];
        let CacheKind::Kv { kv_heads, k_dim, v_dim } = kv.kind;
        for head in 0..kv_heads {
            let row = slot * kv_heads + head;
            kv.keys.part_mut(row, position * k_dim, k_dim).copy_from_slice(&k[head * k_dim..][..k_dim]);
            kv.values.part_mut(row, position * v_dim, v_dim).copy_from_slice(&v[head * v_dim..][..v_dim]);
        }
    }

    /// Keys and values of one head, all positions.
    pub fn head(&self, cache: CacheId, slot: usize, head: usize) -> (&[f32], &[f32]) {
        let kv = &self.0[cache.0];
        let CacheKind::Kv { kv_heads, .. } = kv.kind;
        let row = slot * kv_heads + head;
        (kv.keys.row(row), kv.values.row(row))
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|kv| kv.keys.bytes() + kv.values.bytes()).sum()
    }
}
