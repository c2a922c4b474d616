//! Device memory: pages of their own for every allocation, ending at a page that cannot be read.

use std::ptr;

use crate::device;

const PAGE: usize = 4096;
/// What kernels may assume of an address; a device gives more.
const ALIGN: usize = 16;

/// Bytes at a fixed address, `0xff` (NaN) at first.
pub struct Memory {
    pages: *mut libc::c_void,
    /// 0 for memory of a device.
    mapped: usize,
    start: usize,
    len: usize,
}

impl Memory {
    /// So many bytes, up to the guard page but for alignment.
    pub fn new(len: usize) -> Memory {
        let room = len.next_multiple_of(ALIGN).max(ALIGN);
        if let Some(pages) = device::allocate(room) {
            let mut memory = Memory { pages, mapped: 0, start: 0, len: room };
            memory.bytes_mut().fill(0xff);
            return memory;
        }
        let mapped = room.next_multiple_of(PAGE) + PAGE;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping, nothing of which is in use.
        let pages = unsafe { libc::mmap(ptr::null_mut(), mapped, access, kind, -1, 0) };
        assert_ne!(pages, libc::MAP_FAILED, "{mapped} bytes");
        // SAFETY: the last page of the mapping just made.
        let guarded = unsafe { libc::mprotect(pages.byte_add(mapped - PAGE), PAGE, libc::PROT_NONE) };
        assert_eq!(guarded, 0, "guard page");
        let mut memory = Memory { pages, mapped, start: mapped - PAGE - room, len: room };
        memory.bytes_mut().fill(0xff);
        memory
    }

    /// What kernels are given.
    pub fn address(&self) -> u64 {
        self.pages as u64 + self.start as u64
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start + len` lies before the guard page of a mapping, or in an allocation, that
        // lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pages.cast::<u8>().add(self.start), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably; launches borrow the bench mutably, too.
        unsafe { std::slice::from_raw_parts_mut(self.pages.cast::<u8>().add(self.start), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mapped == 0 {
            return device::free(self.pages);
        }
        // SAFETY: the mapping made in `new`, of that length.
        unsafe { libc::munmap(self.pages, self.mapped) };
    }
}
