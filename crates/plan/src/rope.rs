//! Rotary embeddings: every scaling rule becomes a table of frequencies at plan time.

use std::f64::consts::PI;

use amoeba_checkpoint::Config;

use crate::{Error, RopeSpec};

/// Unscaled frequencies `base^(-2i/dims)` over the first `dims` dimensions.
pub(crate) fn plain(dims: usize, base: f64, interleaved: bool) -> RopeSpec {
    let frequencies = (0..dims / 2).map(|i| base.powf(-2.0 * i as f64 / dims as f64)).collect();
    RopeSpec { dims, interleaved, frequencies, amplitude: 1.0 }
}

/// Applies a `rope_scaling` object to plain frequencies.
///
/// # Errors
/// An unknown `rope_type`, or one of its numbers missing or out of range.
pub(crate) fn scaled(mut rope: RopeSpec, base: f64, scaling: &Config) -> Result<RopeSpec, Error> {
    let kind = match scaling.str("rope_type")? {
        Some(kind) => kind,
        None => scaling.str("type")?.unwrap_or("default"),
    };
    match kind {
        "default" | "mrope" => {}
        "linear" => {
            let factor = f64::from(scaling.f32("factor", 1e-3..=1e4)?);
            rope.frequencies.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => llama3(&mut rope, scaling)?,
        "yarn" => yarn(&mut rope, base, scaling)?,
        other => {
            let known = "default, linear, llama3, mrope, yarn";
            return Err(Error::Unsupported(format!("rope_scaling type `{other}` (known: {known})")));
        }
    }
    Ok(rope)
}

/// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
fn llama3(rope: &mut RopeSpec, scaling: &Config) -> Result<(), Error> {
    let factor = f64::from(scaling.f32("factor", 1.0..=1e4)?);
    let low = f64::from(scaling.f32_or("low_freq_factor", 1.0, 1e-3..=1e4)?);
    let high = f64::from(scaling.f32_or("high_freq_factor", 4.0, 1e-3..=1e4)?);
    let original = scaling.usize_or("original_max_position_embeddings", 8192, 1..=1 << 24)? as f64;
    if high <= low {
        return Err(Error::Unsupported(format!("rope_scaling: high_freq_factor {high} must exceed {low}")));
    }
    for f in &mut rope.frequencies {
        let wavelength = 2.0 * PI / *f;
        if wavelength > original / low {
            *f /= factor;
        } else if wavelength > original / high {
            let smooth = (original / wavelength - low) / (high - low);
            *f = (1.0 - smooth) * *f / factor + smooth * *f;
        }
    }
    Ok(())
}

/// YaRN (Peng et al. 2023), with the corrections always floored and ceiled as mlx-lm does.
fn yarn(rope: &mut RopeSpec, base: f64, scaling: &Config) -> Result<(), Error> {
    let factor = f64::from(scaling.f32("factor", 1.0..=1e4)?);
    let original = scaling.usize_or("original_max_position_embeddings", 4096, 1..=1 << 24)? as f64;
    let beta_fast = f64::from(scaling.f32_or("beta_fast", 32.0, 0.0..=1e4)?);
    let beta_slow = f64::from(scaling.f32_or("beta_slow", 1.0, 1e-6..=1e4)?);
    let mscale = f64::from(scaling.f32_or("mscale", 1.0, 0.0..=100.0)?);
    let mscale_all_dim = f64::from(scaling.f32_or("mscale_all_dim", 0.0, 0.0..=100.0)?);
    let dims = rope.dims as f64;
    let correction = |turns: f64| dims * (original / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
    let low = correction(beta_fast).floor().max(0.0);
    let mut high = correction(beta_slow).ceil().min(dims - 1.0);
    if high == low {
        high += 0.001;
    }
    for (i, f) in rope.frequencies.iter_mut().enumerate() {
        let interpolate = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        *f = *f / factor * interpolate + *f * (1.0 - interpolate);
    }
    rope.amplitude = (yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all_dim)) as f32;
    Ok(())
}

/// Attention temperature of YaRN.
fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_and_divides_long_waves() {
        let text = r#"{"rope_type":"llama3","factor":8.0,"original_max_position_embeddings":512}"#;
        let scaling = Config::parse("config.json", text).unwrap();
        let rope = scaled(plain(32, 5e5, false), 5e5, &scaling).unwrap();
        let base = plain(32, 5e5, false);
        assert_eq!(rope.frequencies[0], base.frequencies[0]);
        assert_eq!(rope.frequencies[15], base.frequencies[15] / 8.0);
    }

    #[test]
    fn unknown_scaling_is_named() {
        let scaling = Config::parse("config.json", r#"{"rope_type":"spiral"}"#).unwrap();
        let error = scaled(plain(32, 1e4, false), 1e4, &scaling).unwrap_err().to_string();
        assert!(error.contains("spiral") && error.contains("yarn"), "{error}");
    }
}
