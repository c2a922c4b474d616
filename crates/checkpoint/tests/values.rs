//! Test list A5: numbers that are not finite, and those that are merely odd.

mod common;

use amoeba_checkpoint::ErrorKind::Corrupt;
use common::{CONFIG, filled, open_one, refused};
use half::{bf16, f16};

/// Elements per tensor: more than one block of the scan, and not a multiple of it.
const LEN: usize = 5000;

/// A tensor of ones with one element replaced, in a file with a harmless neighbour on either side.
fn with(name: &str, dtype: &str, at: usize, element: &[u8], one: &[u8]) -> Vec<u8> {
    let mut bytes = one.repeat(LEN);
    bytes[at * one.len()..][..one.len()].copy_from_slice(element);
    filled([
        ("a", "U8", vec![1], vec![0xff]),
        (name, dtype, vec![LEN], bytes),
        ("z", "U32", vec![1], vec![0xff; 4]),
    ])
}

#[test]
fn not_finite_numbers_are_found_wherever_they_are() {
    for name in ["m.scales", "m.biases", "norm.weight"] {
        for at in [0, 1, 4095, 4096, LEN - 1] {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let files = [
                    with(name, "BF16", at, &bf16::from_f32(bad).to_le_bytes(), &bf16::ONE.to_le_bytes()),
                    with(name, "F16", at, &f16::from_f32(bad).to_le_bytes(), &f16::ONE.to_le_bytes()),
                    with(name, "F32", at, &bad.to_le_bytes(), &1_f32.to_le_bytes()),
                    with(name, "F64", at, &f64::from(bad).to_le_bytes(), &1_f64.to_le_bytes()),
                ];
                for file in files {
                    let words = ["model.safetensors", name, &format!("element {at} ")];
                    refused(name, open_one(CONFIG, &file).unwrap().check_values(), Corrupt, &words);
                }
            }
        }
    }
}

#[test]
fn scales_that_overflow_once_multiplied() {
    for (name, value, good) in [
        ("m.scales", 3e38, false),
        ("m.scales", -1e37, false),
        ("m.scales", 1e35, true),
        ("m.biases", 3e38, false),
        ("m.biases", -1e38, true),
        ("norm.weight", 3e38, true),
    ] {
        for file in [
            with(name, "BF16", 7, &bf16::from_f32(value).to_le_bytes(), &bf16::ONE.to_le_bytes()),
            with(name, "F32", 7, &value.to_le_bytes(), &1_f32.to_le_bytes()),
        ] {
            let result = open_one(CONFIG, &file).unwrap().check_values();
            match good {
                true => result.unwrap(),
                false => refused(name, result, Corrupt, &[name, "element 7 "]),
            }
        }
    }
}

#[test]
fn zeros_subnormals_and_extremes_are_fine() {
    for bits in [0_u16, 0x8000, 1, 0x8001, 0x007f, 0x0080, 0x3f80] {
        let file = with("m.scales", "BF16", 4999, &bits.to_le_bytes(), &bf16::ONE.to_le_bytes());
        open_one(CONFIG, &file).unwrap().check_values().unwrap();
        let file = with("m.scales", "F16", 4999, &bits.to_le_bytes(), &f16::ONE.to_le_bytes());
        open_one(CONFIG, &file).unwrap().check_values().unwrap();
    }
    let zeros = filled([("m.scales", "BF16", vec![64, 2], vec![0; 256])]);
    open_one(CONFIG, &zeros).unwrap().check_values().unwrap();
    let largest = with("m.scales", "F16", 0, &f16::MAX.to_le_bytes(), &f16::ONE.to_le_bytes());
    open_one(CONFIG, &largest).unwrap().check_values().unwrap();
}

#[test]
fn byte_scales() {
    // words per scale: 4 is mxfp4, 8 mxfp8, 2 nvfp4
    for (ratio, byte, good) in [
        (4, 0xff, false),
        (8, 0xff, false),
        (2, 0xff, false),
        (2, 0x7f, false),
        (4, 0x7f, true),
        (8, 0x7f, true),
        (4, 0xfe, true),
        (8, 0, true),
        (2, 0x7e, true),
        (2, 0xfe, true),
        (2, 0, true),
    ] {
        let mut scales = vec![0x38; 2 * 5];
        scales[6] = byte;
        let weight = vec![0xff; 2 * 5 * ratio * 4];
        let file =
            filled([("m.scales", "U8", vec![2, 5], scales), ("m.weight", "U32", vec![2, 5 * ratio], weight)]);
        let result = open_one(CONFIG, &file).unwrap().check_values();
        match good {
            true => result.unwrap(),
            false => refused("byte scale", result, Corrupt, &["m.scales", "element 6 "]),
        }
    }
}
