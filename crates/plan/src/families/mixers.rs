//! Delta nets, state spaces, short convolutions.

use amoeba_checkpoint::Config;

use super::{Reader, linear};
use crate::Error;
use crate::spec::{
    Activation, ConvSpec, DeltaProjections, DeltaSpec, MambaSpec, NormSpec, ShortConvSpec, SsmInputs,
};

const HEADS: std::ops::RangeInclusive<usize> = 1..=1024;
const DIM: std::ops::RangeInclusive<usize> = 1..=4096;
const KERNEL: std::ops::RangeInclusive<usize> = 2..=64;

impl Reader<'_> {
    pub(super) fn delta(&self, prefix: &str) -> Result<DeltaSpec, Error> {
        if let Some(low_rank) = self.config.object("linear_attn_config")? {
            return self.low_rank_delta(prefix, &low_rank);
        }
        let config = self.config;
        let (k_heads, v_heads) =
            (config.usize("linear_num_key_heads", HEADS)?, config.usize("linear_num_value_heads", HEADS)?);
        if !v_heads.is_multiple_of(k_heads) {
            return Err(Error::Inconsistent(format!(
                "linear_num_value_heads {v_heads} is not a multiple of linear_num_key_heads {k_heads}"
            )));
        }
        let at = |name: &str| format!("{prefix}.{name}");
        let plain = |name: &str| linear(at(name), false);
        let projections = match self.family.names.qkvz {
            Some(qkvz) => DeltaProjections::Grouped { qkvz: plain(qkvz), ba: plain("in_proj_ba") },
            None => DeltaProjections::Apart {
                qkv: plain("in_proj_qkv"),
                z: plain("in_proj_z"),
                beta: plain("in_proj_b"),
                decay: plain("in_proj_a"),
            },
        };
        let kernel = config.usize("linear_conv_kernel_dim", KERNEL)?;
        Ok(DeltaSpec {
            k_heads,
            v_heads,
            k_dim: config.usize("linear_key_head_dim", DIM)?,
            v_dim: config.usize("linear_value_head_dim", DIM)?,
            projections,
            convs: vec![ConvSpec { path: at("conv1d"), bias: false, kernel }],
            a_log: at("A_log"),
            dt_bias: at("dt_bias"),
            norm: self.inner_norm(&at("norm"), self.eps()?),
            gate: Activation::SwiGlu,
            out: plain("out_proj"),
        })
    }

    fn low_rank_delta(&self, prefix: &str, config: &Config) -> Result<DeltaSpec, Error> {
        let (heads, dim) = (config.usize("num_heads", HEADS)?, config.usize("head_dim", DIM)?);
        let kernel = config.usize_or("short_conv_kernel_size", 4, KERNEL)?;
        let at = |name: &str| format!("{prefix}.{name}");
        let plain = |name: &str| linear(at(name), false);
        let conv = |name: &str| ConvSpec { path: at(name), bias: false, kernel };
        Ok(DeltaSpec {
            k_heads: heads,
            v_heads: heads,
            k_dim: dim,
            v_dim: dim,
            projections: DeltaProjections::LowRank {
                qkv: ["q_proj", "k_proj", "v_proj"].map(plain),
                beta: plain("b_proj"),
                decay: ["f_a_proj", "f_b_proj"].map(plain),
                z: ["g_a_proj", "g_b_proj"].map(plain),
                rank: dim,
            },
            convs: ["q_conv.conv", "k_conv.conv", "v_conv.conv"].map(conv).to_vec(),
            a_log: at("A_log"),
            dt_bias: at("dt_bias"),
            norm: self.inner_norm(&at("o_norm"), self.eps()?),
            gate: Activation::Sigmoid,
            out: plain("o_proj"),
        })
    }

    pub(super) fn mamba(&self, prefix: &str) -> Result<MambaSpec, Error> {
        let config = self.config;
        let Some(keys) = self.family.mamba else {
            return Err(Error::Unsupported(format!("state space layers in {}", self.family.name)));
        };
        let heads = match keys.rank {
            None => config.usize(keys.heads, HEADS)?,
            Some(_) => self.hidden * config.usize(keys.heads, 1..=16)?,
        };
        let groups = if keys.groups.is_empty() { 1 } else { config.usize_or(keys.groups, 1, HEADS)? };
        if !heads.is_multiple_of(groups) {
            let what = format!("{} {heads} is not a multiple of {} {groups}", keys.heads, keys.groups);
            return Err(Error::Inconsistent(what));
        }
        let at = |name: &str| format!("{prefix}.{name}");
        let bias = config.bool_or(keys.bias, false)?;
        let norm = |name: &str| -> Result<NormSpec, Error> { Ok(self.inner_norm(&at(name), self.eps()?)) };
        let inputs = match keys.rank {
            None => SsmInputs::Joint {
                dt_bias: at("dt_bias"),
                norm: norm("norm")?,
                norm_groups: if keys.norm_by_group { groups } else { 1 },
            },
            Some(rank) => SsmInputs::Selected {
                x_proj: linear(at("x_proj"), false),
                dt_proj: linear(at("dt_proj"), true),
                norms: [norm("dt_layernorm")?, norm("b_layernorm")?, norm("c_layernorm")?],
                // "auto" is a sixteenth of the hidden size.
                rank: match config.str(rank) {
                    Ok(_) => self.hidden.div_ceil(16),
                    Err(_) => config.usize(rank, DIM)?,
                },
            },
        };
        let dt_limit = self.dt_limit(keys.dt_limit)?;
        Ok(MambaSpec {
            heads,
            head_dim: if keys.rank.is_some() { 1 } else { config.usize(keys.head_dim, DIM)? },
            groups,
            inputs,
            state: config.usize(keys.state, DIM)?,
            input: linear(at("in_proj"), bias),
            conv: ConvSpec {
                path: at("conv1d"),
                bias: config.bool_or(keys.conv_bias, true)?,
                kernel: config.usize(keys.kernel, KERNEL)?,
            },
            a_log: at("A_log"),
            d: at("D"),
            dt_limit,
            out: linear(at("out_proj"), bias),
        })
    }

    /// Bounds of the time step; `Infinity` is written as a word.
    fn dt_limit(&self, default: (f32, f32)) -> Result<(f32, f32), Error> {
        let key = "time_step_limit";
        if !self.config.has(key) {
            return Ok(default);
        }
        let list = self.config.raw().get(key).and_then(|value| value.as_array());
        let numbers = list.into_iter().flatten().map(|value| match value.as_str() {
            Some("Infinity") => Some(f32::MAX),
            Some(_) => None,
            None => value.as_f64().map(|number| number as f32).filter(|number| number.is_finite()),
        });
        match numbers.collect::<Option<Vec<f32>>>().as_deref() {
            Some(&[low, high]) if 0.0 <= low && low <= high => Ok((low, high)),
            _ => {
                Err(self.config.invalid(key, "must be two bounds of at least 0, the lower one first").into())
            }
        }
    }

    pub(super) fn short_conv(&self, prefix: &str) -> Result<ShortConvSpec, Error> {
        let bias = self.config.bool_or("conv_bias", false)?;
        let at = |name: &str| format!("{prefix}.{name}");
        let kernel = self.config.usize("conv_L_cache", KERNEL)?;
        Ok(ShortConvSpec {
            input: linear(at("in_proj"), bias),
            conv: ConvSpec { path: at("conv"), bias, kernel },
            out: linear(at("out_proj"), bias),
        })
    }
}
