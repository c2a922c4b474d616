//! From `config.json` to [`ModelSpec`]: look up the family's row, read the numbers, bound them.

mod row;
mod table;

use amoeba_checkpoint::Config;
use row::{Bias, DenseLayers, Family, HeadDim, Normalise, QkNorm, RopeRule, Shared};

use crate::spec::{
    Activation, AttentionSpec, BlockSpec, Body, ExpertSpec, HeadSpec, LayerSpec, LinearSpec, MlpSpec,
    ModelSpec, MoeSpec, NormKind, NormSpec, QkNormSpec, QkNormWidth, RouterRule, SharedSpec, Window,
};
use crate::{Error, RopeSpec, rope};

const WIDTH: std::ops::RangeInclusive<usize> = 1..=1 << 20;

/// Names of all families this build can run.
pub fn family_names() -> Vec<&'static str> {
    table::FAMILIES.iter().map(|family| family.name).collect()
}

/// Reads a model's spec from its `config.json`.
///
/// # Errors
/// An unknown `model_type` (the message lists the known ones), a number missing or out of range, or a feature
/// this build lacks.
pub fn read_spec(config: &Config) -> Result<ModelSpec, Error> {
    let model_type = config.str("model_type")?.unwrap_or("(missing)");
    let family = table::FAMILIES.iter().find(|family| family.name == model_type).ok_or_else(|| {
        Error::UnknownFamily { found: model_type.to_owned(), known: family_names().join(", ") }
    })?;
    Reader { family, config, hidden: config.usize("hidden_size", 1..=1 << 17)? }.model()
}

/// Reads one config by one row.
struct Reader<'a> {
    family: &'static Family,
    config: &'a Config,
    hidden: usize,
}

