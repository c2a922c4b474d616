//! The order of packed bytes is written down: changing it takes another version.

use amoeba_checkpoint::{Float, Format, Matrix};
use amoeba_kernels::linear::{Layout, PACKING, Packed};

/// Packed bytes are kept in files between loads: those of version [`PACKING`] are these for ever.
#[test]
fn the_order_of_packed_bytes_has_a_version() {
    let affine = |bits, group| Format::Affine { bits, group, scale: Float::BF16 };
    let affines =
        [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| [32, 64, 128].map(|group| affine(bits, group)));
    let others =
        [Format::Mxfp4, Format::Mxfp8, Format::Nvfp4, Format::Dense(Float::BF16), Format::Dense(Float::F32)];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
    for format in affines.chain(others) {
        let (rows, cols) = (40, 384);
        let scales =
            if format.is_quantised() { rows * cols / format.group() * format.scale_bytes() } else { 0 };
        let bytes = |len: usize, seed: u32| -> Vec<u8> {
            (0..len as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
        };
        let stored = [rows * format.row_bytes(cols), scales, if format.has_biases() { scales } else { 0 }];
        let [weight, scales, biases] = [0, 1, 2].map(|part| bytes(stored[part], part as u32 + 1));
        let (weight, scales, biases) = (&weight[..], &scales[..], &biases[..]);
        let matrix = Matrix { rows, cols, format, weight, scales, biases };
        let packed = Packed::new(Layout::sliced(rows, cols, format, 3), &[matrix, matrix]);
        for byte in packed.data() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!(
        (PACKING, hash),
        (1, 3_388_647_438_507_360_413),
        "packed bytes changed: raise PACKING and record them here"
    );
}
