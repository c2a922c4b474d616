//! `rope`: rotary position embedding (Su et al. 2021) of `dims` dimensions of each head, in place.
//!
//! Contract: pair i turns by `position · frequency_i`; pairs are (i, i + dims/2), or (2i, 2i+1) when
//! interleaved; the result is scaled by the amplitude. Angles are computed in f64, so long contexts lose
//! nothing; one implementation serves every CPU path ([`table`] once per row and rope, not per layer).

pub(crate) mod cuda;
pub mod reference;

use amoeba_plan::Rope;

/// Writes cos of every pair, then sin, for one position: `out [dims]`.
pub fn table(rope: &Rope, position: u32, out: &mut [f32]) {
    let half = rope.frequencies.len();
    for (i, frequency) in rope.frequencies.iter().enumerate() {
        let (sin, cos) = (f64::from(position) * frequency).sin_cos();
        let amplitude = f64::from(rope.amplitude);
        out[i] = (cos * amplitude) as f32;
        out[half + i] = (sin * amplitude) as f32;
    }
}

/// Rotates the first dimensions of `head`, as many as the [`table`] is wide, in place; a head that turns from
/// its middle on is passed from there.
pub fn rotate(head: &mut [f32], table: &[f32], interleaved: bool) {
    let half = table.len() / 2;
    let (cos, sin) = table.split_at(half);
    if interleaved {
        for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
            (pair[0], pair[1]) = turn(pair[0], pair[1], *cos, *sin);
        }
        return;
    }
    let (low, rest) = head.split_at_mut(half);
    for (i, (low, high)) in low.iter_mut().zip(rest).enumerate() {
        (*low, *high) = turn(*low, *high, cos[i], sin[i]);
    }
}

#[inline(always)]
fn turn(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn rope(dims: usize, interleaved: bool) -> Rope {
        let frequencies = (0..dims / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / dims as f64)).collect();
        Rope { dims, interleaved, frequencies, amplitude: 1.0 }
    }

    #[test]
    fn rotation_keeps_lengths_and_relative_angles() {
        let mut rng = Rng(6);
        for interleaved in [false, true] {
            let rope = rope(32, interleaved);
            let (q, k) = (rng.vector(48), rng.vector(48));
            let dot_at = |p: u32, r: u32| {
                let (mut q, mut k, mut t) = (q.clone(), k.clone(), vec![0.0; 32]);
                table(&rope, p, &mut t);
                rotate(&mut q, &t, interleaved);
                table(&rope, r, &mut t);
                rotate(&mut k, &t, interleaved);
                assert_eq!(q[32..], q[32..], "the rest of the head does not turn");
                q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>()
            };
            assert!((dot_at(7, 3) - dot_at(1007, 1003)).abs() < 1e-4);
            assert!((dot_at(5, 5) - q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>()).abs() < 1e-4);
        }
    }
}
