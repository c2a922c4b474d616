//! Caches of all sequences: heads apart, positions side by side as attention reads them.

use amoeba_kernels::attention::{self, Element, Half, Head, KEY_STRIDE};
use amoeba_plan::{CacheId, CacheKind, Plan};

use super::shared::{Shared, Zeroable};
use crate::{Error, KvType, Limits};

/// Positions whose keys lie side by side.
const BLOCK: usize = 16;

/// Keys and values of one layer.
struct Kv<T> {
    /// Row `slot · kv_heads + head`.
    keys: Shared<T>,
    values: Shared<T>,
}

enum Store {
    F32(Kv<f32>),
    F16(Kv<Half>),
}

/// All caches of a plan.
pub struct Caches(Vec<(Store, CacheKind)>);

impl Caches {
    /// Reserves `limits.context` positions for `limits.slots` sequences; mapped when written.
    ///
    /// # Errors
    /// More than can be reserved.
    pub fn new(plan: &Plan, limits: Limits, stored: KvType) -> Result<Caches, Error> {
        let caches = plan.caches.iter().map(|cache| {
            let store = match stored {
                KvType::F32 => Store::F32(Kv::new(cache.kind, limits)?),
                KvType::F16 => Store::F16(Kv::new(cache.kind, limits)?),
            };
            Ok((store, cache.kind))
        });
        Ok(Caches(caches.collect::<Result<_, Error>>()?))
    }

    /// Writes one position of a sequence: `k [kv_heads · k_dim]`, `v [kv_heads · v_dim]`.
    pub fn append(&self, cache: CacheId, slot: usize, position: usize, k: &[f32], v: &[f32]) {
        match &self.0[cache.0] {
            (Store::F32(kv), kind) => kv.append(*kind, slot, position, k, v),
            (Store::F16(kv), kind) => kv.append(*kind, slot, position, k, v),
        }
    }

    /// Keys and values of one head, all positions.
    pub fn head(&self, cache: CacheId, slot: usize, head: usize) -> Head<'_> {
        let (store, CacheKind::Kv { kv_heads, .. }) = &self.0[cache.0] else {
            unreachable!("cache {} holds no keys", cache.0)
        };
        let row = slot * kv_heads + head;
        match store {
            Store::F32(kv) => Head::F32(kv.keys.row(row), kv.values.row(row)),
            Store::F16(kv) => Head::F16(kv.keys.row(row), kv.values.row(row)),
        }
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        let bytes = |(store, _): &(Store, CacheKind)| match store {
            Store::F32(kv) => kv.keys.bytes() + kv.values.bytes(),
            Store::F16(kv) => kv.keys.bytes() + kv.values.bytes(),
        };
        self.0.iter().map(bytes).sum()
    }
}

impl<T: Zeroable + Element> Kv<T> {
    fn new(kind: CacheKind, limits: Limits) -> Result<Kv<T>, Error> {
        let CacheKind::Kv { kv_heads, k_dim, v_dim } = kind else { unreachable!("{kind:?} holds no keys") };
        let context = limits.context.next_multiple_of(BLOCK);
        let room = |width: usize| Shared::zeroed(limits.slots * kv_heads, width);
        let (keys, values) = (attention::key_len(context, k_dim), attention::value_len(context, v_dim));
        Ok(Kv { keys: room(keys)?, values: room(values)? })
    }

    fn append(&self, kind: CacheKind, slot: usize, position: usize, k: &[f32], v: &[f32]) {
        let CacheKind::Kv { kv_heads, k_dim, v_dim } = kind else { unreachable!("{kind:?} holds no keys") };
        let (key_at, value_at) = (attention::key_at(position, k_dim), attention::value_at(position, v_dim));
        for head in 0..kv_heads {
            let row = slot * kv_heads + head;
            self.keys.scatter(row, key_at, KEY_STRIDE, k[head * k_dim..][..k_dim].iter().map(|k| T::of(*k)));
            self.values.scatter(row, value_at, 1, v[head * v_dim..][..v_dim].iter().map(|v| T::of(*v)));
        }
    }
}
