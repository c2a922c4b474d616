//! Scalar reference of the elementwise ops in f64.

/// `x ← x + scale · y`.
pub fn add(x: &mut [f32], y: &[f32], scale: f32) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x = (f64::from(*x) + f64::from(scale) * f64::from(*y)) as f32);
}

/// `x ← cap·tanh(factor·x/cap)`, or `factor·x` without a cap.
pub fn scale(x: &mut [f32], factor: f32, softcap: Option<f32>) {
    for x in x {
        let y = f64::from(factor) * f64::from(*x);
        *x = softcap.map_or(y, |cap| f64::from(cap) * (y / f64::from(cap)).tanh()) as f32;
    }
}
