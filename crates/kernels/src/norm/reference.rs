//! Scalar reference of `norm` in f64.

use amoeba_plan::NormKind;

use super::Norm;

/// Normalises one chunk in place.
pub fn norm(norm: &Norm<'_>, x: &mut [f32]) {
    let n = x.len() as f64;
    let mean = match norm.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|&x| f64::from(x)).sum::<f64>() / n,
    };
    let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (square + f64::from(norm.eps)).sqrt();
    for (i, x) in x.iter_mut().enumerate() {
        let weight = norm.weight.map_or(1.0, |weight| f64::from(weight[i]));
        let bias = norm.bias.map_or(0.0, |bias| f64::from(bias[i]));
        *x = (((f64::from(*x) - mean) * factor * weight + bias) * f64::from(norm.scale)) as f32;
    }
}
