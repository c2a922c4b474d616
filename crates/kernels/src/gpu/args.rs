//! The parameter of a kernel, built field by field as C lays out a struct.

/// Bytes of a kernel's parameter struct, in whole eight-byte words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    words: Vec<u64>,
    len: usize,
}

impl Args {
    /// None yet.
    pub fn new() -> Args {
        Args::default()
    }

    fn put(mut self, bytes: &[u8]) -> Args {
        self.len = self.len.next_multiple_of(bytes.len());
        self.words.resize((self.len + bytes.len()).div_ceil(8), 0);
        for (i, byte) in bytes.iter().enumerate() {
            let at = self.len + i;
            self.words[at / 8] |= u64::from(*byte) << (8 * (at % 8));
        }
        self.len += bytes.len();
        self
    }

    /// An address.
    #[must_use]
    pub fn address(self, address: u64) -> Args {
        self.put(&address.to_le_bytes())
    }

    /// A size or an index.
    ///
    /// # Panics
    /// It does not fit 32 bits.
    #[must_use]
    pub fn size(self, size: usize) -> Args {
        self.put(&u32::try_from(size).expect("sizes of one op fit 32 bits").to_le_bytes())
    }

    /// A number.
    #[must_use]
    pub fn float(self, x: f32) -> Args {
        self.put(&x.to_le_bytes())
    }

    /// A buffer: its address, and its stride in 64 bits.
    #[must_use]
    pub fn place(self, place: super::Place) -> Args {
        self.address(place.address).address(place.stride as u64)
    }

    /// The struct, padded to whole words.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Its size in bytes, padding at the end included.
    pub fn len(&self) -> usize {
        self.words.len() * 8
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_as_in_c() {
        let args = Args::new().size(1).address(2).float(1.0).size(3).size(4);
        assert_eq!(args.words(), [1, 2, 0x3_3f80_0000, 4]);
        assert_eq!(args.len(), 32);
    }
}
