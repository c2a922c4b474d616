//! Bounded smoke of the fuzz targets: arbitrary and mutated input never panics.

mod common;

use amoeba_checkpoint::fuzzing;
use common::{container, raw};
use proptest::collection::vec;
use proptest::prelude::*;

const CONFIG: &str = r#"{"hidden_size":128,"eps":1e-6,"list":[1,2.5,"x"],"quantization":{"group_size":32,
    "bits":4,"mode":"mxfp4","model.layers.0.mlp.gate":{"bits":8,"group_size":64},"lm_head":false,"a":true}}"#;

/// Fragments that parsers tend to trip over.
const TOKENS: [&str; 22] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "-",
    "1e999",
    "18446744073709551616",
    "NaN",
    "null",
    "true",
    "\"dtype\"",
    "\"F4\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"bits\"",
    "9223372036854775808",
    "\u{0}",
    "\u{fffd}",
];

/// Replaces `cut` bytes at each place by a token or a byte.
fn mutate(text: &[u8], edits: &[(usize, usize, usize, u8)]) -> Vec<u8> {
    let mut out = text.to_vec();
    for &(at, cut, token, byte) in edits {
        let start = at % (out.len() + 1);
        let end = (start + cut).min(out.len());
        let new = TOKENS.get(token).map_or_else(|| vec![byte], |t| t.as_bytes().to_vec());
        out.splice(start..end, new);
    }
    out
}

fn edits() -> impl Strategy<Value = Vec<(usize, usize, usize, u8)>> {
    vec((any::<usize>(), 0..5_usize, 0..44_usize, any::<u8>()), 1..6)
}

#[test]
fn the_entry_points_accept_good_input() {
    assert_eq!(fuzzing::safetensors_header(&container(&[("a", "F32", &[2])])).unwrap(), 1);
    fuzzing::shard_index(br#"{"weight_map":{"a":"model.safetensors"}}"#).unwrap();
    fuzzing::config_json(CONFIG.as_bytes()).unwrap();
    for quant in [&b"{}"[..], br#"{"quantization":{"bits":4,"x":{"bits":4,"group_size":64}}}"#] {
        // Stacked with scales and biases: 3 experts of 6 x 128, 16 words and 2 scales a row.
        let input = [&[7, 0, 1, 1, 6, 3, 128, 0, 0, 16, 2, 2][..], quant].concat();
        fuzzing::quant_layout(&input).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn random_files(bytes in vec(any::<u8>(), 0..200)) {
        let _ = fuzzing::safetensors_header(&bytes);
        let _ = fuzzing::shard_index(&bytes);
        let _ = fuzzing::config_json(&bytes);
        let _ = fuzzing::quant_layout(&bytes);
    }

    #[test]
    fn mutated_files(edits in edits()) {
        let good = container(&[("a.weight", "U32", &[2, 3]), ("b", "BF16", &[4]), ("c", "F32", &[])]);
        let _ = fuzzing::safetensors_header(&mutate(&good, &edits));
    }

    #[test]
    fn mutated_headers_of_the_right_length(edits in edits()) {
        let good = container(&[("a.weight", "U32", &[2, 3]), ("b", "BF16", &[4]), ("c", "F32", &[])]);
        let data = 24 + 8 + 4;
        let header = mutate(&good[8..good.len() - data], &edits);
        let _ = fuzzing::safetensors_header(&raw(&header, &good[good.len() - data..]));
    }

    #[test]
    fn mutated_configs(edits in edits()) {
        let _ = fuzzing::config_json(&mutate(CONFIG.as_bytes(), &edits));
    }

    #[test]
    fn mutated_indices(edits in edits()) {
        let good = r#"{"metadata":{"total_size":4},"weight_map":{"a":"model-1.safetensors",
            "b":"model-2.safetensors"}}"#;
        let _ = fuzzing::shard_index(&mutate(good.as_bytes(), &edits));
    }

    /// Shapes near real ones, so that the accepting paths run as well.
    #[test]
    fn near_layouts(
        kinds in 0..8_u8,
        types in prop::array::uniform3(0..8_u8),
        (rows, experts) in (0..4_u8, 0..4_u8),
        (blocks, bits, group) in (0..3_usize, 1..10_usize, prop::sample::select(vec![8, 16, 32, 64, 128])),
        noise in 0..8_u8,
    ) {
        let cols = blocks * 128;
        let nudge = |n: usize, bit: u8| (n as u8).wrapping_add((noise == bit).into());
        let third = types[1].wrapping_add(types[2] / 7);
        let mut input = vec![kinds | 2, types[0] / 7, types[1], third, rows, experts];
        input.extend([(cols & 0xff) as u8, (cols >> 8) as u8, 0]);
        let (words, groups) = (cols * bits / 32, cols / group);
        input.extend([nudge(words, 1), nudge(groups, 2), nudge(groups, 3)]);
        input.extend(br#"{"quantization":{"bits":4}}"#);
        let _ = fuzzing::quant_layout(&input);
    }
}
