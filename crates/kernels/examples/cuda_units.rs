//! Writes the CUDA sources of models of real widths into a folder, for `cargo xtask nvrtc`: a file per unit.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use amoeba_checkpoint::{Config, Float, Format};
use amoeba_kernels::gpu::{self, Matrix, Place, Places, Setting, Unit, WeightPlace};
use amoeba_kernels::sample::cuda as sample;
use amoeba_plan::{PathChoice, Plan, WeightShape, groups};

/// A fixture's config with widths of a published model: what to call it, fixture, other numbers.
const MODELS: [(&str, &str, &[(&str, &str)]); 6] = [
    (
        "qwen3-30b-a3b",
        "qwen3_moe-q4g64",
        &[
            ("hidden_size", "2048"),
            ("num_attention_heads", "32"),
            ("num_key_value_heads", "4"),
            ("head_dim", "128"),
            ("num_experts", "128"),
            ("num_experts_per_tok", "8"),
            ("moe_intermediate_size", "768"),
            ("vocab_size", "151936"),
        ],
    ),
    (
        "gpt-oss-20b",
        "gpt_oss-mxfp4_q8",
        &[
            ("hidden_size", "2880"),
            ("intermediate_size", "2880"),
            ("num_attention_heads", "64"),
            ("num_key_value_heads", "8"),
            ("head_dim", "64"),
            ("num_local_experts", "32"),
            ("num_experts_per_tok", "4"),
            ("sliding_window", "128"),
            ("vocab_size", "201088"),
        ],
    ),
    (
        "glm-4.7-flash",
        "glm4_moe_lite-q4g64",
        &[
            ("hidden_size", "2048"),
            ("intermediate_size", "10240"),
            ("kv_lora_rank", "512"),
            ("q_lora_rank", "768"),
            ("qk_nope_head_dim", "192"),
            ("qk_rope_head_dim", "64"),
            ("v_head_dim", "256"),
            ("num_attention_heads", "20"),
            ("num_key_value_heads", "20"),
            ("n_routed_experts", "64"),
            ("num_experts_per_tok", "4"),
            ("moe_intermediate_size", "1536"),
            ("vocab_size", "154880"),
        ],
    ),
    (
        "qwen3-next-80b",
        "qwen3_next-q4g64",
        &[
            ("hidden_size", "2048"),
            ("num_attention_heads", "16"),
            ("num_key_value_heads", "2"),
            ("head_dim", "256"),
            ("linear_key_head_dim", "128"),
            ("linear_value_head_dim", "128"),
            ("linear_num_key_heads", "16"),
            ("linear_num_value_heads", "32"),
            ("num_experts", "512"),
            ("num_experts_per_tok", "10"),
            ("moe_intermediate_size", "512"),
            ("shared_expert_intermediate_size", "512"),
            ("vocab_size", "151936"),
        ],
    ),
    (
        "nemotron-3-nano",
        "nemotron_h-q4g64",
        &[
            ("hidden_size", "2688"),
            ("mamba_num_heads", "64"),
            ("mamba_head_dim", "64"),
            ("ssm_state_size", "128"),
            ("n_groups", "8"),
            ("num_attention_heads", "32"),
            ("num_key_value_heads", "2"),
            ("head_dim", "128"),
            ("n_routed_experts", "128"),
            ("num_experts_per_tok", "6"),
            ("moe_intermediate_size", "1856"),
            ("moe_shared_expert_intermediate_size", "3712"),
            ("vocab_size", "131072"),
        ],
    ),
    ("kimi-linear-small", "kimi_linear-q4g64", &[]),
];

/// Formats that all weights of the first model take in turn.
fn formats() -> Vec<Format> {
    let affine = |bits, group| Format::Affine { bits, group, scale: Float::BF16 };
    let mut all: Vec<Format> = [2, 3, 5, 6, 8].map(|bits| affine(bits, 64)).to_vec();
    all.extend([affine(4, 32), affine(4, 128), Format::Mxfp4, Format::Mxfp8, Format::Nvfp4]);
    all.extend([Float::BF16, Float::F16, Float::F32].map(Format::Dense));
    all
}

