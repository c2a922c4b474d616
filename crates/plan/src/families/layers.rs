//! What each layer is made of.

use super::row::{DenseLayers, Kind, Layers};
use super::{Reader, WIDTH, linear};
use crate::Error;
use crate::spec::{BlockSpec, Body, LayerSpec, NormSpec};

impl Reader<'_> {
    /// The mixer of every layer.
    pub(super) fn kinds(&self) -> Result<Vec<Kind>, Error> {
        if let Layers::Pattern(key) = self.family.layers {
            return self.pattern(key);
        }
        let count = self.config.usize("num_hidden_layers", 1..=1024)?;
        let every = |n: usize, other: Kind| {
            (1..=count).map(|layer| if layer.is_multiple_of(n) { Kind::Full } else { other }).collect()
        };
        let kinds: Vec<Kind> = match self.family.layers {
            Layers::Same | Layers::Pattern(_) => vec![Kind::Full; count],
            Layers::TypesIf if !self.config.has("layer_types") => vec![Kind::Full; count],
            Layers::Every(key, n, other) => every(self.config.usize_or(key, n, 1..=1024)?, other),
            Layers::EveryOr(list, key, n) if !self.config.has(list) => {
                every(self.config.usize_or(key, n, 1..=1024)?, Kind::Local)
            }
            Layers::TypesOr(key, n) if !self.config.has("layer_types") => {
                every(self.config.usize_or(key, n, 1..=1024)?, Kind::Local)
            }
            Layers::Types | Layers::TypesIf | Layers::TypesOr(..) => self.named("layer_types")?,
            Layers::DeltaAt(key) => {
                let (place, key) = self.nested(key)?;
                let listed = place.usizes(key, 1..=1024)?.unwrap_or_default();
                (1..=count).map(|n| if listed.contains(&n) { Kind::Delta } else { Kind::Full }).collect()
            }
            Layers::Offset(..) if self.config.has("layers_block_type") => self.named("layers_block_type")?,
            Layers::Offset(period, offset) => {
                let (period, offset) =
                    (self.config.usize(period, 1..=1024)?, self.config.usize(offset, 0..=1024)?);
                (0..count).map(|n| if n % period == offset { Kind::Full } else { Kind::Mamba }).collect()
            }
            Layers::Flags(key) | Layers::EveryOr(key, ..) => {
                let flags = self.config.usizes(key, 0..=1)?.unwrap_or_default();
                flags.into_iter().map(|flag| if flag == 1 { Kind::Local } else { Kind::Full }).collect()
            }
        };
        if kinds.len() != count {
            let what = format!("{} layer kinds for num_hidden_layers {count}", kinds.len());
            return Err(Error::Inconsistent(what));
        }
        Ok(kinds)
    }

    fn named(&self, key: &str) -> Result<Vec<Kind>, Error> {
        let names = self.config.strs(key)?.unwrap_or_default();
        names
            .into_iter()
            .map(|name| match name {
                "full_attention" | "attention" => Ok(Kind::Full),
                "sliding_attention" | "chunked_attention" => Ok(Kind::Local),
                // What a family without state spaces means by it.
                "linear_attention" if self.family.mamba.is_none() => Ok(Kind::Delta),
                "mamba" | "linear_attention" => Ok(Kind::Mamba),
                "conv" => Ok(Kind::Conv),
                "mlp" => Ok(Kind::Mlp),
                "moe" => Ok(Kind::Moe),
                other => Err(Error::Unsupported(format!("layer type `{other}` in {key}"))),
            })
            .collect()
    }

    /// Letters, as a string or a list, or names in a list.
    fn pattern(&self, key: &str) -> Result<Vec<Kind>, Error> {
        if !self.config.has(key) {
            let list = ["layers_block_type", "layer_types"].into_iter().find(|list| self.config.has(list));
            return match list {
                Some(list) => self.named(list),
                None => Err(Error::Inconsistent(format!("{key} is missing, and so is layers_block_type"))),
            };
        }
        let letters: String = self.config.strs(key)?.unwrap_or_default().concat();
        if letters.is_empty() || letters.len() > 1024 {
            return Err(Error::Inconsistent(format!("{key} names {} layers, not 1 to 1024", letters.len())));
        }
        letters
            .chars()
            .map(|letter| match letter {
                '*' => Ok(Kind::Full),
                'M' => Ok(Kind::Mamba),
                '-' => Ok(Kind::Mlp),
                'E' => Ok(Kind::Moe),
                other => Err(Error::Unsupported(format!("layer `{other}` in {key} (known: M, E, *, -)"))),
            })
            .collect()
    }

    pub(super) fn layer(&self, kinds: &[Kind], layer: usize) -> Result<LayerSpec, Error> {
        let names = &self.family.names;
        let prefix = self.path(&names.layer.replace("{}", &layer.to_string()));
        let at = |name: &str| format!("{prefix}.{name}");
        let mixer = match kinds[layer] {
            Kind::Full | Kind::Local => Some(self.attention(&at(names.attention), kinds, layer)?),
            Kind::Delta => Some(Body::Delta(self.delta(&at(names.mixer))?)),
            Kind::Mamba => Some(Body::Mamba(self.mamba(&at(names.mixer))?)),
            Kind::Conv => Some(Body::ShortConv(self.short_conv(&at(names.mixer))?)),
            Kind::Mlp | Kind::Moe => None,
        };
        let single = matches!(self.family.layers, Layers::Pattern(_));
        let mut blocks = Vec::new();
        if let Some(mixer) = mixer {
            let post = names.attention_post_norm.map(at);
            blocks.push(self.block(Some(at(names.attention_norm)), mixer, post)?);
        }
        if !single || blocks.is_empty() {
            let norm = if single { names.attention_norm } else { names.mlp_norm };
            blocks.push(self.second(&prefix, norm, kinds, layer)?);
        }
        let scale = self.family.gemma.then(|| at("layer_scalar"));
        if self.per_layer_width()? > 0 {
            let body = Body::PerLayer {
                gate: linear(at("per_layer_input_gate"), false),
                projection: linear(at("per_layer_projection"), false),
            };
            blocks.push(self.block(None, body, Some(at("post_per_layer_input_norm")))?);
        }
        Ok(LayerSpec { blocks, scale })
    }

    /// The feed-forward block of a layer.
    fn second(&self, prefix: &str, norm: &str, kinds: &[Kind], layer: usize) -> Result<BlockSpec, Error> {
        let names = &self.family.names;
        let at = |name: &str| format!("{prefix}.{name}");
        let experts = match kinds[layer] {
            Kind::Mlp => false,
            Kind::Moe => true,
            _ => self.has_experts(layer)?,
        };
        let post = names.mlp_post_norm.map(at);
        if !experts {
            return self.block(
                Some(at(norm)),
                Body::Mlp(self.dense(&at(names.mlp), kinds.len(), layer)?),
                post,
            );
        }
        let moe = Body::Moe(self.moe(prefix, layer)?);
        let shared = match &self.family.moe {
            Some(rule) if rule.shared.parallel => self.shared(rule, prefix, layer)?,
            _ => None,
        };
        if let Some(shared) = shared {
            let plain = |body| BlockSpec { pre_norm: None, body, post_norm: None, residual_scale: 1.0 };
            let parts = vec![plain(moe), plain(Body::Mlp(shared.mlp))];
            return self.block(Some(at(norm)), Body::Sum(parts), post);
        }
        if !self.family.parallel_mlp {
            return self.block(Some(at(norm)), moe, post);
        }
        let dense = Body::Mlp(self.dense(&at(names.mlp), kinds.len(), layer)?);
        let one = |n: &str| Some(at(&format!("post_feedforward_layernorm_{n}")));
        let parts = vec![
            self.block(Some(at(norm)), dense, one("1"))?,
            self.block(Some(at("pre_feedforward_layernorm_2")), moe, one("2"))?,
        ];
        self.block(None, Body::Sum(parts), post)
    }

    fn block(&self, pre: Option<String>, body: Body, post: Option<String>) -> Result<BlockSpec, Error> {
        let norm = |path: Option<String>| path.map(|path| self.norm(path)).transpose();
        let post_norm: Option<NormSpec> = norm(post)?;
        Ok(BlockSpec {
            pre_norm: norm(pre)?,
            residual_scale: self.factor(self.family.residual_scale)?,
            body,
            post_norm,
        })
    }

    fn has_experts(&self, layer: usize) -> Result<bool, Error> {
        let Some(moe) = &self.family.moe else { return Ok(false) };
        let count = |key: &str, default| self.config.usize_or(key, default, 0..=1024);
        Ok(match self.family.dense_layers {
            DenseLayers::None => true,
            DenseLayers::SparseStep => {
                let dense = self.config.usizes("mlp_only_layers", 0..=1024)?.unwrap_or_default();
                let step = count("decoder_sparse_step", 1)?.max(1);
                let experts = self.config.usize_or(moe.experts, 0, 0..=1 << 14)?;
                experts > 0 && !dense.contains(&layer) && (layer + 1).is_multiple_of(step)
            }
            DenseLayers::First(key) => {
                let every = count("moe_layer_freq", 1)?.max(1);
                self.config.has(moe.experts) && layer >= count(key, 0)? && layer.is_multiple_of(every)
            }
            DenseLayers::Interval(key) => (layer + 1).is_multiple_of(count(key, 1)?.max(1)),
            DenseLayers::Range => {
                let ends = |key: &str| self.config.usizes(key, 0..=1024);
                let first = ends("moe_layer_start_index")?.and_then(|all| all.into_iter().min()).unwrap_or(0);
                let last = ends("moe_layer_end_index")?.and_then(|all| all.into_iter().max());
                let every = count("moe_layer_interval", 1)?.max(1);
                (layer + 1).is_multiple_of(every) && layer >= first && last.is_none_or(|last| layer <= last)
            }
            DenseLayers::Flags(key) => self.flag(key, layer)?,
            DenseLayers::Listed(key) => match self.config.str(key)? {
                None => layer > 0,
                Some(list) => list.split(',').any(|number| number.trim().parse() == Ok(layer)),
            },
            DenseLayers::Unless(key) => self.config.bool_or(key, false)?,
            DenseLayers::Without(key) => count(key, 0)? > 0,
            DenseLayers::Offset(period, offset) => {
                let experts = self.config.usize_or(moe.experts, 0, 0..=1 << 14)?;
                experts > 1 && (layer + count(offset, 0)?).is_multiple_of(count(period, 1)?.max(1))
            }
        })
    }

    /// Truth of a layer in a list of numbers or truth values.
    fn flag(&self, key: &str, layer: usize) -> Result<bool, Error> {
        let list = self.config.raw().get(key).and_then(|value| value.as_array());
        match list.and_then(|list| list.get(layer)) {
            Some(value) if value.is_boolean() => Ok(value.as_bool() == Some(true)),
            Some(value) if value.is_u64() => Ok(value.as_u64() == Some(1)),
            _ => Err(Error::Inconsistent(format!("{key} has no 0, 1, true or false for layer {layer}"))),
        }
    }

    fn dense(&self, prefix: &str, layers: usize, layer: usize) -> Result<crate::MlpSpec, Error> {
        let mut width = self.config.usize(self.family.mlp.width, WIDTH)?;
        // Gemma 4: layers that share keys and values have room for a wider MLP.
        let sharing = if self.family.gemma { self.shared_layers(layers)? } else { 0 };
        if layer >= layers - sharing && self.config.bool_or("use_double_wide_mlp", true)? {
            width *= 2;
        }
        self.mlp(prefix, width, layer)
    }

    /// How many of the last layers use keys and values of earlier ones.
    pub(super) fn shared_layers(&self, layers: usize) -> Result<usize, Error> {
        Ok(self.config.usize_or("num_kv_shared_layers", 0, 0..=layers.saturating_sub(1))?)
    }
}
