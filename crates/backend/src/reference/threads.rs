//! Large products by several threads, each with outputs of its own, so that the bits are those of one thread.

use std::sync::atomic::{AtomicUsize, Ordering};

use amoeba_checkpoint::Matrix;
use amoeba_kernels::{experts, linear};

/// Products of a weight and a number that are worth starting threads for.
const WORTH: usize = 1 << 20;

/// What [`linear::reference::linear`] gives.
pub(super) fn product(threads: usize, matrix: &Matrix<'_>, bias: Option<&[f32]>, x: &[f32], y: &mut [f32]) {
    if threads == 1 || matrix.rows * matrix.cols < WORTH {
        return linear::reference::linear(matrix, bias, x, y);
    }
    let part = matrix.rows.div_ceil(threads);
    std::thread::scope(|scope| {
        for (i, y) in y.chunks_mut(part).enumerate() {
            let (first, rows) = (i * part, y.len());
            let (matrix, bias) = (matrix.rows(first, rows), bias.map(|bias| &bias[first..first + rows]));
            scope.spawn(move || linear::reference::linear(&matrix, bias, x, y));
        }
    });
}

/// What [`experts::reference::Experts::sum`] gives: whole experts are computed side by side and added up in
/// the route's order.
pub(super) fn sum(
    threads: usize,
    layer: &experts::reference::Experts<'_>,
    x: &[f32],
    route: &[f32],
    out: &mut [f32],
) {
    let (indices, weights) = route.split_at(route.len() / 2);
    let up = layer.up.matrices[0];
    if threads == 1 || indices.len() * up.rows * up.cols < WORTH {
        return layer.sum(x, route, out);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(&index) = indices.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, layer.one(index as usize, x)));
        }
        done
    };
    let parts: Vec<(f32, Vec<f64>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(indices.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("products do not panic")).collect()
    });
    let mut total = vec![0.0; out.len()];
    for (index, &weight) in indices.iter().zip(weights) {
        let part = parts.iter().find(|(known, _)| known == index).expect("every expert was computed");
        total.iter_mut().zip(&part.1).for_each(|(total, y)| *total += f64::from(weight) * y);
    }
    out.iter_mut().zip(total).for_each(|(out, total)| *out = total as f32);
}

#[cfg(test)]
mod tests {
    use amoeba_checkpoint::{Float, Format};
    use amoeba_kernels::testing::{OwnedMatrix, Rng};
    use amoeba_plan::Activation;
    use experts::reference::{Experts, Stored};

    use super::*;

    const FORMAT: Format = Format::Affine { bits: 4, group: 64, scale: Float::BF16 };

    #[test]
    fn threads_do_not_change_a_bit() {
        let mut rng = Rng(1);
        let owned = OwnedMatrix::random(FORMAT, 1025, 1024, &mut rng);
        let (bias, x) = (rng.vector(1025), rng.vector(1024));
        let product = |threads| {
            let mut y = vec![0.0; 1025];
            super::product(threads, &owned.view(), Some(&bias), &x, &mut y);
            y
        };
        assert!([2, 3, 16, 1025].iter().all(|threads| product(*threads) == product(1)));
    }

    #[test]
    fn nor_do_they_in_experts() {
        let mut rng = Rng(2);
        let mut stack = |rows, cols| -> Vec<OwnedMatrix> {
            (0..4).map(|_| OwnedMatrix::random(FORMAT, rows, cols, &mut rng)).collect()
        };
        let stacks = [stack(704, 512), stack(704, 512), stack(512, 704)];
        let views: Vec<Vec<Matrix<'_>>> =
            stacks.iter().map(|stack| stack.iter().map(OwnedMatrix::view).collect()).collect();
        let stored = |i: usize| Stored { matrices: &views[i], bias: None };
        let (gate, activation) = (Some(stored(0)), Activation::SwiGlu);
        let layer = Experts { gate, up: stored(1), down: stored(2), activation };
        let x: Vec<f32> = rng.vector(512).iter().map(|x| x / 22.0).collect();
        let route = [3.0, 0.0, 2.0, 0.5, -0.3, 0.1];
        let sum = |threads| {
            let mut out = vec![0.0; 512];
            super::sum(threads, &layer, &x, &route, &mut out);
            out
        };
        assert!([2, 3, 16].iter().all(|threads| sum(*threads) == sum(1)));
    }
}
