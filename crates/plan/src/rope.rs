//! Rotary embeddings: every scaling rule becomes a table of frequencies at plan time.

use std::f64::consts::PI;

use amoeba_checkpoint::Config;

use crate::{Error, RopeSpec};

/// Unscaled frequencies `base^(-2i/dims)` over the first `dims` dimensions.
pub(crate) fn plain(dims: usize, base: f64, interleaved: bool) -> RopeSpec {
    let frequencies = (0..dims / 2).map(|i| base.powf(-2.0 * i as f64 / dims as f64)).collect();
    RopeSpec { dims, interleaved, frequencies, amplitude: 1.0 }
}

/// Kind of scaling a `rope_scaling` or `rope_parameters` object asks for.
fn kind(scaling: &Config) -> Result<&str, Error> {
    Ok(match scaling.str("rope_type")? {
        Some(kind) => kind,
        None => scaling.str("type")?.unwrap_or("default"),
    })
}

/// Whether all of a head is laid out in pairs but only the first share of them turns (Gemma 4).
///
/// # Errors
/// The kind is not a string.
pub(crate) fn is_proportional(scaling: &Config) -> Result<bool, Error> {
    Ok(kind(scaling)? == "proportional")
}

/// What YaRN multiplies the softmax scale of latent attention by: `(0.1 · mscale_all_dim · ln(factor) + 1)²`.
///
/// # Errors
/// A number out of range.
pub(crate) fn softmax_scale(scaling: &Config) -> Result<f64, Error> {
    if kind(scaling)? == "default" {
        return Ok(1.0);
    }
    let all = f64::from(scaling.f32_or("mscale_all_dim", 0.0, 0.0..=100.0)?);
    let factor = f64::from(scaling.f32_or("factor", 1.0, 1e-3..=1e4)?);
    Ok(yarn_mscale(factor, all).powi(2))
}

/// Applies a `rope_scaling` object to plain frequencies of a model made for `context` positions and, before
/// that, for `original`, where the object does not say.
///
/// # Errors
/// An unknown `rope_type`, or one of its numbers missing or out of range.
pub(crate) fn scaled(
    mut rope: RopeSpec,
    base: f64,
    scaling: &Config,
    (context, original): (usize, usize),
) -> Result<RopeSpec, Error> {
    match kind(scaling)? {
        "default" | "mrope" => {}
        "linear" => {
            let factor = f64::from(scaling.f32("factor", 1e-3..=1e4)?);
            rope.frequencies.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => llama3(&mut rope, scaling)?,
        "yarn" | "deepseek_yarn" => yarn(&mut rope, base, scaling)?,
        "longrope" | "su" => longrope(&mut rope, scaling, (context, original))?,
        "proportional" => proportional(&mut rope, scaling)?,
        "dynamic" if scaling.has("alpha") => {
            let alpha = f64::from(scaling.f32("alpha", 1.0..=1e6)?);
            let dims = rope.dims as f64;
            rope = plain(rope.dims, base * alpha.powf(dims / (dims - 2.0)), rope.interleaved);
        }
        other => {
            let known = "default, dynamic with alpha, linear, llama3, longrope, mrope, proportional, yarn";
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

/// LongRoPE (Ding et al. 2024) as mlx-lm runs it: the long factors at every length.
fn longrope(rope: &mut RopeSpec, scaling: &Config, (context, original): (usize, usize)) -> Result<(), Error> {
    let factors = scaling.f32s("long_factor", 1e-3..=1e6)?.unwrap_or_default();
    if factors.len() != rope.frequencies.len() && factors.len() != 1 {
        let what = format!("{} long factors for {} rotary pairs", factors.len(), rope.frequencies.len());
        return Err(Error::Inconsistent(format!("rope_scaling: {what}")));
    }
    for (i, f) in rope.frequencies.iter_mut().enumerate() {
        *f /= f64::from(factors[i % factors.len()]);
    }
    let original = scaling.usize_or("original_max_position_embeddings", original, 2..=1 << 24)? as f64;
    let stretch = context as f64 / original;
    let default = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / original.ln()).sqrt() };
    rope.amplitude = scaling.f32_or("long_mscale", default as f32, 1e-3..=1e3)?;
    Ok(())
}

/// The first share of the pairs turns, the rest stands still.
fn proportional(rope: &mut RopeSpec, scaling: &Config) -> Result<(), Error> {
    let share = f64::from(scaling.f32_or("partial_rotary_factor", 1.0, 0.0..=1.0)?);
    let factor = f64::from(scaling.f32_or("factor", 1.0, 1e-3..=1e4)?);
    let turning = (rope.dims as f64 * share) as usize / 2;
    for (i, f) in rope.frequencies.iter_mut().enumerate() {
        *f = if i < turning { *f / factor } else { 0.0 };
    }
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
        let rope = scaled(plain(32, 5e5, false), 5e5, &scaling, (4096, 4096)).unwrap();
        let base = plain(32, 5e5, false);
        assert_eq!(rope.frequencies[0], base.frequencies[0]);
        assert_eq!(rope.frequencies[15], base.frequencies[15] / 8.0);
    }

    #[test]
    fn unknown_scaling_is_named() {
        let scaling = Config::parse("config.json", r#"{"rope_type":"spiral"}"#).unwrap();
        let error = scaled(plain(32, 1e4, false), 1e4, &scaling, (4096, 4096)).unwrap_err().to_string();
        assert!(error.contains("spiral") && error.contains("yarn"), "{error}");
    }
}
