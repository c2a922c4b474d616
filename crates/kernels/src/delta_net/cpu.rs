//! `delta_net` over sixteen rows of the state at a time.

use super::{CHAINS, Head, Scratch, Token};
use crate::simd::{LANES, Simd, dispatch, exp, lanes_mut, load_at, sigmoid, softplus, store_at};

/// Four columns of sixteen rows.
type Quad = [[f32; LANES]; CHAINS];

dispatch! {
    /// One position of some rows of a value head: `state` as [`state_len`](super::state_len) says, v and out
    /// as many as there are rows.
    pub fn step(head: &Head<'_>, token: &Token<'_>, scratch: &mut Scratch, state: &mut [f32], out: &mut [f32])
        = step_with
}

#[inline(always)]
fn step_with<S: Simd>(
    simd: S,
    head: &Head<'_>,
    token: &Token<'_>,
    scratch: &mut Scratch,
    state: &mut [f32],
    out: &mut [f32],
) {
    prepare(simd, head, token, scratch);
    let quads = token.k.len().div_ceil(CHAINS);
    let factors = Factors {
        q: &scratch.factors[0].as_chunks().0[..quads],
        k: &scratch.factors[1].as_chunks().0[..quads],
        g: &scratch.factors[2].as_chunks().0[..quads],
        gk: &scratch.factors[3].as_chunks().0[..quads],
        beta: sigmoid(simd, simd.splat(token.beta)),
    };
    let blocks = out.len().div_ceil(LANES);
    let state = state.as_chunks_mut::<LANES>().0.as_chunks_mut::<CHAINS>().0;
    let mut state = state[..blocks * quads].chunks_exact_mut(quads);
    let mut block = 0;
    if S::UNROLL {
        while block + 4 <= blocks {
            rows::<S, 4>(simd, &factors, token.v, &mut state, out, block);
            block += 4;
        }
        while block + 2 <= blocks {
            rows::<S, 2>(simd, &factors, token.v, &mut state, out, block);
            block += 2;
        }
    }
    while block < blocks {
        rows::<S, 1>(simd, &factors, token.v, &mut state, out, block);
        block += 1;
    }
}

/// What all rows share.
struct Factors<'a, S: Simd> {
    q: &'a [[f32; CHAINS]],
    k: &'a [[f32; CHAINS]],
    g: &'a [[f32; CHAINS]],
    gk: &'a [[f32; CHAINS]],
    beta: S::F,
}

/// Queries, keys, decays and decayed keys; past the last channel all but the decay are zero.
#[inline(always)]
fn prepare<S: Simd>(simd: S, head: &Head<'_>, token: &Token<'_>, scratch: &mut Scratch) {
    let [q, k, g, gk] = &mut scratch.factors;
    let rate = simd.splat(head.rate);
    let all = simd.splat(token.decay[0] + head.dt_bias[0]);
    let mut decay = exp(simd, simd.mul(rate, softplus(simd, all)));
    for at in (0..token.k.len()).step_by(LANES) {
        if token.decay.len() > 1 {
            let dt = simd.add(load_at(simd, token.decay, at), load_at(simd, head.dt_bias, at));
            decay = exp(simd, simd.mul(rate, softplus(simd, dt)));
        }
        let keys = load_at(simd, token.k, at);
        simd.store(load_at(simd, token.q, at), lanes_mut(q, at));
        simd.store(keys, lanes_mut(k, at));
        simd.store(decay, lanes_mut(g, at));
        simd.store(simd.mul(decay, keys), lanes_mut(gk, at));
    }
}

/// `N` times sixteen rows from block `block` on; `state` gives the next block.
#[inline(always)]
fn rows<'s, S: Simd, const N: usize>(
    simd: S,
    factors: &Factors<'_, S>,
    v: &[f32],
    state: &mut impl Iterator<Item = &'s mut [Quad]>,
    out: &mut [f32],
    block: usize,
) {
    let state: [&mut [Quad]; N] = std::array::from_fn(|_| state.next().expect("a block of the state"));
    let mut sums = [[simd.splat(0.0); N]; CHAINS];
    for (i, gk) in factors.gk.iter().enumerate() {
        for c in 0..CHAINS {
            let gk = simd.splat(gk[c]);
            for n in 0..N {
                sums[c][n] = simd.fma(simd.load(&state[n][i][c]), gk, sums[c][n]);
            }
        }
    }
    let mut delta = [simd.splat(0.0); N];
    for (n, delta) in delta.iter_mut().enumerate() {
        let held = join(simd, &sums, n);
        let v = load_at(simd, v, (block + n) * LANES);
        *delta = simd.mul(factors.beta, simd.sub(v, held));
    }
    sums = [[simd.splat(0.0); N]; CHAINS];
    for (i, ((q, k), g)) in factors.q.iter().zip(factors.k).zip(factors.g).enumerate() {
        for c in 0..CHAINS {
            let (q, k, g) = (simd.splat(q[c]), simd.splat(k[c]), simd.splat(g[c]));
            for n in 0..N {
                let cell = &mut state[n][i][c];
                let s = simd.fma(simd.load(cell), g, simd.mul(k, delta[n]));
                simd.store(s, cell);
                sums[c][n] = simd.fma(s, q, sums[c][n]);
            }
        }
    }
    for n in 0..N {
        store_at(simd, join(simd, &sums, n), out, (block + n) * LANES);
    }
}

#[inline(always)]
fn join<S: Simd, const N: usize>(simd: S, sums: &[[S::F; N]; CHAINS], n: usize) -> S::F {
    simd.add(simd.add(sums[0][n], sums[1][n]), simd.add(sums[2][n], sums[3][n]))
}