impl Reader<'_> {
    fn model(&self) -> Result<ModelSpec, Error> {
        let names = &self.family.names;
        let layers = self.config.usize("num_hidden_layers", 1..=1024)?;
        let tied = self.config.bool_or("tie_word_embeddings", self.family.tied)?;
        let head = if tied { names.embed } else { names.head };
        Ok(ModelSpec {
            family: self.family.name,
            hidden: self.hidden,
            vocab: self.config.usize("vocab_size", 1..=1 << 22)?,
            context_max: self.config.usize_or("max_position_embeddings", 32768, 1..=1 << 24)?,
            embed: names.embed.to_owned(),
            embed_scale: 1.0,
            layers: (0..layers).map(|layer| self.layer(layer)).collect::<Result<_, _>>()?,
            final_norm: self.norm(names.final_norm.to_owned())?,
            head: HeadSpec { linear: linear(head.to_owned(), false), tied, scale: 1.0, softcap: None },
        })
    }

    fn layer(&self, layer: usize) -> Result<LayerSpec, Error> {
        let names = &self.family.names;
        let prefix = names.layer.replace("{}", &layer.to_string());
        let attention = Body::Attention(self.attention(&format!("{prefix}.{}", names.attention))?);
        let second = if self.is_moe(layer)? {
            Body::Moe(self.moe(&prefix)?)
        } else {
            let d_ff = self.config.usize("intermediate_size", WIDTH)?;
            Body::Mlp(self.mlp(&format!("{prefix}.{}", names.mlp), d_ff)?)
        };
        Ok(LayerSpec {
            blocks: vec![
                self.block(format!("{prefix}.{}", names.attention_norm), attention)?,
                self.block(format!("{prefix}.{}", names.mlp_norm), second)?,
            ],
        })
    }

    fn block(&self, norm: String, body: Body) -> Result<BlockSpec, Error> {
        Ok(BlockSpec { pre_norm: self.norm(norm)?, body, post_norm: None, residual_scale: 1.0 })
    }

    fn norm(&self, path: String) -> Result<NormSpec, Error> {
        let eps = self.config.f32_or("rms_norm_eps", 1e-6, 0.0..=1.0)?;
        Ok(NormSpec { kind: NormKind::Rms, path: Some(path), bias: false, eps, scale: 1.0 })
    }

    fn attention(&self, prefix: &str) -> Result<AttentionSpec, Error> {
        let names = &self.family.names;
        let heads = self.config.usize("num_attention_heads", 1..=1024)?;
        let kv_heads = self.config.usize_or("num_key_value_heads", heads, 1..=1024)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.inconsistent(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            )));
        }
        if self.config.has("clip_qkv") {
            return Err(Error::Unsupported(
                "clip_qkv in config.json: clipped projections are not built in".into(),
            ));
        }
        let head_dim = self.head_dim(heads)?;
        let qkv = self.bias(self.family.qkv_bias)?;
        let projection = |name: &str, bias| linear(format!("{prefix}.{name}"), bias);
        let qk_norm = match self.family.qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some(QkNormWidth::Head),
            QkNorm::Full => Some(QkNormWidth::Full),
        };
        Ok(AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            v_dim: head_dim,
            q: projection(names.q, qkv),
            k: projection(names.k, qkv),
            v: projection(names.v, qkv),
            o: projection(names.o, self.bias(self.family.o_bias)?),
            qk_norm: match qk_norm {
                None => None,
                Some(width) => Some(QkNormSpec {
                    width,
                    q: self.norm(format!("{prefix}.{}", names.q_norm))?,
                    k: self.norm(format!("{prefix}.{}", names.k_norm))?,
                }),
            },
            rope: Some(self.rope(head_dim)?),
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            window: match self.family.window {
                Some(key) if self.config.has(key) => Some(Window::Sliding(self.config.usize(key, WIDTH)?)),
                _ => None,
            },
            sinks: None,
            softcap: None,
        })
    }

    fn head_dim(&self, heads: usize) -> Result<usize, Error> {
        let own = matches!(self.family.head_dim, HeadDim::Config) && self.config.has("head_dim");
        if own {
            return Ok(self.config.usize("head_dim", 1..=4096)?);
        }
        if !self.hidden.is_multiple_of(heads) {
            return Err(self.inconsistent(format!(
                "hidden_size {} is no multiple of num_attention_heads {heads}",
                self.hidden
            )));
        }
        Ok(self.hidden / heads)
    }

    fn rope(&self, head_dim: usize) -> Result<RopeSpec, Error> {
        if !head_dim.is_multiple_of(2) {
            return Err(
                self.inconsistent(format!("head_dim {head_dim} is odd: rotary pairs need an even width"))
            );
        }
        let base = f64::from(self.config.f32_or("rope_theta", 10_000.0, 1.0..=1e12)?);
        let interleaved = self.config.bool_or("rope_traditional", false)?;
        let plain = rope::plain(head_dim, base, interleaved);
        match (self.family.rope, self.config.object("rope_scaling")?) {
            (RopeRule::Scaled, Some(scaling)) => rope::scaled(plain, base, &scaling),
            _ => Ok(plain),
        }
    }

    fn is_moe(&self, layer: usize) -> Result<bool, Error> {
        let Some(key) = self.family.experts else { return Ok(false) };
        match self.family.dense_layers {
            DenseLayers::None => Ok(true),
            DenseLayers::SparseStep => {
                let dense = self.config.usizes("mlp_only_layers", 0..=1024)?.unwrap_or_default();
                let step = self.config.usize_or("decoder_sparse_step", 1, 1..=1024)?;
                let experts = self.config.usize(key, 0..=1 << 14)?;
                Ok(experts > 0 && !dense.contains(&layer) && (layer + 1).is_multiple_of(step))
            }
        }
    }

    fn mlp(&self, prefix: &str, d_ff: usize) -> Result<MlpSpec, Error> {
        let names = &self.family.names;
        let bias = self.bias(self.family.mlp_bias)?;
        let projection = |name: &str| linear(format!("{prefix}.{name}"), bias);
        let activation = self.activation()?;
        Ok(MlpSpec {
            d_ff,
            activation,
            gate: Some(projection(names.gate)),
            up: projection(names.up),
            down: projection(names.down),
        })
    }

    fn moe(&self, prefix: &str) -> Result<MoeSpec, Error> {
        let (family, names) = (self.family, &self.family.names);
        let experts = self.config.usize(family.experts.unwrap_or_default(), 1..=1 << 14)?;
        let top_k = self.config.usize(family.top_k, 1..=256)?;
        if top_k > experts {
            return Err(self.inconsistent(format!("{} {top_k} exceeds the {experts} experts", family.top_k)));
        }
        let apart = |i: usize| names.experts_apart.map(|each| format!("{prefix}.{}", each[i]));
        let stack = |i: usize, name: &str| ExpertSpec {
            path: format!("{prefix}.{}.{name}", names.experts),
            each: apart(i),
            bias: false,
        };
        let normalise = match family.normalise {
            Normalise::Never => false,
            Normalise::Key(key) => self.config.bool_or(key, false)?,
        };
        Ok(MoeSpec {
            experts,
            d_ff: self.config.usize(family.expert_width.0, WIDTH)?,
            activation: self.activation()?,
            router: linear(format!("{prefix}.{}", names.router), false),
            rule: RouterRule {
                top_k,
                score: family.score,
                correction: None,
                groups: None,
                normalise: normalise.then_some(0.0),
                scale: 1.0,
                per_expert: None,
            },
            gate: Some(stack(0, names.gate)),
            up: stack(1, names.up),
            down: stack(2, names.down),
            shared: self.shared(prefix)?,
        })
    }

    fn shared(&self, prefix: &str) -> Result<Option<SharedSpec>, Error> {
        let names = &self.family.names;
        Ok(match self.family.shared {
            Shared::None => None,
            Shared::Gated(key) => Some(SharedSpec {
                mlp: self.mlp(&format!("{prefix}.{}", names.shared), self.config.usize(key, WIDTH)?)?,
                gate: Some(linear(format!("{prefix}.{}", names.shared_gate), false)),
            }),
        })
    }

    fn activation(&self) -> Result<Activation, Error> {
        match self.config.str("hidden_act")?.unwrap_or("silu") {
            "silu" | "swish" => Ok(Activation::SwiGlu),
            other => Err(Error::Unsupported(format!(
                "hidden_act `{other}` for {} (known: silu)",
                self.family.name
            ))),
        }
    }

    fn bias(&self, rule: Bias) -> Result<bool, Error> {
        Ok(match rule {
            Bias::Never => false,
            Bias::Always => true,
            Bias::Key(key) => self.config.bool_or(key, false)?,
        })
    }

    fn inconsistent(&self, what: String) -> Error {
        Error::Inconsistent(what)
    }
}

fn linear(path: String, bias: bool) -> LinearSpec {
    LinearSpec { path, bias }
}
