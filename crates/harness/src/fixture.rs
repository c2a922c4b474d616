//! Folders with expected results: a checkpoint with `expected.json` and `expected.safetensors`.

use std::path::Path;

use amoeba_checkpoint::{Checkpoint, Config, DType};

use crate::Error;

/// What a model is expected to compute.
pub struct Fixture {
    /// Name in `expected.json`.
    pub name: String,
    /// Prompt tokens.
    pub prompt: Vec<u32>,
    /// Greedy continuation.
    pub greedy: Vec<u32>,
    /// Index into the continuation whose decode call the block tensors describe.
    pub block_step: usize,
    /// The expected tensors.
    pub tensors: Checkpoint,
}

const TOKEN: std::ops::RangeInclusive<usize> = 0..=u32::MAX as usize;

impl Fixture {
    /// Reads the expectations of a folder.
    ///
    /// # Errors
    /// Files missing or not of that layout.
    pub fn open(dir: &Path) -> Result<Fixture, Error> {
        let expected = Config::read(dir, "expected.json")?.ok_or_else(|| Error::NoFixture(dir.to_owned()))?;
        let prompt = expected.object("prompt")?;
        let ids = match &prompt {
            Some(prompt) => prompt.usizes("ids", TOKEN)?,
            None => None,
        };
        let tokens = |ids: Option<Vec<usize>>, key: &str| match ids {
            Some(ids) if !ids.is_empty() => Ok(ids.into_iter().map(|id| id as u32).collect()),
            _ => Err(Error::Checkpoint(expected.invalid(key, "a list of token ids is missing"))),
        };
        let block = expected.object("block_step")?;
        Ok(Fixture {
            name: expected.str("name")?.unwrap_or("unnamed").to_owned(),
            prompt: tokens(ids, "prompt.ids")?,
            greedy: tokens(expected.usizes("greedy_tokens", TOKEN)?, "greedy_tokens")?,
            block_step: block.map_or(Ok(5), |block| block.usize_or("decode_input_index", 5, 0..=1 << 20))?,
            tensors: Checkpoint::open_file(dir, "expected.safetensors")?,
        })
    }

    /// A tensor of `len` floats, if the fixture has it: stored as it is, or rounded to 20 bits a number. Then
    /// `name.high` holds the upper 16 bits of every integer, `name.low` the lower four, two to a byte, and
    /// `name.step` what a row's integers are multiplied with.
    ///
    /// # Errors
    /// It exists with another size or type.
    pub fn floats(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        let at = |part: &str| format!("{name}.{part}");
        if self.tensors.has(name) {
            return Ok(Some(self.tensors.vector(name, len)?));
        }
        if !self.tensors.has(&at("high")) {
            return Ok(None);
        }
        let (high, low) = (self.tensors.tensor(&at("high"))?, self.tensors.tensor(&at("low"))?);
        let rows = high.shape.first().copied().unwrap_or(0);
        let steps = self.tensors.vector(&at("step"), rows)?;
        let whole = (high.dtype, low.dtype) == (DType::I16, DType::U8)
            && (high.bytes.len(), low.bytes.len()) == (2 * len, len.div_ceil(2));
        if !whole || rows == 0 || !len.is_multiple_of(rows) {
            let what = format!(
                "expected.safetensors: {name}: {:?}, expected {len} numbers in I16 and U8",
                high.shape
            );
            return Err(Error::Record(what));
        }
        let value = |i: usize, high: i16| {
            let low = low.bytes[i / 2] >> (4 * (i % 2)) & 15;
            (i32::from(high) * 16 + i32::from(low)) as f32 * steps[i / (len / rows)]
        };
        let high = high.bytes.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes));
        Ok(Some(high.enumerate().map(|(i, high)| value(i, high)).collect()))
    }
}
