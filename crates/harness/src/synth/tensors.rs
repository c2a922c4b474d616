//! The tensors of a model: names, types, shapes and what fills them.

use amoeba_checkpoint::{Float, Format};

use super::fill::{self, Fill};
use super::spec::{Spec, affine};

/// One tensor to be written.
pub(super) struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: u64,
    pub fill: Fill,
}

/// Collects tensors; each matrix gets a seed of its own.
struct List {
    tensors: Vec<Tensor>,
    seed: u64,
}

/// All tensors in the order of the model.
pub(super) fn list(spec: &Spec) -> Vec<Tensor> {
    let shape = &spec.shape;
    let mut list = List { tensors: Vec::new(), seed: 0 };
    let (hidden, vocab) = (shape.hidden, shape.vocab);
    let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    // A token's embedding is what the residual stream starts with: deviation one, not 1/sqrt(hidden).
    list.matrix("model.embed_tokens", spec.format, &[vocab, hidden], 1.0);
    for layer in 0..shape.layers {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let mut linear = |name: &str, format, shape: &[usize]| {
            let cols = shape.last().copied().unwrap_or(1);
            list.matrix(&at(name), format, shape, 1.0 / (cols as f64).sqrt());
        };
        linear("self_attn.q_proj", spec.format, &[q, hidden]);
        linear("self_attn.k_proj", spec.format, &[kv, hidden]);
        linear("self_attn.v_proj", spec.format, &[kv, hidden]);
        linear("self_attn.o_proj", spec.format, &[hidden, q]);
        linear("mlp.gate", router(spec.format), &[shape.experts, hidden]);
        linear("mlp.switch_mlp.gate_proj", spec.format, &[shape.experts, shape.expert_width, hidden]);
        linear("mlp.switch_mlp.up_proj", spec.format, &[shape.experts, shape.expert_width, hidden]);
        linear("mlp.switch_mlp.down_proj", spec.format, &[shape.experts, hidden, shape.expert_width]);
        list.norm(at("self_attn.q_norm"), shape.head_dim);
        list.norm(at("self_attn.k_norm"), shape.head_dim);
        list.norm(at("input_layernorm"), hidden);
        list.norm(at("post_attention_layernorm"), hidden);
    }
    list.norm("model.norm".to_owned(), hidden);
    list.matrix("lm_head", spec.format, &[vocab, hidden], 1.0 / (hidden as f64).sqrt());
    list.tensors
}

/// Routers keep 8 bits in groups of 64 whatever the rest has, as mlx-lm quantises this family.
pub(super) fn router(format: Format) -> Format {
    if format.is_quantised() { affine(8, 64) } else { format }
}

impl List {
    /// A matrix (or a stack of them) whose numbers have standard deviation `deviation`.
    fn matrix(&mut self, path: &str, format: Format, shape: &[usize], deviation: f64) {
        let Some((&cols, leading)) = shape.split_last() else { return };
        self.seed += 1;
        let (weight, scales, biases) = fill::matrix(format, self.seed << 40, deviation);
        let mut push = |suffix: &str, dtype, last: usize, width: usize, fill| {
            let shape: Vec<usize> = leading.iter().copied().chain([last]).collect();
            let bytes = (shape.iter().product::<usize>() * width) as u64;
            self.tensors.push(Tensor { name: format!("{path}.{suffix}"), dtype, shape, bytes, fill });
        };
        match format.is_quantised() {
            true => push("weight", "U32", format.row_bytes(cols) / 4, 4, weight),
            false => push("weight", "BF16", cols, 2, weight),
        }
        let dtype = if format.has_biases() { "BF16" } else { "U8" };
        for (suffix, fill) in [("scales", scales), ("biases", biases)] {
            if let Some(fill) = fill {
                push(suffix, dtype, cols / format.group(), format.scale_bytes(), fill);
            }
        }
    }

    fn norm(&mut self, path: String, len: usize) {
        self.seed += 1;
        let fill = Fill::Uniform { seed: self.seed << 40, centre: 1.0, half_width: 0.25 };
        let bytes = (len * Float::BF16.bytes()) as u64;
        self.tensors.push(Tensor {
            name: format!("{path}.weight"),
            dtype: "BF16",
            shape: vec![len],
            bytes,
            fill,
        });
    }
}
