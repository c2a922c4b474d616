//! From `config.json` to [`ModelSpec`]: look up the family's row, read the numbers, bound them.

mod attention;
mod attention_row;
mod feed_forward;
mod layers;
mod mixers;
mod row;
mod table;

use amoeba_checkpoint::{Config, TensorIndex, shown};
use attention_row::Bias;
use row::{Act, Factor, Family, Tied};

use crate::spec::{Activation, HeadSpec, LinearSpec, ModelSpec, NormSpec, PerLayerSpec};
use crate::{Error, NormKind};

const WIDTH: std::ops::RangeInclusive<usize> = 1..=1 << 20;

/// Names of all families this build can run.
pub fn family_names() -> Vec<&'static str> {
    families().map(|(name, _)| name).collect()
}

/// Every family with the other `model_type`s that mean it.
pub fn families() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let mut all: Vec<_> = table::rows().map(|family| (family.name, family.also)).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all.into_iter()
}

/// Reads a model's spec from its `config.json`. A checkpoint of several parts (`text_config`) gives its text
/// part.
///
/// # Errors
/// An unknown `model_type` (the message lists the known ones), a number missing or out of range, or a feature
/// this build lacks.
pub fn read_spec(config: &Config) -> Result<ModelSpec, Error> {
    read(config, None)
}

/// As [`read_spec`], with the tensors that exist: where a family's files come in several forms, they decide.
pub(crate) fn read(config: &Config, tensors: Option<&TensorIndex>) -> Result<ModelSpec, Error> {
    let outer = config.str("model_type")?.unwrap_or("(missing)");
    let text = config.object("text_config")?;
    let inner = match &text {
        Some(text) => text.str("model_type")?.unwrap_or(outer),
        None => outer,
    };
    let names = [inner, inner.strip_suffix("_text").unwrap_or(inner), outer];
    let known = |name: &&str| table::rows().find(|family| family.is(name));
    let family = names.iter().find_map(known).ok_or_else(|| Error::UnknownFamily {
        found: if inner == outer { outer.to_owned() } else { format!("{outer}` with text `{inner}") },
        known: family_names().join(", "),
    })?;
    let usual = if text.is_some() { &ROOTS[1] } else { &ROOTS[0] };
    let embed = |root: &&Root| format!("{}.weight", root.path(family.names.embed));
    let found = |root: &&Root| tensors.is_some_and(|tensors| tensors.has(&embed(root)));
    let root = [usual].into_iter().chain(&ROOTS).find(found).unwrap_or(usual);
    let mut whole = text.as_ref().unwrap_or(config).clone();
    if let Some(vocab) = config.raw().get("vocab_size").filter(|_| text.is_some()) {
        whole = whole.or(&format!("{{\"vocab_size\": {vocab}}}"))?;
    }
    let whole = whole.or(family.defaults[usize::from(text.is_some())])?;
    let reader = Reader {
        family,
        hidden: whole.usize("hidden_size", 1..=1 << 17)?,
        config: &whole,
        outer: config,
        root,
        tensors,
    };
    reader.model(text.is_some().then(|| shown(outer)))
}

/// What converters put in front of names.
#[derive(Debug)]
struct Root {
    /// In place of `model.`.
    body: &'static str,
    /// In front of the others.
    rest: &'static str,
}

/// Known roots: none; text parts of mlx-lm and mlx-vlm; those of transformers; a merged adapter of PEFT; a
/// bare body.
const ROOTS: [Root; 5] = [
    Root { body: "model.", rest: "" },
    Root { body: "language_model.model.", rest: "language_model." },
    Root { body: "model.language_model.", rest: "" },
    Root { body: "base_model.model.model.", rest: "base_model.model." },
    Root { body: "", rest: "" },
];

impl Root {
    fn path(&self, name: &str) -> String {
        match name.strip_prefix("model.") {
            Some(inner) => format!("{}{inner}", self.body),
            None => format!("{}{name}", self.rest),
        }
    }
}

