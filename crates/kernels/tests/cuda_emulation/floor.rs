//! What measures the device does what it says: all bytes read, no barrier passed before the last block is
//! there.

use amoeba_kernels::cuda::floor;

use crate::memory::Memory;
use crate::module;

#[test]
fn no_block_passes_a_barrier_alone() {
    if !module::available() {
        return;
    }
    for (blocks, barriers, seed) in [(1, 3, 0), (2, 20, 0), (5, 20, 1), (16, 7, 2)] {
        let (mut arrived, passed) = (Memory::new(4), Memory::new(8 * blocks));
        arrived.bytes_mut().fill(0);
        module::launch(&floor::barriers(barriers, arrived.address(), passed.address(), blocks as u32), seed);
        let words: Vec<u32> =
            passed.bytes().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        assert!(
            words[..2 * blocks].iter().all(|word| *word == barriers as u32),
            "{blocks} blocks: {words:?}"
        );
    }
}
