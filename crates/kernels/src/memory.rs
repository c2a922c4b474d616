//! Anonymous memory for weights, aligned to cache lines; large ones on huge pages where the system grants
//! them.

/// Zeroed bytes whose first one lies on a cache line (on a huge page, if there is at least one huge page of
/// them).
pub struct Bytes {
    data: Vec<u8>,
    start: usize,
    len: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

impl Bytes {
    /// `len` zero bytes. Large sizes are mapped lazily by the allocator, so this costs nothing until written.
    pub fn zeroed(len: usize) -> Bytes {
        let align = if len >= HUGE { HUGE } else { LINE };
        let data = vec![0; len + align];
        let start = data.as_ptr().align_offset(align);
        let bytes = Bytes { data, start, len };
        if align == HUGE {
            bytes.ask_for_huge_pages();
        }
        bytes
    }

    /// Fewer address translations (`bench/peers/bw.c` measures what plain reads gain). A refusal changes only
    /// speed.
    fn ask_for_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        {
            let pages = self.as_slice();
            // SAFETY: the range is a live allocation of ours, its start is page-aligned, and the advice does
            // not change its contents.
            let _ =
                unsafe { libc::madvise(pages.as_ptr().cast_mut().cast(), pages.len(), libc::MADV_HUGEPAGE) };
        }
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
