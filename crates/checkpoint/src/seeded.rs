//! Weights from a seed: `model.seeded.json` in place of weight files, for tests and benchmarks.
//!
//! Every stored number follows from (seed, tensor name, index) by integers alone. `fixtures/seeded.py` is the
//! same in Python, so that mlx-lm computes with the same bytes.

use std::path::Path;

use half::{bf16, f16};
use serde::Deserialize;

use crate::error::shown;
use crate::header::tensor_at;
use crate::small::read_small;
use crate::{DType, Error, Float, Format};

/// The recipe of a folder without weight files.
pub(crate) const RECIPE: &str = "model.seeded.json";
/// Longest recipe.
const RECIPE_MAX: usize = 4 << 20;
/// Most bytes of weights: they are held in memory, twice while they are made.
const BYTES_MAX: usize = 32 << 20;
/// Largest integer a number is made of: bf16 holds all up to 256, and a bias may be 2 larger than a scale.
const WHOLE_MAX: i32 = 250;
/// Exponents: f16 holds the integers times these powers of two.
const EXPONENTS: std::ops::RangeInclusive<i32> = -24..=0;
/// Without the top bit of the exponent no E4M3 code is a NaN.
const E4M3_MASK: u64 = 0xbfbf_bfbf_bfbf_bfbf;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    seed: u64,
    tensors: Vec<Entry>,
}

/// A float tensor, or a matrix with scales: integers in `from..=to` times 2^`exp`, the sign random if
/// `signs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Of the tensor, or of the matrix without `.weight`.
    name: String,
    /// Of the numbers, not the codes.
    shape: Vec<usize>,
    /// Of the numbers, or of the scales.
    #[serde(default = "bf16_name")]
    dtype: String,
    /// `q4g64`, `mxfp4` and so on.
    format: Option<String>,
    from: i32,
    to: i32,
    #[serde(default)]
    exp: i32,
    #[serde(default)]
    signs: bool,
}

fn bf16_name() -> String {
    "BF16".to_owned()
}

/// A safetensors file in memory, if the folder has a recipe.
pub(crate) fn image(dir: &Path) -> Result<Option<Vec<u8>>, Error> {
    read_small(&dir.join(RECIPE), RECIPE_MAX)?.map(|text| make(&text)).transpose()
}

/// The file of a recipe.
pub(crate) fn make(text: &[u8]) -> Result<Vec<u8>, Error> {
    let Recipe { seed, tensors } = serde_json::from_slice(text)
        .map_err(|e| Error::config(RECIPE, format!("is not a recipe: {}", shown(&e.to_string()))))?;
    let mut file = Image { seed, fields: vec![], data: vec![] };
    for entry in &tensors {
        file.add(entry).map_err(|what| Error::config(tensor_at(RECIPE, &entry.name), what))?;
    }
    let header = format!("{{{}}}", file.fields.join(","));
    Ok([&(header.len() as u64).to_le_bytes(), header.as_bytes(), &file.data].concat())
}

/// A safetensors file that grows.
struct Image {
    seed: u64,
    fields: Vec<String>,
    data: Vec<u8>,
}