/// Replaces the value of a key.
fn with(config: &str, key: &str, value: &str) -> String {
    let named = format!("\"{key}\":");
    let at = config.find(&named).unwrap_or_else(|| panic!("no `{key}`")) + named.len();
    let end = at + config[at..].find([',', '\n', '}']).expect("an object ends");
    format!("{} {value}{}", &config[..at], &config[end..])
}

/// Addresses that nobody reads.
fn places(plan: &Plan, format: Option<Format>, kv_f16: bool) -> Places {
    let stored = |path: &str, cols: usize| match format {
        Some(format) => format,
        None if plan.spec.family == "gpt_oss" && path.contains(".experts.") => Format::Mxfp4,
        None => {
            let finer = path.ends_with(".gate") || plan.spec.family == "gpt_oss";
            let (bits, group) = (if finer { 8 } else { 4 }, if cols.is_multiple_of(64) { 64 } else { 32 });
            Format::Affine { bits, group, scale: Float::BF16 }
        }
    };
    let weights = plan.weights.iter().map(|weight| match weight.shape {
        WeightShape::Vector(_) => WeightPlace::Vector(256),
        WeightShape::Matrix(rows, cols) | WeightShape::Stack(_, rows, cols) => {
            let format = stored(&weight.path, cols);
            WeightPlace::Matrix(Matrix { codes: 256, scales: 256, biases: 256, format, rows, cols })
        }
    });
    let place = |width: usize| Place { address: 256, stride: width.next_multiple_of(16) };
    Places {
        step: 256,
        buffers: plan.buffers.iter().map(|buffer| place(buffer.width)).collect(),
        weights: weights.collect(),
        caches: vec![256; plan.caches.len()],
        ropes: vec![256; plan.ropes.len()],
        scratch: 256,
        zeroed: 256,
        setting: Setting {
            slots: 1,
            context: 8192,
            kv_f16,
            multiprocessors: 132,
            arch: 90,
            fused: true,
            x_terms: 2,
        },
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: cuda_units FOLDER")?;
    let mut units: BTreeMap<Unit, String> = BTreeMap::new();
    let mut add = |name: &str, plan: &Plan, places: &Places, rows: &[usize]| -> Result<(), Box<dyn Error>> {
        for rows in rows {
            for group in groups(plan, &gpu::capabilities(places.setting.fused), *rows, PathChoice::Auto) {
                let lowered = gpu::lower(plan, &group, places, *rows);
                for staged in lowered.map_err(|why| format!("{name}: {why}"))? {
                    units.entry(staged.call.unit).or_insert_with(|| name.to_owned());
                }
            }
        }
        for call in sample::calls(&sample::Places::default(), plan.spec.vocab, sample::Kind::Greedy, 1) {
            units.entry(call.unit).or_insert_with(|| name.to_owned());
        }
        Ok(())
    };
    for (i, (name, fixture, numbers)) in MODELS.iter().enumerate() {
        let path = format!("{}/../../fixtures/{fixture}/config.json", env!("CARGO_MANIFEST_DIR"));
        let mut config = std::fs::read_to_string(path)?;
        for (key, value) in *numbers {
            config = with(&config, key, value);
        }
        let plan = Plan::new(&Config::parse("config.json", &config)?)?;
        add(
            name,
            &plan,
            &places(&plan, None, true),
            if i == 0 { &[1, 2, 4, 8, 16, 512] } else { &[1, 512] },
        )?;
        if i == 0 {
            for format in formats() {
                add(&format!("{name}-{format}"), &plan, &places(&plan, Some(format), false), &[1, 512])?;
            }
        }
    }
    std::fs::create_dir_all(&folder)?;
    for (i, (unit, name)) in units.iter().enumerate() {
        let op = unit.op.0.trim_end_matches(".cu").trim_end_matches("/kernel").replace('/', "_");
        std::fs::write(Path::new(&folder).join(format!("{i:03}.{op}.{name}.cu")), unit.source())?;
    }
    println!("{} units", units.len());
    Ok(())
}