impl Family {
    /// Whether a `model_type` means this row.
    fn is(&self, name: &str) -> bool {
        self.name == name || self.also.contains(&name)
    }
}

/// Reads one config by one row.
struct Reader<'a> {
    family: &'static Family,
    /// The text part.
    config: &'a Config,
    /// The whole.
    outer: &'a Config,
    /// What tensor names start with.
    root: &'static Root,
    hidden: usize,
    /// Tensors that exist; `None` if nobody knows.
    tensors: Option<&'a TensorIndex>,
}

impl Reader<'_> {
    /// Whether the files hold a tensor; no, if nobody knows.
    fn has(&self, name: &str) -> bool {
        self.tensors.is_some_and(|tensors| tensors.has(name))
    }

    fn model(&self, part_of: Option<String>) -> Result<ModelSpec, Error> {
        let names = &self.family.names;
        let kinds = self.kinds()?;
        let tied = match self.family.tied {
            Tied::Always => true,
            Tied::UnlessStored(_) if self.has(&format!("{}.weight", self.path(names.head))) => false,
            Tied::Key(default) | Tied::UnlessStored(default) => {
                let outer = self.outer.bool_or("tie_word_embeddings", default)?;
                let tied = self.config.bool_or("tie_word_embeddings", outer)?;
                // A head of its own counts where the config does not say, even one in a file that is missing.
                let said = self.config.has("tie_word_embeddings") || self.outer.has("tie_word_embeddings");
                let head = format!("{}.weight", self.path(names.head));
                let lacks = self.tensors.is_some_and(|tensors| tensors.lacks(&head));
                tied && (said || !(self.has(&head) || lacks))
            }
        };
        let head = self.path(if tied { names.embed } else { names.head });
        let softcap = match self.family.softcap {
            None => None,
            Some((key, default)) => {
                Some(self.config.f32_or(key, default, 0.0..=1e6)?).filter(|cap| *cap > 0.0)
            }
        };
        let vocab = self.config.usize("vocab_size", 1..=1 << 22)?;
        Ok(ModelSpec {
            family: self.family.name,
            part_of,
            hidden: self.hidden,
            vocab,
            context_max: self.config.usize_or("max_position_embeddings", 32768, 1..=1 << 24)?,
            embed: self.path(names.embed),
            embed_scale: self.factor(self.family.embed_scale)?,
            per_layer: self.per_layer(kinds.len(), vocab)?,
            layers: (0..kinds.len()).map(|layer| self.layer(&kinds, layer)).collect::<Result<_, _>>()?,
            final_norm: self.norm(self.path(names.final_norm))?,
            head: HeadSpec {
                linear: linear(head, self.family.head_bias && !tied),
                tied,
                scale: self.factor(self.family.logit_scale)?,
                softcap,
            },
        })
    }

    fn path(&self, name: &str) -> String {
        self.root.path(name)
    }

    /// Width of the second embedding's part for a layer; 0 is none.
    fn per_layer_width(&self) -> Result<usize, Error> {
        Ok(match self.family.gemma {
            true => self.config.usize_or("hidden_size_per_layer_input", 0, 0..=*WIDTH.end())?,
            false => 0,
        })
    }

    fn per_layer(&self, layers: usize, vocab: usize) -> Result<Option<PerLayerSpec>, Error> {
        let width = self.per_layer_width()?;
        if width == 0 {
            return Ok(None);
        }
        if width * layers > *WIDTH.end() {
            return Err(Error::Inconsistent(format!(
                "hidden_size_per_layer_input {width} times {layers} layers is over {}",
                WIDTH.end()
            )));
        }
        let own = self.config.usize_or("vocab_size_per_layer_input", vocab, 1..=1 << 22)?;
        if own != vocab {
            return Err(Error::Unsupported(format!(
                "vocab_size_per_layer_input {own} differs from vocab_size {vocab}: the two embeddings must \
                 be of one size"
            )));
        }
        Ok(Some(PerLayerSpec {
            width,
            vocab,
            embed: self.path("model.embed_tokens_per_layer"),
            projection: linear(self.path("model.per_layer_model_projection"), false),
            norm: self.norm(self.path("model.per_layer_projection_norm"))?,
        }))
    }

    fn factor(&self, factor: Factor) -> Result<f32, Error> {
        let root = (self.hidden as f64).sqrt() as f32;
        Ok(match factor {
            Factor::One => 1.0,
            Factor::RootHidden => root,
            Factor::RootHiddenBf16 => {
                f32::from_bits((root.to_bits() + 0x7fff + (root.to_bits() >> 16 & 1)) & !0xffff)
            }
            Factor::RootHiddenIf(key) if self.config.bool_or(key, true)? => root,
            Factor::RootHiddenIf(_) => 1.0,
            Factor::Key(key) => self.config.f32(key, 1e-6..=1e6)?,
            Factor::Inverse(key) => 1.0 / self.config.f32(key, 1e-6..=1e6)?,
        })
    }

    fn eps(&self) -> Result<f32, Error> {
        let (key, default) = self.family.norm.eps;
        Ok(self.config.f32_or(key, default, 0.0..=1.0)?)
    }

    fn norm(&self, path: String) -> Result<NormSpec, Error> {
        let kind = self.family.norm.kind;
        let bias = (kind == NormKind::Layer).then(|| format!("{path}.bias"));
        Ok(NormSpec { bias, kind, ..self.inner_norm(&path, self.eps()?) })
    }

    /// A norm of heads or other parts, which is an RMS norm in every family.
    fn inner_norm(&self, path: &str, eps: f32) -> NormSpec {
        NormSpec {
            kind: NormKind::Rms,
            weight: Some(format!("{path}.weight")),
            bias: None,
            plus_one: self.family.norm.plus_one,
            eps,
            scale: 1.0,
        }
    }

    /// An activation in a layer.
    fn activation(&self, rule: Act, layer: usize) -> Result<Activation, Error> {
        let name = match rule {
            Act::Limited(key) => {
                let limits = self.config.f32s(key, 0.0..=1e6)?.unwrap_or_default();
                return Ok(match limits.get(layer) {
                    Some(&limit) if limit > 0.0 => Activation::LimitedSwiGlu { limit },
                    _ => Activation::SwiGlu,
                });
            }
            Act::GeGlu => return Ok(Activation::GeGlu),
            Act::Relu2 => return Ok(Activation::Relu2),
            Act::Clamped(key) => {
                let limit = self.config.f32_or(key, 7.0, 1e-3..=1e6)?;
                return Ok(Activation::ClampedSwiGlu { limit, alpha: 1.702 });
            }
            Act::Key => match self.config.str("hidden_act")? {
                Some(name) => name,
                None => self.config.str("hidden_activation")?.unwrap_or("silu"),
            },
        };
        match name {
            "silu" | "swish" => Ok(Activation::SwiGlu),
            "gelu_pytorch_tanh" => Ok(Activation::GeGlu),
            other => Err(Error::Unsupported(format!(
                "hidden_act `{other}` for {} (known: silu, gelu_pytorch_tanh)",
                self.family.name
            ))),
        }
    }

    /// The object that holds the last part of a dotted key, and that part; the top level where there is no
    /// such object.
    fn nested<'k>(&self, key: &'k str) -> Result<(Config, &'k str), Error> {
        let (object, last) = key.rsplit_once('.').unwrap_or(("", key));
        let inner = if object.is_empty() { None } else { self.config.object(object)? };
        Ok((inner.unwrap_or_else(|| self.config.clone()), last))
    }

    fn bias(&self, rule: Bias) -> Result<bool, Error> {
        Ok(match rule {
            Bias::Never => false,
            Bias::Always => true,
            Bias::Key(key) => self.config.bool_or(key, false)?,
        })
    }
}

fn linear(path: String, bias: bool) -> LinearSpec {
    LinearSpec { path, bias }
}
