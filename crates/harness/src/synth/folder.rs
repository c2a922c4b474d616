//! The small files of a model folder: configuration and a tokenizer of bytes.

use std::path::Path;

use amoeba_checkpoint::Format;
use serde_json::{Map, Value, json};

use super::SynthError;
use super::spec::Spec;
use super::tensors::router;

/// Tokens with a meaning; their ids follow the 256 bytes.
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const PAD: usize = 256;
const END: usize = 258;

const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
                        message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
                        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Writes everything but the weights, `config.json` last.
pub(super) fn write(spec: &Spec, dir: &Path) -> Result<(), SynthError> {
    write_json(&dir.join("tokenizer.json"), &tokenizer())?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": SPECIAL[END - 256],
        "pad_token": SPECIAL[PAD - 256],
        "unk_token": null,
        "clean_up_tokenization_spaces": false,
        "model_max_length": spec.shape.context,
        "chat_template": TEMPLATE,
    });
    write_json(&dir.join("tokenizer_config.json"), &config)?;
    write_json(&dir.join("config.json"), &config_json(spec))
}

/// Writes a JSON file.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), SynthError> {
    std::fs::write(path, format!("{value:#}\n")).map_err(SynthError::io(path))
}

fn config_json(spec: &Spec) -> Value {
    let shape = &spec.shape;
    let mut config = json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": false,
        "decoder_sparse_step": 1,
        "eos_token_id": END,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": 3 * shape.hidden,
        "max_position_embeddings": shape.context,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": shape.expert_width,
        "norm_topk_prob": true,
        "num_attention_heads": shape.heads,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": PAD,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "vocab_size": shape.vocab,
    });
    if spec.format.is_quantised() {
        let mut quantization = packing(spec.format);
        for layer in 0..shape.layers {
            let gate = Value::Object(packing(router(spec.format)));
            quantization.insert(format!("model.layers.{layer}.mlp.gate"), gate);
        }
        config["quantization"] = Value::Object(quantization.clone());
        config["quantization_config"] = Value::Object(quantization);
    }
    config
}

/// A format as `config.json` states it.
fn packing(format: Format) -> Map<String, Value> {
    let mode = match format {
        Format::Mxfp4 => "mxfp4",
        Format::Mxfp8 => "mxfp8",
        Format::Nvfp4 => "nvfp4",
        Format::Affine { .. } | Format::Dense(_) => "affine",
    };
    let entries =
        [("group_size", format.group().into()), ("bits", format.bits().into()), ("mode", mode.into())];
    entries.into_iter().map(|(key, value): (&str, Value)| (key.to_owned(), value)).collect()
}

/// A byte-level tokenizer without merges: one token a byte.
fn tokenizer() -> Value {
    let mut vocab = Map::new();
    for (id, shown) in byte_alphabet().enumerate() {
        vocab.insert(shown.to_string(), id.into());
    }
    let added = |(i, content): (usize, &&str)| {
        json!({
            "id": 256 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    })
}

/// The character that stands for each byte in byte-level BPE: itself where printable, else one beyond U+00FF.
fn byte_alphabet() -> impl Iterator<Item = char> {
    let mut next = 256_u32;
    (0_u32..256).map(move |byte| {
        let itself = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if itself { byte } else { next };
        next += u32::from(!itself);
        char::from_u32(code).unwrap_or('\u{fffd}')
    })
}
