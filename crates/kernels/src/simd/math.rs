//! Elementary functions over sixteen lanes, built from exactly rounded operations: the same bits everywhere.

use super::{LANES, Simd};

/// `e^x`, relative error below 2e-7 on [-87, 88]; saturates outside (never infinite, never zero). NaN stays
/// NaN.
///
/// Cody-Waite reduction by ln 2 in two parts, then a degree-7 polynomial on [-ln2/2, ln2/2].
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    // Operand order keeps NaN: min and max return their second operand then.
    let clamped = simd.max(simd.splat(-87.0), simd.min(simd.splat(88.0), x));
    let n = simd.round(simd.mul(clamped, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, simd.splat(-0.693_359_4), clamped);
    let r = simd.fma(n, simd.splat(2.121_944_4e-4), r);
    let mut p = simd.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = simd.fma(p, r, simd.splat(c));
    }
    simd.mul(p, simd.exp2_integer(n))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::F) -> S::F {
    let one = simd.splat(1.0);
    simd.div(one, simd.add(one, exp(simd, simd.sub(simd.splat(0.0), x))))
}

/// Hyperbolic tangent as `1 - 2/(e^2x + 1)`; absolute error below 2e-7.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    let one = simd.splat(1.0);
    simd.sub(one, simd.div(simd.splat(2.0), simd.add(exp(simd, simd.add(x, x)), one)))
}

/// `ln(1 + e^x)`, relative error below 3e-7 for x above -87 (it saturates below). NaN stays NaN.
///
/// `max(x, 0) + ln(1 + u)` with `u = e^-|x|`; the logarithm is `2 artanh(u / (2 + u))`, a series whose terms
/// fall by more than nine each.
#[inline(always)]
pub fn softplus<S: Simd>(simd: S, x: S::F) -> S::F {
    let zero = simd.splat(0.0);
    // Operand order keeps NaN, as in `exp`.
    let u = exp(simd, simd.min(simd.sub(zero, x), x));
    let s = simd.div(u, simd.add(simd.splat(2.0), u));
    let square = simd.mul(s, s);
    let mut p = simd.splat(1.0 / 15.0);
    for c in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        p = simd.fma(p, square, simd.splat(c));
    }
    simd.fma(simd.add(s, s), p, simd.max(zero, x))
}

/// Sum of the lanes, in a fixed tree.
#[inline(always)]
pub fn sum<S: Simd>(simd: S, v: S::F) -> f32 {
    let mut a = [0.0; LANES];
    simd.store(v, &mut a);
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            a[i] += a[i + width];
        }
        width /= 2;
    }
    a[0]
}

#[cfg(test)]
mod tests {
    use super::super::Scalar;
    use super::*;

    #[test]
    fn exp_is_accurate_and_keeps_nan() {
        let mut worst = 0.0f64;
        for i in -8600..8800 {
            let x = i as f32 / 100.0;
            let y = exp(Scalar, [x; LANES])[0];
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(y) - truth).abs() / truth);
        }
        assert!(worst < 2e-7, "{worst:e}");
        assert!(exp(Scalar, [f32::NAN; LANES])[0].is_nan());
        assert!(exp(Scalar, [f32::INFINITY; LANES])[0].is_finite());
    }

    #[test]
    fn softplus_is_accurate_and_keeps_nan() {
        let mut worst = 0.0f64;
        for i in -8600..8800 {
            let x = i as f32 / 100.0;
            let y = softplus(Scalar, [x; LANES])[0];
            let truth = f64::from(x).exp().ln_1p();
            worst = worst.max((f64::from(y) - truth).abs() / truth);
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert!(softplus(Scalar, [f32::NAN; LANES])[0].is_nan());
    }

    #[test]
    fn sigmoid_and_tanh_follow_the_library() {
        for i in -2000..2000 {
            let x = i as f32 / 100.0;
            let (s, t) = (sigmoid(Scalar, [x; LANES])[0], tanh(Scalar, [x; LANES])[0]);
            assert!((f64::from(s) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs() < 2e-7);
            assert!((f64::from(t) - f64::from(x).tanh()).abs() < 4e-7);
        }
    }
}
