//! Anonymous memory for weights, aligned to cache lines.

/// Zeroed bytes whose first one lies on a cache line.
pub struct Bytes {
    data: Vec<u8>,
    start: usize,
    len: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl Bytes {
    /// `len` zero bytes. Large sizes are mapped lazily by the allocator, so this costs nothing until written.
    pub fn zeroed(len: usize) -> Bytes {
        let data = vec![0; len + LINE];
        let start = data.as_ptr().align_offset(LINE);
        Bytes { data, start, len }
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.data[self.start..self.start + self.len]
    }

    /// All bytes, writable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.start + self.len]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len)
    }
}
