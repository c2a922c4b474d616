//! Every checkpoint of `fixtures/` opens, and its matrices are of the format its name promises.

#![allow(clippy::unwrap_used)] // helpers outside test functions

use amoeba_checkpoint::{Checkpoint, Config, DType, Float, Format};
use std::path::PathBuf;

const BF16: Float = Float::BF16;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn affine(bits: u8, group: u16) -> Format {
    Format::Affine { bits, group, scale: BF16 }
}

/// Columns of a quantised matrix, from the override or default that applies; rows and experts from its shape.
fn expected(model: &Checkpoint, path: &str) -> (Vec<usize>, usize, Format) {
    let weight = model.tensor(&format!("{path}.weight")).unwrap();
    let (rows, words) = (weight.shape[..weight.shape.len() - 1].to_vec(), *weight.shape.last().unwrap());
    let Ok(scales) = model.tensor(&format!("{path}.scales")) else {
        return (rows, words, Format::Dense(weight.dtype.float().unwrap()));
    };
    let raw = &model.config().raw()["quantization"];
    let own = raw.get(path).unwrap_or(raw);
    let bits = own["bits"].as_u64().unwrap() as usize;
    let format = match own.get("mode").map(|m| m.as_str().unwrap()) {
        Some("mxfp4") => Format::Mxfp4,
        Some("mxfp8") => Format::Mxfp8,
        Some("nvfp4") => Format::Nvfp4,
        _ => {
            let group = own["group_size"].as_u64().unwrap() as u16;
            Format::Affine { bits: bits as u8, group, scale: scales.dtype.float().unwrap() }
        }
    };
    (rows, words * 32 / bits, format)
}

#[test]
fn every_fixture_opens_and_resolves() {
    let (mut models, mut matrices) = (0, 0);
    for entry in std::fs::read_dir(root()).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("config.json").exists() {
            continue;
        }
        let model = Checkpoint::open(&dir).unwrap();
        model.check_values().unwrap();
        model.check_unchanged().unwrap();
        models += 1;
        for name in model.names() {
            let info = model.index().get(name).unwrap();
            let Some(path) = name.strip_suffix(".weight") else { continue };
            if info.shape.len() == 1 {
                assert_eq!(model.vector(name, info.shape[0]).unwrap().len(), info.shape[0]);
                continue;
            }
            let (rows, cols, format) = expected(&model, path);
            let found = match rows[..] {
                [rows] => vec![model.matrix(path, rows, cols).unwrap()],
                [experts, rows] => model.stack(path, None, experts, rows, cols).unwrap(),
                _ => panic!("{name} has {rows:?}"),
            };
            assert!(
                found.iter().all(|m| m.format == format),
                "{name}: {:?}, not {format:?}",
                found[0].format
            );
            let bytes: usize = found.iter().map(amoeba_checkpoint::Matrix::bytes).sum();
            let parts = ["weight", "scales", "biases"].map(|part| format!("{path}.{part}"));
            let stored =
                parts.iter().filter_map(|n| model.tensor(n).ok()).map(|t| t.bytes.len()).sum::<usize>();
            assert_eq!(bytes, stored, "{name}");
            matrices += found.len();
        }
    }
    assert!(models >= 28 && matrices > 1000, "{models} models, {matrices} matrices");
}

#[test]
fn names_keep_their_promise() {
    let up = "model.layers.0.mlp.switch_mlp.up_proj";
    let cases = [
        ("qwen3_moe-q2g64", affine(2, 64)),
        ("qwen3_moe-q3g64", affine(3, 64)),
        ("qwen3_moe-q4g32", affine(4, 32)),
        ("qwen3_moe-q4g128", affine(4, 128)),
        ("qwen3_moe-q5g64", affine(5, 64)),
        ("qwen3_moe-q6g64", affine(6, 64)),
        ("qwen3_moe-q8g64", affine(8, 64)),
        ("qwen3_moe-q4g64-f16", Format::Affine { bits: 4, group: 64, scale: Float::F16 }),
        ("qwen3_moe-mxfp4", Format::Mxfp4),
        ("qwen3_moe-mxfp8", Format::Mxfp8),
        ("qwen3_moe-nvfp4", Format::Nvfp4),
        ("qwen3_moe-bf16", Format::Dense(BF16)),
        ("qwen3_moe-dynamic", affine(4, 128)),
    ];
    for (name, format) in cases {
        let model = Checkpoint::open(&root().join(name)).unwrap();
        let size = |key: &str| model.config().usize(key, 1..=1024).unwrap();
        let found = model.stack(up, None, 8, size("moe_intermediate_size"), size("hidden_size")).unwrap();
        assert_eq!((found.len(), found[7].format), (8, format), "{name}");
    }
    let gate = |name: &str| {
        let model = Checkpoint::open(&root().join(name)).unwrap();
        model.matrix("model.layers.0.mlp.gate", 8, 128).unwrap().format
    };
    assert_eq!(gate("qwen3_moe-mxfp4"), affine(8, 64), "an override without mode is affine");
    assert_eq!(gate("qwen3_moe-q4g64_uniform"), affine(4, 64));
    assert_eq!(gate("qwen3_moe-q4g64_expertsonly"), Format::Dense(BF16), "no scales: not quantised");
    assert_eq!(gate("qwen3_moe-q4g64_routerfp"), Format::Dense(BF16));
}

#[test]
fn unstacked_experts_equal_stacked_slices() {
    let model = Checkpoint::open(&root().join("mixtral-q4g64-unstacked")).unwrap();
    let each = "model.layers.1.block_sparse_moe.experts.{}.w1";
    let stacked = "model.layers.1.block_sparse_moe.switch_mlp.gate_proj";
    let found = model.stack(stacked, Some(each), 8, 64, 128).unwrap();
    assert_eq!((found.len(), found[3].format), (8, affine(4, 64)));
    let third = model.tensor("model.layers.1.block_sparse_moe.experts.3.w1.weight").unwrap();
    assert_eq!(found[3].weight.as_ptr(), third.bytes.as_ptr(), "borrowed, not copied");
    let model = Checkpoint::open(&root().join("mixtral-q4g64")).unwrap();
    let found = model.stack(stacked, Some(each), 8, 64, 128).unwrap();
    let all = model.tensor(&format!("{stacked}.weight")).unwrap();
    assert_eq!(found[3].weight, &all.bytes[3 * 64 * 64..4 * 64 * 64]);
}

#[test]
fn other_files_of_a_fixture() {
    let dir = root().join("qwen3_moe-q4g64-sharded");
    let model = Checkpoint::open(&dir).unwrap();
    assert_eq!(model.index().files().len(), 3);
    assert_eq!(model.total_bytes(), 493_888, "total_size of the index");
    assert!(model.names().is_sorted() && model.dir() == dir);
    assert!(model.json("generation_config.json").unwrap().unwrap().has("eos_token_id"));
    assert!(model.json("nothing.json").unwrap().is_none());
    assert!(model.json("../qwen3_moe-bf16/config.json").is_err());
    let only_config = Config::read(&dir, "config.json").unwrap().unwrap();
    assert_eq!(only_config.usize("hidden_size", 1..=65_536).unwrap(), 128);
    assert_eq!(model.tensor("model.norm.weight").unwrap().dtype, DType::BF16);
}
