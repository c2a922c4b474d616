//! Entry points for fuzzers: each takes arbitrary bytes, must never panic, and checks what it accepted.

use crate::{Config, DType, Error, Quantisation, TensorIndex, folder, header};

/// A whole safetensors file.
pub fn safetensors_header(bytes: &[u8]) -> Result<usize, Error> {
    let entries = header::parse("fuzz.safetensors", bytes, 0)?;
    let data: usize = entries.iter().map(|(_, entry)| bytes[entry.range.clone()].len()).sum();
    let length = bytes.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n) as usize);
    assert_eq!(8 + length + data, bytes.len(), "tensors must tile the file");
    Ok(entries.len())
}

/// A shard index.
pub fn shard_index(bytes: &[u8]) -> Result<(), Error> {
    folder::parse_index(bytes).map(drop)
}

/// `config.json`, with its quantization object.
pub fn config_json(bytes: &[u8]) -> Result<(), Error> {
    let config = Config::parse("config.json", &String::from_utf8_lossy(bytes))?;
    for key in config.raw().keys() {
        let _ = config.usize(key, 1..=1 << 20);
        let _ = config.f32(key, -1e6..=1e6);
        let _ = config.usizes(key, 0..=9);
        let _ = config.strs(key);
    }
    let quant = Quantisation::parse(&config)?;
    for path in ["model.layers.0.mlp.gate", "lm_head", "language_model.model.embed_tokens"] {
        let _ = quant.choice(path);
    }
    Ok(())
}

/// Types and shapes of one matrix's tensors, 12 bytes of choices and then a `config.json`.
pub fn quant_layout(bytes: &[u8]) -> Result<(), Error> {
    const TYPES: [DType; 8] =
        [DType::U32, DType::BF16, DType::F16, DType::F32, DType::U8, DType::I32, DType::F64, DType::Bool];
    let Some((&[kinds, wd, sd, bd, rows, experts, cols @ .., words, scales, biases], text)) =
        bytes.split_first_chunk::<12>()
    else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(text);
    let quant = Quantisation::parse(&Config::parse("config.json", &text)?)?;
    let side = |n: u8| usize::from(n);
    let cols = usize::from(u16::from_le_bytes([cols[0], cols[1]])) + (side(cols[2]) << 16);
    let lead = |last: u8| {
        let stacked = (kinds & 1 != 0).then(|| side(experts));
        stacked.into_iter().chain([side(rows), side(last)]).collect::<Vec<_>>()
    };
    let kind = |n: u8| TYPES[side(n) % TYPES.len()];
    let mut tensors = vec![("x.weight", kind(wd), lead(words))];
    if kinds & 2 != 0 {
        tensors.push(("x.scales", kind(sd), lead(scales)));
    }
    if kinds & 4 != 0 {
        tensors.push(("x.biases", kind(bd), lead(biases)));
    }
    let index = TensorIndex::from_shapes(tensors)?;
    let stacked = (kinds & 1 != 0).then(|| side(experts));
    let format = index.format(&quant, "x", stacked, side(rows), cols)?;
    let stored: usize = index.iter().map(|t| t.range.len()).sum();
    let expected = format.matrix_bytes(stacked.unwrap_or(1) * side(rows), cols);
    assert_eq!(stored, expected, "{format} must account for every byte");
    Ok(())
}