impl Image {
    fn add(&mut self, entry: &Entry) -> Result<(), String> {
        let Entry { name, shape, from, to, exp, .. } = entry;
        let dtype = DType::from_name(&entry.dtype).unwrap_or(DType::Bool);
        let bounds = if dtype == DType::U8 { 0..=255 } else { -WHOLE_MAX..=WHOLE_MAX };
        if from > to || !bounds.contains(from) || !bounds.contains(to) || !EXPONENTS.contains(exp) {
            return Err(format!(
                "has numbers {from} to {to} times 2^{exp}, expected {bounds:?}, {EXPONENTS:?}"
            ));
        }
        let count = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim));
        let room = BYTES_MAX.saturating_sub(self.data.len()) / 4;
        let fits = |&count: &usize| count <= room && shape.iter().all(|&dim| dim <= BYTES_MAX);
        let Some(count) = count.filter(fits) else {
            return Err(format!("has the shape {shape:?}; all weights together may have {BYTES_MAX} bytes"));
        };
        let at = |suffix: &str| format!("{name}.{suffix}");
        let Some(format) = &entry.format else {
            let float = dtype.float().ok_or("has a dtype that is not F32, F16 or BF16")?;
            self.numbers(
                name,
                shape,
                float,
                (0..count as u64).map(self.whole(name, entry, entry.signs)),
                *exp,
            );
            return Ok(());
        };
        let format = form(format, dtype).ok_or("has a format or dtype that does not exist")?;
        let Some((&cols, rows)) = shape.split_last().filter(|(cols, _)| **cols % format.group().max(32) == 0)
        else {
            return Err(format!("has the shape {shape:?}, which groups of {} do not fill", format.group()));
        };
        let last = |n: usize| [rows, &[n]].concat();
        let mask = if format == Format::Mxfp8 { E4M3_MASK } else { u64::MAX };
        let codes = draws(self.seed, &at("weight"));
        let bytes = count / 8 * format.bits();
        let words = (0..bytes.div_ceil(8) as u64).flat_map(|i| (codes(i) & mask).to_le_bytes()).take(bytes);
        self.push(&at("weight"), DType::U32, &last(format.row_bytes(cols) / 4), words.collect());
        let (groups, shape) = (0..(count / format.group()) as u64, last(cols / format.group()));
        let scale = self.whole(&at("scales"), entry, format.has_biases());
        let Format::Affine { bits, scale: float, .. } = format else {
            self.push(&at("scales"), DType::U8, &shape, groups.map(|i| scale(i) as u8).collect());
            return Ok(());
        };
        // The middle of the codes becomes about zero; not quite, or biases would follow from scales.
        let jitter = draws(self.seed, &at("biases"));
        let bias = |i| -(scale(i) + within(jitter(i), -2, 2));
        self.numbers(&at("scales"), &shape, float, groups.clone().map(&scale), *exp);
        self.numbers(&at("biases"), &shape, float, groups.map(bias), exp + i32::from(bits) - 1);
        Ok(())
    }

    /// The integers of a tensor by index.
    fn whole(&self, name: &str, entry: &Entry, signs: bool) -> impl Fn(u64) -> i32 + use<> {
        let (draw, from, to) = (draws(self.seed, name), entry.from, entry.to);
        move |i| {
            let random = draw(i);
            let value = within(random, from, to);
            if signs && random & 1 == 1 { -value } else { value }
        }
    }

    /// Adds integers times 2^`exp`, which the type holds exactly.
    fn numbers(
        &mut self,
        name: &str,
        shape: &[usize],
        float: Float,
        values: impl Iterator<Item = i32>,
        exp: i32,
    ) {
        let values = values.map(|value| value as f32 * 2.0_f32.powi(exp));
        let (dtype, bytes) = match float {
            Float::F32 => (DType::F32, values.flat_map(f32::to_le_bytes).collect()),
            Float::F16 => (DType::F16, values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect()),
            Float::BF16 => (DType::BF16, values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect()),
        };
        self.push(name, dtype, shape, bytes);
    }

    fn push(&mut self, name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) {
        let (name, start) = (serde_json::Value::from(name), self.data.len());
        self.data.extend(bytes);
        let end = self.data.len();
        self.fields.push(format!(
            "{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        ));
    }
}

/// A format by its name and the type of its scales.
fn form(name: &str, dtype: DType) -> Option<Format> {
    let format = match (name, dtype) {
        ("mxfp4", DType::U8) => return Some(Format::Mxfp4),
        ("mxfp8", DType::U8) => return Some(Format::Mxfp8),
        ("nvfp4", DType::U8) => return Some(Format::Nvfp4),
        _ => name.strip_prefix('q')?.split_once('g')?,
    };
    let (bits, group) = (format.0.parse().ok()?, format.1.parse().ok()?);
    let known = matches!(bits, 2..=6 | 8) && matches!(group, 32 | 64 | 128);
    known.then_some(Format::Affine { bits, group, scale: dtype.float()? })
}

/// An integer in `from..=to` from the upper half of a random number.
fn within(random: u64, from: i32, to: i32) -> i32 {
    from + (((random >> 32) * (to - from + 1) as u64) >> 32) as i32
}

/// The random numbers of a tensor by index.
fn draws(seed: u64, name: &str) -> impl Fn(u64) -> u64 + use<> {
    let start = fnv(name.as_bytes()) ^ splitmix64(seed);
    move |i| splitmix64(start.wrapping_add(i))
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Number `n` of SplitMix64 (Steele, Lea, Flood 2014) with seed 0.
pub fn splitmix64(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers stand in `self_check` of `fixtures/seeded.py`.
    #[test]
    fn numbers_are_those_of_the_script() {
        assert_eq!((splitmix64(0), fnv(b"a")), (0xe220_a839_7b1d_cdaf, 0xaf63_dc4c_8601_ec8c));
        let recipe = br#"{"seed": 7, "tensors": [
            {"name": "m", "shape": [2, 64], "format": "q4g32", "from": 70, "to": 120, "exp": -9},
            {"name": "n", "dtype": "F32", "shape": [3], "from": 100, "to": 150, "exp": -7, "signs": true}]}"#;
        let file = make(recipe).unwrap();
        let entries = crate::header::parse(RECIPE, &file, 0).unwrap();
        let first = |name: &str| {
            let (_, entry) = entries.iter().find(|(found, _)| &**found == name).unwrap();
            u32::from_be_bytes(*file[entry.range.clone()].first_chunk::<4>().unwrap())
        };
        let found = ["m.weight", "m.scales", "m.biases", "n"].map(first);
        assert_eq!(found, [0x0e60_9116, 0x343e_6e3e, 0xb0bf_eabf, 0x0000_7a3f]);
    }

    #[test]
    fn recipes_out_of_bounds_are_refused() {
        let entry = |change: &str| {
            let text = format!(r#"{{"seed": 1, "tensors": [{{"name": "m", "shape": [2, 64], {change}}}]}}"#);
            make(text.as_bytes()).map(|_| ()).map_err(|error| error.to_string())
        };
        entry(r#""from": 1, "to": 2, "format": "q4g32""#).unwrap();
        for (change, part) in [
            (r#""from": 1, "to": 2, "format": "q7g32""#, "does not exist"),
            (r#""from": 1, "to": 2, "format": "mxfp4""#, "does not exist"),
            (r#""from": 1, "to": 2, "format": "q4g128""#, "groups of 128"),
            (r#""from": 1, "to": 2, "dtype": "I64""#, "not F32, F16 or BF16"),
            (r#""from": 3, "to": 2"#, "numbers 3 to 2"),
            (r#""from": 1, "to": 2000000000"#, "numbers 1 to"),
            (r#""from": 1, "to": 2, "exp": -200"#, "2^-200"),
            (r#""from": 1, "to": 2, "what": 3"#, "unknown field"),
        ] {
            let message = entry(change).unwrap_err();
            assert!(message.contains(part) && message.contains(RECIPE), "{change}: {message}");
        }
        for shape in ["[64, 18446744073709551615]", "[1048576, 1024]", "[0, 9223372036854775808]"] {
            let text = format!(
                r#"{{"seed": 1, "tensors": [{{"name": "m", "shape": {shape}, "from": 1, "to": 2}}]}}"#
            );
            assert!(make(text.as_bytes()).unwrap_err().to_string().contains("bytes"));
        }
    }
}
