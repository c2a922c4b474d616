//! Caches of all sequences: keys and values with heads apart, positions side by side as attention reads them;
//! states as their kernels read them.

use amoeba_kernels::attention::{self, Element, Half, Head, KEY_STRIDE};
use amoeba_plan::{CacheId, CacheKind, Plan};

use super::phases::recurrent;
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
    /// Of a recurrence: a row per slot, in f32 whatever keys and values are.
    State(Shared),
}

/// All caches of a plan.
pub struct Caches(Vec<(Store, CacheKind)>);

impl Caches {
    /// Reserves `limits.context` positions for `limits.slots` sequences; mapped when written.
    ///
    /// # Errors
    /// More than can be reserved.
    pub fn new(plan: &Plan, limits: Limits, stored: KvType) -> Result<Caches, Error> {
        let caches = plan.caches.iter().enumerate().map(|(id, cache)| {
            let store = match (cache.kind, stored) {
                (CacheKind::Kv { .. }, KvType::F32) => Store::F32(Kv::new(cache.kind, limits)?),
                (CacheKind::Kv { .. }, KvType::F16) => Store::F16(Kv::new(cache.kind, limits)?),
                (CacheKind::Conv { .. } | CacheKind::State { .. }, _) => {
                    Store::State(Shared::zeroed(limits.slots, recurrent::state_len(plan, CacheId(id)))?)
                }
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
            (Store::State(_), _) => unreachable!("cache {} holds no keys", cache.0),
        }
    }

    /// Keys and values of one head, all positions.
    pub fn head(&self, cache: CacheId, slot: usize, head: usize) -> Head<'_> {
        let (store, kind) = &self.0[cache.0];
        let row = slot * sizes(*kind)[0] + head;
        match store {
            Store::F32(kv) => Head::F32(kv.keys.row(row), kv.values.row(row)),
            Store::F16(kv) => Head::F16(kv.keys.row(row), kv.values.row(row)),
            Store::State(_) => unreachable!("cache {} holds no keys", cache.0),
        }
    }

    /// Part of the state of a sequence, for the worker that has the item.
    #[allow(
        clippy::mut_from_ref,
        reason = "the discipline of `Shared`: no two items of a phase share a part"
    )]
    pub fn state(&self, cache: CacheId, slot: usize, first: usize, len: usize) -> &mut [f32] {
        match &self.0[cache.0].0 {
            Store::State(state) => state.part_mut(slot, first, len),
            _ => unreachable!("cache {} holds no state", cache.0),
        }
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        let bytes = |(store, _): &(Store, CacheKind)| match store {
            Store::F32(kv) => kv.keys.bytes() + kv.values.bytes(),
            Store::F16(kv) => kv.keys.bytes() + kv.values.bytes(),
            Store::State(state) => state.bytes(),
        };
        self.0.iter().map(bytes).sum()
    }
}

/// Heads, width of a key and of a value.
fn sizes(kind: CacheKind) -> [usize; 3] {
    match kind {
        CacheKind::Kv { kv_heads, k_dim, v_dim } => [kv_heads, k_dim, v_dim],
        CacheKind::Conv { .. } | CacheKind::State { .. } => unreachable!("{kind:?} holds no keys"),
    }
}

impl<T: Zeroable + Element> Kv<T> {
    fn new(kind: CacheKind, limits: Limits) -> Result<Kv<T>, Error> {
        let [kv_heads, k_dim, v_dim] = sizes(kind);
        let context = limits.context.next_multiple_of(BLOCK);
        let room = |width: usize| Shared::zeroed(limits.slots * kv_heads, width);
        let (keys, values) = (attention::key_len(context, k_dim), attention::value_len(context, v_dim));
        Ok(Kv { keys: room(keys)?, values: room(values)? })
    }

    fn append(&self, kind: CacheKind, slot: usize, position: usize, k: &[f32], v: &[f32]) {
        let [kv_heads, k_dim, v_dim] = sizes(kind);
        let (key_at, value_at) = (attention::key_at(position, k_dim), attention::value_at(position, v_dim));
        for head in 0..kv_heads {
            let row = slot * kv_heads + head;
            self.keys.scatter(row, key_at, KEY_STRIDE, k[head * k_dim..][..k_dim].iter().map(|k| T::of(*k)));
            self.values.scatter(row, value_at, 1, v[head * v_dim..][..v_dim].iter().map(|v| T::of(*v)));
        }
    }
}
