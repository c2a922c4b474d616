//! Attention layers, grouped and latent, and their rotary embeddings.

use amoeba_checkpoint::Config;

use super::attention_row::{
    Attention, Gate, HeadDim, Interleaved, Latent, QkNorm, RopeDims, RopeOn, RopeRule, Scale, WindowRule,
};
use super::row::Kind;
use super::{Reader, WIDTH, linear};
use crate::spec::{
    AttentionSpec, Body, LatentForm, LatentQuery, LatentSpec, OutputGate, Projections, QkNormSpec,
    QkNormWidth, TemperatureSpec, Window,
};
use crate::{Error, NormKind, NormSpec, RopeSpec, rope};

const HEADS: std::ops::RangeInclusive<usize> = 1..=1024;
const DIM: std::ops::RangeInclusive<usize> = 1..=4096;

impl Reader<'_> {
    pub(super) fn attention(&self, prefix: &str, kinds: &[Kind], layer: usize) -> Result<Body, Error> {
        let local = kinds[layer] == Kind::Local;
        let rule = if local { &self.family.local } else { &self.family.full };
        if self.config.has("clip_qkv") {
            return Err(Error::Unsupported(
                "clip_qkv in config.json: clipped projections are not built in".into(),
            ));
        }
        match rule.latent {
            Some(latent) => Ok(Body::Latent(self.latent(prefix, rule, latent)?)),
            None => Ok(Body::Attention(self.grouped(prefix, rule, kinds, layer)?)),
        }
    }

    fn grouped(
        &self,
        prefix: &str,
        rule: &Attention,
        kinds: &[Kind],
        layer: usize,
    ) -> Result<AttentionSpec, Error> {
        let (config, names) = (self.config, &self.family.names);
        let at = |name: &str| format!("{prefix}.{name}");
        let (heads, kv_heads) = self.head_counts(rule)?;
        let head_dim = self.head_dim(rule.head_dim, heads)?;
        let v_dim = rule.v_dim.map_or(Ok(head_dim), |key| config.usize_or(key, head_dim, DIM))?;
        let scale = match rule.scale {
            Scale::Root => (1.0 / (head_dim as f64).sqrt()) as f32,
            Scale::One => 1.0,
            Scale::Key(key) => config.f32(key, 1e-6..=1e6)?,
            Scale::InverseRoot(key, default) => 1.0 / config.f32_or(key, default, 1e-6..=1e6)?.sqrt(),
        };
        Ok(AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            v_dim,
            projections: self.projections(prefix, rule, kinds, layer)?,
            o: linear(at(names.o), self.bias(rule.o_bias)?),
            qk_norm: self.qk_norm(prefix, rule)?,
            v_norm: if rule.v_norm { Some(plain_norm(self.eps()?)) } else { None },
            v_scale: rule.v_scale.map_or(Ok(1.0), |key| config.f32_or(key, 1.0, 1e-6..=1e6))?,
            rope: self.rope(&rule.rope, head_dim, kinds, layer)?,
            temperature: self.temperature(rule)?,
            scale,
            window: self.window(rule.window)?,
            sinks: match (rule.sinks, rule.sinks_if) {
                (Some(name), Some(key)) => config.bool_or(key, false)?.then(|| at(name)),
                (name, _) => name.map(at),
            },
            softcap: None,
            gate: self.gate(prefix, rule.gate)?,
        })
    }

    /// Query heads and key/value heads.
    fn head_counts(&self, rule: &Attention) -> Result<(usize, usize), Error> {
        let heads = self.count(rule.heads, None)?;
        let values_are_keys =
            rule.values_are_keys.map_or(Ok(false), |key| self.config.bool_or(key, false))?;
        // Fewer heads of keys count only where they are also the values (Gemma 4).
        let kv_key = match rule.values_are_keys {
            Some(_) if !values_are_keys => "num_key_value_heads",
            _ => rule.kv_heads,
        };
        let kv_heads = match kv_key {
            "num_key_value_heads" => self.count(kv_key, Some(heads))?,
            other => self.count(other, Some(self.count("num_key_value_heads", Some(heads))?))?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::Inconsistent(format!(
                "{} {heads} is not a multiple of {kv_key} {kv_heads}",
                rule.heads
            )));
        }
        Ok((heads, kv_heads))
    }

    fn projections(
        &self,
        prefix: &str,
        rule: &Attention,
        kinds: &[Kind],
        layer: usize,
    ) -> Result<Projections, Error> {
        let (config, names) = (self.config, &self.family.names);
        let at = |name: &str| format!("{prefix}.{name}");
        let values_are_keys = rule.values_are_keys.map_or(Ok(false), |key| config.bool_or(key, false))?;
        let qkv = self.bias(rule.qkv_bias)?;
        let projection = |name: &str| linear(at(name), qkv);
        let first_shared = kinds.len() - if self.family.gemma { self.shared_layers(kinds.len())? } else { 0 };
        let source = (0..first_shared).rev().find(|&other| kinds[other] == kinds[layer]);
        // Whether the layer computes keys and values that later layers share, or uses shared ones.
        let computes = match self.family.shared_kv {
            Some((on, every)) if config.bool_or(on, false)? => {
                Some(layer.is_multiple_of(config.usize(every, 1..=1024)?))
            }
            _ => None,
        };
        Ok(match (names.qkv, source) {
            (Some(fused), _) => Projections::Fused(projection(fused)),
            (None, _) if computes == Some(true) => {
                let [q, k, v] = [names.q, names.k, names.v].map(projection);
                Projections::Sharing { q, k, v }
            }
            (None, _) if computes == Some(false) => Projections::Borrowed(projection(names.q)),
            (None, Some(source)) if layer >= first_shared => {
                Projections::Shared { q: projection(names.q), layer: source }
            }
            (None, None) if layer >= first_shared => {
                return Err(Error::Inconsistent(format!(
                    "layer {layer} shares keys and values, but num_kv_shared_layers leaves no layer of its \
                     kind"
                )));
            }
            _ => Projections::Apart {
                q: projection(names.q),
                k: projection(names.k),
                v: (!values_are_keys).then(|| projection(names.v)),
            },
        })
    }

    fn window(&self, rule: WindowRule) -> Result<Option<Window>, Error> {
        let config = self.config;
        Ok(match rule {
            WindowRule::Sliding(key) if config.has(key) => Some(Window::Sliding(config.usize(key, WIDTH)?)),
            WindowRule::Chunk(key) => Some(Window::Chunk(config.usize(key, WIDTH)?)),
            _ => None,
        })
    }

    fn gate(&self, prefix: &str, rule: Gate) -> Result<Option<OutputGate>, Error> {
        let at = |name: &str| format!("{prefix}.{name}");
        Ok(match rule {
            Gate::None => None,
            Gate::InQuery => Some(OutputGate::InQuery),
            Gate::Elementwise(name) => Some(OutputGate::Elementwise(linear(at(name), false))),
            Gate::PerHead(name, kind, key, default) => {
                let gate = OutputGate::PerHead(linear(at(name), false), kind);
                self.config.bool_or(key, default)?.then_some(gate)
            }
        })
    }

    /// A number of heads.
    fn count(&self, key: &str, default: Option<usize>) -> Result<usize, Error> {
        let (place, key) = self.nested(key)?;
        Ok(match default {
            Some(default) => place.usize_or(key, default, HEADS)?,
            None => place.usize(key, HEADS)?,
        })
    }

    fn head_dim(&self, rule: HeadDim, heads: usize) -> Result<usize, Error> {
        match rule {
            HeadDim::Key(key) if self.config.has(key) => return Ok(self.config.usize(key, DIM)?),
            // A kind of its own where the model's other heads are named.
            HeadDim::Key(key) if key != "head_dim" => return self.head_dim(HeadDim::Key("head_dim"), heads),
            HeadDim::Key(_) | HeadDim::Hidden => {}
        }
        if !self.hidden.is_multiple_of(heads) {
            return Err(Error::Inconsistent(format!(
                "hidden_size {} is not a multiple of num_attention_heads {heads}",
                self.hidden
            )));
        }
        Ok(self.hidden / heads)
    }

    fn qk_norm(&self, prefix: &str, rule: &Attention) -> Result<Option<QkNormSpec>, Error> {
        let names = &self.family.names;
        let on = |key: &str, default| self.config.bool_or(key, default);
        let (width, plain) = match rule.qk_norm {
            QkNorm::Head => (QkNormWidth::Head, false),
            QkNorm::Full => (QkNormWidth::Full, false),
            QkNorm::HeadIf(key, default) if on(key, default)? => (QkNormWidth::Head, false),
            QkNorm::FullIf(key) if on(key, true)? => (QkNormWidth::Full, false),
            QkNorm::PlainIf(key) if on(key, false)? => (QkNormWidth::Head, true),
            _ => return Ok(None),
        };
        let eps = self.eps()?;
        let norm = |name: &str| match plain {
            true => plain_norm(1e-6),
            false => self.inner_norm(&format!("{prefix}.{name}"), eps),
        };
        let (q, k) = (norm(names.q_norm), norm(names.k_norm));
        Ok(Some(QkNormSpec { width, q, k, after_rope: rule.qk_norm_last }))
    }

    fn temperature(&self, rule: &Attention) -> Result<Option<TemperatureSpec>, Error> {
        let Some(keys) = rule.temperature else { return Ok(None) };
        let (place, on) = self.nested(keys.on)?;
        let off = match place.raw().get(on) {
            Some(value) => value.as_bool() == Some(false) || value.as_u64() == Some(0),
            None => keys.on == keys.scale.0,
        };
        let number = |(key, default): (&str, f32)| -> Result<f32, Error> {
            let (place, key) = self.nested(key)?;
            Ok(place.f32_or(key, default, 1e-6..=1e9)?)
        };
        let (scale, period) = (number(keys.scale)?, number(keys.period)?);
        Ok((!off).then_some(TemperatureSpec { scale, period, shift: keys.shift }))
    }

    fn latent(&self, prefix: &str, rule: &Attention, latent: Latent) -> Result<LatentSpec, Error> {
        let config = self.config;
        let at = |name: &str| format!("{prefix}.{name}");
        let bias = config.bool_or("attention_bias", false)?;
        let heads = config.usize(rule.heads, HEADS)?;
        let [nope_dim, rope_dim, v_dim, rank] =
            ["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"]
                .map(|key| config.usize(key, DIM));
        let (nope_dim, rope_dim, v_dim, rank) = (nope_dim?, rope_dim?, v_dim?, rank?);
        let eps = latent.eps.map_or_else(|| self.eps(), Ok)?;
        let q = match config.has("q_lora_rank") {
            false => LatentQuery::Direct(linear(at("q_proj"), false)),
            true => LatentQuery::LowRank {
                a: linear(at("q_a_proj"), bias),
                norm: self.inner_norm(&at("q_a_layernorm"), eps),
                b: linear(at("q_b_proj"), false),
                rank: config.usize("q_lora_rank", WIDTH)?,
            },
        };
        let scaling = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
        let mscale = scaling.as_ref().map_or(Ok(1.0), rope::softmax_scale)?;
        Ok(LatentSpec {
            heads,
            nope_dim,
            rope_dim,
            v_dim,
            rank,
            q,
            kv_a: linear(at("kv_a_proj_with_mqa"), bias),
            kv_norm: self.inner_norm(&at("kv_a_layernorm"), eps),
            // Files made before mlx-lm absorbed the projection hold it whole.
            form: match latent.absorbed && !self.has(&format!("{}.weight", at("kv_b_proj"))) {
                true => LatentForm::Absorbed { embed_q: at("embed_q"), unembed_out: at("unembed_out") },
                false => LatentForm::Expanded(linear(at("kv_b_proj"), false)),
            },
            o: linear(at("o_proj"), bias),
            rope: self.rope(&rule.rope, rope_dim, &[], 0)?,
            temperature: self.temperature(rule)?,
            scale: (mscale / ((nope_dim + rope_dim) as f64).sqrt()) as f32,
        })
    }

    fn rope(
        &self,
        rule: &RopeRule,
        head_dim: usize,
        kinds: &[Kind],
        layer: usize,
    ) -> Result<Option<RopeSpec>, Error> {
        match rule.on {
            RopeOn::Never => return Ok(None),
            RopeOn::Unless(key, off) if self.config.str(key)? == Some(off) => return Ok(None),
            RopeOn::NoLocal if kinds.contains(&Kind::Local) => return Ok(None),
            RopeOn::Always | RopeOn::Unless(..) | RopeOn::NoLocal => {}
        }
        let local = kinds.get(layer) == Some(&Kind::Local);
        let all = self.config.object("rope_parameters")?;
        let own = match &all {
            None => None,
            Some(all) => all.object(if local { "sliding_attention" } else { "full_attention" })?,
        };
        let nested = own.as_ref().or(all.as_ref());
        let place = |key: &str| match nested {
            Some(nested) if nested.has(key) || !self.config.has(key) => nested,
            _ => self.config,
        };
        let theta = self.theta(rule, place(rule.theta.0), layer)?;
        let scaling = self.config.object("rope_scaling")?.or(nested.cloned());
        let proportional = scaling.as_ref().map_or(Ok(false), rope::is_proportional)?;
        let dims = match rule.dims {
            _ if proportional => head_dim,
            RopeDims::Key(key) if self.config.has(key) => self.config.usize(key, 1..=head_dim)?,
            RopeDims::All => head_dim,
            RopeDims::Key(_) => self.partial(place("partial_rotary_factor"), 1.0, head_dim, layer)?,
            RopeDims::Partial(share) => {
                self.partial(place("partial_rotary_factor"), share, head_dim, layer)?
            }
        };
        if !dims.is_multiple_of(2) || dims == 0 {
            return Err(Error::Inconsistent(format!(
                "head_dim {head_dim}: rotary pairs need an even width, and {dims} of it turn"
            )));
        }
        let interleaved = match rule.interleaved {
            Interleaved::No => self.config.bool_or("rope_traditional", false)?,
            Interleaved::Yes => true,
            Interleaved::Key(key, default) => self.config.bool_or(key, default)?,
        };
        let plain = rope::plain(dims, theta, interleaved);
        let context = self.config.usize_or("max_position_embeddings", 32768, 1..=1 << 24)?;
        let original = self.config.usize_or("original_max_position_embeddings", 4096, 2..=1 << 24)?;
        Ok(Some(match scaling.filter(|_| rule.scaled) {
            Some(scaling) => rope::scaled(plain, theta, &scaling, (context, original))?,
            None => plain,
        }))
    }

    /// The base; a list has one per layer.
    fn theta(&self, rule: &RopeRule, place: &Config, layer: usize) -> Result<f64, Error> {
        let (key, default) = rule.theta;
        match place.f32s(key, 1.0..=1e12)?.as_deref() {
            None => Ok(default),
            Some([theta]) => Ok(f64::from(*theta)),
            Some(list) => list.get(layer).map(|theta| f64::from(*theta)).ok_or_else(|| {
                Error::Inconsistent(format!("{key} has {} numbers and none for layer {layer}", list.len()))
            }),
        }
    }

    /// The part of a head that turns; a list at `partial_rotary_factors` has one share per layer.
    fn partial(&self, place: &Config, share: f32, head_dim: usize, layer: usize) -> Result<usize, Error> {
        let list = self.config.f32s("partial_rotary_factors", 0.0..=1.0)?.unwrap_or_default();
        let share = match list.get(layer) {
            Some(share) => *share,
            None => place.f32_or("partial_rotary_factor", share, 0.0..=1.0)?,
        };
        Ok((head_dim as f64 * f64::from(share)) as usize)
    }
}

/// An RMS norm without a weight.
fn plain_norm(eps: f32) -> NormSpec {
    NormSpec { kind: NormKind::Rms, weight: None, bias: None, plus_one: false, eps, scale: 1.0 }
}
