//! What is kept per sequence.

use amoeba_plan::{CacheKind, Plan};

/// One cache of one sequence.
#[derive(Clone)]
pub enum Kept {
    /// Keys `[position, heads · dim]`, then values.
    Kv([Vec<f32>; 2]),
    /// The last inputs `[taps, channels]`, the oldest first.
    Inputs(Vec<f32>),
    /// The matrices of all heads.
    State(Vec<f64>),
}

impl Kept {
    /// Nothing yet.
    pub fn new(kind: CacheKind) -> Kept {
        let len = kind.elements_per_sequence();
        match kind {
            CacheKind::Kv { .. } => Kept::Kv([Vec::new(), Vec::new()]),
            CacheKind::Conv { .. } => Kept::Inputs(vec![0.0; len]),
            CacheKind::State { .. } => Kept::State(vec![0.0; len]),
        }
    }

    /// Keys and values.
    pub fn kv(&mut self) -> &mut [Vec<f32>; 2] {
        match self {
            Kept::Kv(kv) => kv,
            _ => unreachable!("the cache holds no keys; the plan was built wrongly"),
        }
    }

    /// The inputs before a position; zeros before the first.
    pub fn inputs(&mut self, position: usize) -> &mut [f32] {
        match self {
            Kept::Inputs(inputs) => from_start(position, inputs),
            _ => unreachable!("the cache holds no inputs; the plan was built wrongly"),
        }
    }

    /// The state before a position; zeros before the first.
    pub fn state(&mut self, position: usize) -> &mut [f64] {
        match self {
            Kept::State(state) => from_start(position, state),
            _ => unreachable!("the cache holds no state; the plan was built wrongly"),
        }
    }
}

fn from_start<T: Default + Clone>(position: usize, values: &mut [T]) -> &mut [T] {
    if position == 0 {
        values.fill(T::default());
    }
    values
}

/// Bytes of all caches of a sequence of `positions` positions.
pub fn bytes(plan: &Plan, positions: usize) -> usize {
    let of = |kind: CacheKind| match kind {
        CacheKind::Kv { .. } => size_of::<f32>() * positions * kind.elements_per_position(),
        CacheKind::Conv { .. } => size_of::<f32>() * kind.elements_per_sequence(),
        CacheKind::State { .. } => size_of::<f64>() * kind.elements_per_sequence(),
    };
    plan.caches.iter().map(|cache| of(cache.kind)).sum()
}
