//! Dense MLPs, routers, experts.

use std::ops::RangeInclusive;

use super::row::{Correction, Grouping, Moe, Normalise, ScoreRule, SharedWidth};
use super::{Reader, WIDTH, linear};
use crate::spec::{
    ExpertSpec, GROUPS_MAX, Groups, Inner, LatentExperts, MlpSpec, MoeSpec, RouterRule, Score, SharedSpec,
};
use crate::{Error, NormKind, NormSpec};

impl Reader<'_> {
    /// A dense MLP.
    pub(super) fn mlp(&self, prefix: &str, d_ff: usize, layer: usize) -> Result<MlpSpec, Error> {
        let names = &self.family.names;
        let bias = self.bias(self.family.mlp.bias)?;
        let activation = self.activation(self.family.mlp.activation, layer)?;
        let projection = |name: &str| linear(format!("{prefix}.{name}"), bias);
        let inner = match names.gate_up {
            Some(both) => Inner::Fused(projection(both)),
            None => Inner::Apart(activation.gated().then(|| projection(names.gate)), projection(names.up)),
        };
        Ok(MlpSpec { d_ff, activation, inner, down: projection(names.down) })
    }

    /// Experts of the layer at `prefix`.
    pub(super) fn moe(&self, prefix: &str, layer: usize) -> Result<MoeSpec, Error> {
        let (names, family) = (&self.family.names, self.family);
        let Some(moe) = &family.moe else {
            return Err(Error::Inconsistent("experts in a dense family".into()));
        };
        let experts = self.config.usize(moe.experts, 1..=1 << 14)?;
        let at = |name: &str| format!("{prefix}.{name}");
        let activation = self.activation(moe.activation, layer)?;
        let bias = self.bias(moe.expert_bias)?;
        let stack = |i: usize| ExpertSpec {
            path: at(&format!("{}.{}", names.experts, names.expert[i])),
            each: names.experts_apart.map(|each| at(each[i])),
            bias,
        };
        let latent = match moe.latent.filter(|key| self.config.has(key)) {
            None => None,
            Some(key) => {
                let inner = self.bias(family.mlp.bias)?;
                let projection = |name: &str| linear(at(&format!("{}.{name}", names.mlp)), inner);
                let width = self.config.usize(key, WIDTH)?;
                let (down, up) = (projection("fc1_latent_proj"), projection("fc2_latent_proj"));
                Some(LatentExperts { width, down, up })
            }
        };
        Ok(MoeSpec {
            experts,
            d_ff: self.expert_width(moe, layer)?,
            activation,
            router: linear(at(names.router), moe.router_bias),
            router_norm: family.parallel_mlp.then(|| self.router_norm(&at("router.scale"))).transpose()?,
            input_gate: moe.input_gate,
            latent,
            rule: self.rule(moe, prefix, experts, layer)?,
            gate: activation.gated().then(|| stack(0)),
            up: stack(1),
            down: stack(2),
            shared: if moe.shared.parallel { None } else { self.shared(moe, prefix, layer)? },
        })
    }

    /// A number, or the layer's in a list of several.
    fn of_layer(&self, key: &str, layer: usize, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let several =
            self.config.raw().get(key).and_then(|value| value.as_array()).is_some_and(|l| l.len() > 1);
        if !several {
            return Ok(self.config.usize(key, range)?);
        }
        let list = self.config.usizes(key, range)?.unwrap_or_default();
        list.get(layer).copied().ok_or_else(|| {
            Error::Inconsistent(format!("{key} has {} numbers and none for layer {layer}", list.len()))
        })
    }

    fn expert_width(&self, moe: &Moe, layer: usize) -> Result<usize, Error> {
        let own = self.config.has(moe.width);
        self.of_layer(if own { moe.width } else { moe.width_or.unwrap_or(moe.width) }, layer, WIDTH)
    }

    fn router_norm(&self, weight: &str) -> Result<NormSpec, Error> {
        let scale = 1.0 / (self.hidden as f32).sqrt();
        Ok(NormSpec {
            kind: NormKind::Rms,
            weight: Some(weight.to_owned()),
            bias: None,
            plus_one: false,
            eps: self.eps()?,
            scale,
        })
    }

    fn rule(&self, moe: &Moe, prefix: &str, experts: usize, layer: usize) -> Result<RouterRule, Error> {
        let (config, names) = (self.config, &self.family.names);
        let top_k = self.of_layer(moe.top_k, layer, 1..=256)?;
        if top_k > experts {
            return Err(Error::Inconsistent(format!("{} {top_k} exceeds the {experts} experts", moe.top_k)));
        }
        if moe.input_gate && top_k != 1 {
            return Err(Error::Unsupported(format!(
                "{} {top_k}: {} scales the input of one expert",
                moe.top_k, self.family.name
            )));
        }
        let score = match moe.score {
            ScoreRule::Is(score) => score,
            ScoreRule::SparseMixer(key) => {
                Score::SparseMixer { jitter: config.f32_or(key, 0.01, 0.0..=1.0)? }
            }
            ScoreRule::Key(key, default) => match config.str(key)? {
                None => default,
                Some("softmax") => Score::Softmax,
                Some("sigmoid") => Score::Sigmoid,
                Some(other) => {
                    return Err(Error::Unsupported(format!("{key} `{other}` (known: softmax, sigmoid)")));
                }
            },
        };
        let corrected = match moe.correction {
            Correction::Never => false,
            Correction::Always => true,
            Correction::Key(key) => config.bool_or(key, false)?,
        };
        let normalise = match moe.normalise {
            Normalise::Never => None,
            Normalise::Always(eps) => Some(eps),
            Normalise::Key(key, default, eps) => config.bool_or(key, default)?.then_some(eps),
            Normalise::Several(key, default, eps) => {
                (config.bool_or(key, default)? && top_k > 1).then_some(eps)
            }
        };
        Ok(RouterRule {
            top_k,
            score,
            correction: corrected.then(|| format!("{prefix}.{}", names.correction)),
            groups: self.groups(moe.groups, experts, top_k)?,
            normalise,
            scale: moe.scale.map_or(Ok(1.0), |key| config.f32_or(key, 1.0, 0.0..=1e4))?,
            per_expert: self.family.parallel_mlp.then(|| format!("{prefix}.router.per_expert_scale")),
        })
    }

    fn groups(&self, rule: Grouping, experts: usize, top_k: usize) -> Result<Option<Groups>, Error> {
        let (best_two, key) = match rule {
            Grouping::Never => return Ok(None),
            Grouping::BestTwo => (true, "n_group"),
            Grouping::BestTwoOf(key) => (true, key),
            Grouping::Greedy if self.config.str("topk_method")? == Some("group_limited_greedy") => {
                (false, "n_group")
            }
            Grouping::Greedy => return Ok(None),
        };
        let count = self.config.usize_or(key, 1, 1..=1 << 14)?;
        if count == 1 {
            return Ok(None);
        }
        let keep = self.config.usize_or("topk_group", 1, 1..=count)?;
        if count > GROUPS_MAX {
            return Err(Error::Unsupported(format!(
                "{key} {count}: at most {GROUPS_MAX} groups are built in"
            )));
        }
        if !experts.is_multiple_of(count) || keep * (experts / count) < top_k {
            return Err(Error::Inconsistent(format!(
                "{key} {count} and topk_group {keep} do not suit {experts} experts of which {top_k} are \
                 picked"
            )));
        }
        Ok((keep < count).then_some(Groups { count, keep, best_two }))
    }

    /// The shared expert, if there is one.
    pub(super) fn shared(&self, moe: &Moe, prefix: &str, layer: usize) -> Result<Option<SharedSpec>, Error> {
        let (config, names) = (self.config, &self.family.names);
        let read = |key: &str| match config.has(key) {
            true => self.of_layer(key, layer, 0..=*WIDTH.end()),
            false => Ok(0),
        };
        let width = match moe.shared.width {
            SharedWidth::None => 0,
            SharedWidth::Key(key) => read(key)?,
            SharedWidth::Product(count, width) => read(count)? * read(width)?,
            SharedWidth::ProductIf(on, count, widths) => {
                let width = widths.into_iter().find(|key| config.has(key)).map_or(Ok(0), read)?;
                if config.bool_or(on, true)? { read(count)? * width } else { 0 }
            }
        };
        if width == 0 {
            return Ok(None);
        }
        let at = |name: &str| format!("{prefix}.{name}");
        let mlp = match names.shared_fused {
            None => self.mlp(&at(names.shared), width, layer)?,
            Some([input, output]) => MlpSpec {
                d_ff: width,
                activation: self.activation(self.family.mlp.activation, layer)?,
                inner: Inner::Fused(linear(at(&format!("{}.{input}", names.shared)), false)),
                down: linear(at(&format!("{}.{output}", names.shared)), false),
            },
        };
        Ok(Some(SharedSpec {
            mlp,
            gate: moe.shared.gated.then(|| linear(at(names.shared_gate), false)),
            mix: moe.shared.mix.map(|name| linear(at(name), true)),
        }))
    }
}
