//! Test list A4, layouts: tensors' types and shapes against each other and against `config.json`.

#![allow(clippy::unwrap_used)] // helpers outside test functions

mod common;

use amoeba_checkpoint::ErrorKind::{self, Config as Bad, Corrupt, Unsupported};
use amoeba_checkpoint::{Config, DType, Error, Float, Format, Quantisation, TensorIndex};
use common::{CONFIG, container, open_one, refused};

type Tensors = Vec<(&'static str, DType, Vec<usize>)>;

fn resolve(quant: &str, tensors: Tensors, experts: Option<usize>, cols: usize) -> Result<Format, Error> {
    let config = Config::parse("config.json", &format!(r#"{{"quantization":{quant}}}"#)).unwrap();
    TensorIndex::from_shapes(tensors)?.format(&Quantisation::parse(&config)?, "x", experts, 6, cols)
}

fn packed(words: usize, scales: (DType, usize), biases: bool) -> Tensors {
    let mut tensors =
        vec![("x.weight", DType::U32, vec![6, words]), ("x.scales", scales.0, vec![6, scales.1])];
    if biases {
        tensors.push(("x.biases", scales.0, vec![6, scales.1]));
    }
    tensors
}

#[test]
fn every_width_and_group_from_shapes() {
    const COLS: usize = 1024;
    for bits in 1..=32_u8 {
        for group in [1_u16, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] {
            let (words, groups) = (COLS * usize::from(bits) / 32, COLS / usize::from(group));
            let found = |dtype, biases| resolve("null", packed(words, (dtype, groups), biases), None, COLS);
            let case = format!("{bits} bits, group {group}");
            let at = "x.";
            for (dtype, scale) in
                [(DType::BF16, Float::BF16), (DType::F16, Float::F16), (DType::F32, Float::F32)]
            {
                match found(dtype, true) {
                    Ok(format) => {
                        assert_eq!(format, Format::Affine { bits, group, scale }, "{case}");
                        assert!(
                            [2, 3, 4, 5, 6, 8].contains(&bits) && [32, 64, 128].contains(&group),
                            "{case}"
                        );
                    }
                    Err(e) => {
                        assert!(
                            ![2, 3, 4, 5, 6, 8].contains(&bits) || ![32, 64, 128].contains(&group),
                            "{e}"
                        );
                        let kind = if bits <= 8 { Unsupported } else { Corrupt };
                        refused(&case, Err::<(), _>(e), kind, &[at]);
                    }
                }
                refused(&case, found(dtype, false), Corrupt, &["x.scales", "biases"]);
            }
            match (bits, group) {
                (4, 32) => assert_eq!(found(DType::U8, false).unwrap(), Format::Mxfp4),
                (8, 32) => assert_eq!(found(DType::U8, false).unwrap(), Format::Mxfp8),
                (4, 16) => assert_eq!(found(DType::U8, false).unwrap(), Format::Nvfp4),
                _ if bits <= 8 => refused(&case, found(DType::U8, false), Unsupported, &["x.scales"]),
                _ => refused(&case, found(DType::U8, false), Corrupt, &["x.weight"]),
            }
            refused(&case, found(DType::U8, true), Corrupt, &["x.biases"]);
        }
    }
}

#[test]
fn wrong_types_and_shapes() {
    use DType::*;
    let good = || packed(16, (BF16, 2), true);
    assert!(resolve("null", good(), None, 128).is_ok());
    let other_types = [Bool, U8, I8, F8E4M3, F8E8M0, U16, I16, F16, BF16, F32, I32, F64, I64, U64, C64, F4];
    for dtype in other_types {
        let mut tensors = good();
        tensors[0].1 = dtype;
        refused(
            &format!("weight {dtype}"),
            resolve("null", tensors, None, 128),
            Corrupt,
            &["x.weight", "U32"],
        );
        for part in [1, 2] {
            let mut tensors = good();
            tensors[part].1 = dtype;
            if dtype != BF16 {
                refused(
                    &format!("part {part} {dtype}"),
                    resolve("null", tensors, None, 128),
                    Corrupt,
                    &["`x."],
                );
            }
        }
        if dtype.float().is_none() {
            let alone = vec![("x.weight", dtype, vec![6, 128])];
            refused(&format!("dense {dtype}"), resolve("null", alone, None, 128), Corrupt, &["x.weight"]);
        }
    }
    let shapes = "[[],[6],[0],[16],[6,0],[0,16],[5,16],[7,16],[6,15],[6,17],[6,1], \
        [1,6,16],[6,16,1],[6,1099511627776]]";
    let shapes: Vec<Vec<usize>> = serde_json::from_str(shapes).unwrap();
    for part in 0..3 {
        for shape in &shapes {
            let mut tensors = good();
            tensors[part].2 = shape.clone();
            let result = resolve("null", tensors, None, 128);
            let kind = result.as_ref().map_or_else(Error::kind, |_| Corrupt);
            assert!(matches!(kind, Corrupt | Unsupported));
            refused(&format!("part {part} {shape:?}"), result, kind, &["`x."]);
        }
    }
    let missing: [(&[usize], &str); 4] =
        [(&[0, 1], "x.scales"), (&[0, 2], "x.biases"), (&[0], "x.weight"), (&[1, 2], "x.weight")];
    for (kept, word) in missing {
        let tensors = kept.iter().map(|&i| good()[i].clone()).collect();
        refused(&format!("only {kept:?}"), resolve("null", tensors, None, 128), Corrupt, &[word]);
    }
}

#[test]
fn configuration_against_shapes() {
    let q4g64 = || packed(16, (BF16, 2), true);
    use DType::BF16;
    let accepted = [
        r#"{"bits":8,"group_size":32,"x":{"bits":4,"group_size":64}}"#,
        r#"{"bits":4,"group_size":64,"x":true}"#,
        // The default does not explain these shapes, so it does not bind them.
        r#"{"bits":6,"group_size":64}"#,
        r#"{"mode":"mxfp4","x":{"group_size":64}}"#,
        r#"{"mode":"nvfp4"}"#,
        r#"{"bits":4,"group_size":64,"model.layers.99.mlp":{"bits":2}}"#,
    ];
    for quant in accepted {
        let format = resolve(quant, q4g64(), None, 128).unwrap();
        assert_eq!(format, Format::Affine { bits: 4, group: 64, scale: Float::BF16 }, "{quant}");
    }
    let two_bits = resolve(r#"{"mode":"nvfp4"}"#, packed(8, (BF16, 4), true), None, 128).unwrap();
    assert_eq!(two_bits.to_string(), "q2g32", "a default of another mode explains nothing");
    let contradicted = [
        (r#"{"bits":4,"group_size":64,"x":false}"#, "not quantised"),
        (r#"{"bits":8,"group_size":64,"x":true}"#, "8-bit"),
        (r#"{"bits":4,"group_size":64,"x":{"bits":8}}"#, "8-bit"),
        (r#"{"bits":4,"group_size":64,"x":{"bits":4,"group_size":32}}"#, "group 32"),
        (r#"{"bits":4,"group_size":64,"x":{"mode":"mxfp4"}}"#, "mxfp4"),
        (r#"{"bits":4,"group_size":64,"model.x":{"bits":2}}"#, "2-bit"),
        (r#"{"bits":8,"group_size":32}"#, "64 columns"), // the shapes of 8-bit group 32 at half the width
        (r#"{"bits":2,"group_size":128}"#, "256 columns"),
    ];
    for (quant, word) in contradicted {
        let result = resolve(quant, q4g64(), None, 128);
        refused(quant, result, Corrupt, &["x.weight", "4-bit group 64", "config.json", word]);
    }
    let dense = vec![("x.weight", BF16, vec![6, 100])];
    for quant in ["null", r#"{"bits":4,"group_size":64}"#, r#"{"bits":4,"x":{"bits":8}}"#, r#"{"x":true}"#] {
        let found = resolve(quant, dense.clone(), None, 100).unwrap();
        assert_eq!(found, Format::Dense(Float::BF16), "no scales: not quantised, whatever {quant} says");
    }
}

#[test]
fn sides_no_model_has() {
    let index = TensorIndex::from_shapes([("x.weight", DType::BF16, vec![0, 0])]).unwrap();
    let quant = Quantisation::default();
    let sides: [(Option<usize>, usize, usize, ErrorKind); 9] = [
        (None, 0, 0, Bad),
        (None, 1, 0, Bad),
        (None, 0, 1, Bad),
        (Some(0), 1, 1, Bad),
        (Some(1_000_000), 1, 1, Bad),
        (Some(usize::MAX), usize::MAX, usize::MAX, Bad),
        (None, usize::MAX, 1, Bad),
        (None, 1, usize::MAX, Bad),
        (Some(65_536), 1 << 31, 1 << 31, Corrupt),
    ];
    for (experts, rows, cols, kind) in sides {
        let result = index.format(&quant, "x", experts, rows, cols);
        refused(&format!("{experts:?} {rows} {cols}"), result, kind, &["x"]);
    }
    assert!(TensorIndex::from_shapes([("x", DType::F32, vec![1 << 40, 1 << 40])]).is_err());
    assert!(TensorIndex::from_shapes([("x", DType::F32, vec![1]), ("x", DType::F32, vec![1])]).is_err());
}

#[test]
fn stacks_and_vectors() {
    let file = container(&[
        ("s.weight", "U32", &[3, 6, 16]),
        ("s.scales", "BF16", &[3, 6, 2]),
        ("s.biases", "BF16", &[3, 6, 2]),
        ("e.0.w.weight", "BF16", &[6, 128]),
        ("e.1.w.weight", "BF16", &[6, 128]),
        ("e.2.w.weight", "F32", &[6, 128]),
        ("v", "F16", &[2, 3]),
        ("i", "I32", &[6]),
    ]);
    let model = open_one(CONFIG, &file).unwrap();
    assert_eq!(model.stack("s", Some("e.{}.w"), 3, 6, 128).unwrap().len(), 3, "stacked first");
    assert_eq!(model.stack("t", Some("e.{}.w"), 2, 6, 128).unwrap()[1].weight.len(), 6 * 256);
    refused("formats", model.stack("t", Some("e.{}.w"), 3, 6, 128), Corrupt, &["e.2.w.weight", "one format"]);
    refused("an expert short", model.stack("t", Some("e.{}.w"), 4, 6, 128), Corrupt, &["e.2.w"]);
    refused("no stack", model.stack("t", None, 3, 6, 128), Corrupt, &["t.weight"]);
    refused("no expert", model.stack("t", Some("f.{}.w"), 3, 6, 128), Corrupt, &["f.0.w.weight"]);
    for (experts, rows, cols) in
        [(2, 6, 128), (4, 6, 128), (3, 5, 128), (3, 6, 64), (3, 6, 256), (3, 12, 128)]
    {
        let case = format!("{experts} {rows} {cols}");
        refused(&case, model.stack("s", None, experts, rows, cols), Corrupt, &["model.safetensors", "`s."]);
    }
    refused("a million experts", model.stack("s", None, 1_000_000, 6, 128), Bad, &["`s`", "1000000"]);
    refused("a stack as a matrix", model.matrix("s", 6, 128), Corrupt, &["`s.weight`"]);
    assert_eq!(model.vector("v", 6).unwrap(), [0.0; 6]);
    refused("short vector", model.vector("v", 5), Corrupt, &["`v`", "[2, 3]", "5"]);
    refused("integers", model.vector("i", 6), Corrupt, &["`i`", "I32"]);
    refused("no vector", model.vector("w", 6), Corrupt, &["`w`"]);
    refused("no tensor", model.tensor("\u{1b}[31m"), Corrupt, &["u{1b}"]);
}
