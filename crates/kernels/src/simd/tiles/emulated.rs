//! [`Tiles`] in plain Rust: Intel's pseudo-code of each instruction, and the same program over it.

use super::*;

/// One tile register.
#[derive(Clone, Copy)]
struct Register {
    rows: usize,
    /// Bytes of a row.
    colsb: usize,
    data: [[u8; TILE_BYTES]; TILE_ROWS],
}

/// The tile unit of one thread.
pub struct Emulated {
    registers: [Register; 8],
}

impl Emulated {
    /// LDTILECFG of what the kernels configure for factors of `cols` columns.
    pub fn set_up(cols: usize) -> Emulated {
        Emulated::ldtilecfg(&configuration(cols))
    }

    fn ldtilecfg(mem: &[u8; 64]) -> Emulated {
        assert_eq!(mem[0], 1, "palette");
        assert_eq!(mem[1], 0, "start_row");
        assert!(mem[2..16].iter().chain(&mem[32..48]).chain(&mem[56..]).all(|&b| b == 0), "reserved bytes");
        let registers = std::array::from_fn(|i| {
            let colsb = usize::from(u16::from_le_bytes([mem[16 + 2 * i], mem[17 + 2 * i]]));
            let rows = usize::from(mem[48 + i]);
            assert!(colsb <= TILE_BYTES && rows <= TILE_ROWS, "palette 1");
            assert_eq!(colsb == 0, rows == 0, "a register has both or none");
            Register { rows, colsb, data: [[0; TILE_BYTES]; TILE_ROWS] }
        });
        Emulated { registers }
    }

    /// Rows one after another; what lies outside the shape becomes zero.
    fn tileloadd(&mut self, tmm: usize, mem: &[u8], stride: usize) {
        let register = &mut self.registers[tmm];
        register.data = [[0; TILE_BYTES]; TILE_ROWS];
        for (row, data) in register.data.iter_mut().enumerate().take(register.rows) {
            data[..register.colsb].copy_from_slice(&mem[row * stride..][..register.colsb]);
        }
    }

    fn tilestored(&self, mem: &mut [u8], stride: usize, tmm: usize) {
        let register = &self.registers[tmm];
        for (row, data) in register.data.iter().enumerate().take(register.rows) {
            mem[row * stride..][..register.colsb].copy_from_slice(&data[..register.colsb]);
        }
    }

    fn tilezero(&mut self, tmm: usize) {
        assert!(self.registers[tmm].rows > 0, "not configured");
        self.registers[tmm].data = [[0; TILE_BYTES]; TILE_ROWS];
    }

    /// `dest += src1 · src2`, src1 signed and src2 unsigned, four bytes to a sum.
    fn tdpbsud(&mut self, dest: usize, src1: usize, src2: usize) {
        assert!(dest != src1 && dest != src2 && src1 != src2, "#UD: the same register twice");
        let (a, b) = (self.registers[src1], self.registers[src2]);
        let c = &mut self.registers[dest];
        assert!(c.rows == a.rows && c.colsb == b.colsb && a.colsb == 4 * b.rows, "#UD: shapes");
        for m in 0..c.rows {
            for k in 0..a.colsb / 4 {
                for n in 0..c.colsb / 4 {
                    let c = &mut c.data[m].as_chunks_mut::<4>().0[n];
                    let product = |i| i32::from(a.data[m][4 * k + i] as i8) * i32::from(b.data[k][4 * n + i]);
                    let sum = product(0) + product(1) + product(2) + product(3);
                    *c = i32::from_le_bytes(*c).wrapping_add(sum).to_le_bytes();
                }
            }
        }
        c.data[c.rows..].fill([0; TILE_BYTES]);
    }
}

impl Tiles for Emulated {
    // Inlined into every kernel it would be most of what the tests compile.
    #[inline(never)]
    fn products<const H: usize, const D: usize>(
        &mut self,
        a: &[[Tile; D]; H],
        b: &[Tile; H],
        sums: &mut [Sums; D],
    ) {
        for register in 0..D {
            self.tilezero(register);
        }
        for (a, b) in a.iter().zip(b) {
            self.tileloadd(3, b.0.as_flattened(), TILE_BYTES);
            for (factor, a) in a.iter().enumerate() {
                self.tileloadd(4 + factor, a.0.as_flattened(), TILE_BYTES);
                self.tdpbsud(factor, 4 + factor, 3);
            }
        }
        for (register, sums) in sums.iter_mut().enumerate() {
            let mut bytes = [0; TILE_BYTES * TILE_ROWS];
            self.tilestored(&mut bytes, TILE_BYTES, register);
            for (sum, bytes) in sums.0.as_flattened_mut().iter_mut().zip(bytes.as_chunks().0) {
                *sum = i32::from_le_bytes(*bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn tile(rng: &mut Rng) -> Tile {
        let mut tile = Tile::ZERO;
        for byte in tile.0.as_flattened_mut() {
            *byte = match rng.below(4) {
                0 => [0x80, 0x7f, 0xff, 0][rng.below(4)],
                _ => rng.next_u64() as u8,
            };
        }
        tile
    }

    fn check<const H: usize, const D: usize>(tiles: &mut impl Tiles, cols: usize, rng: &mut Rng) {
        let a: [[Tile; D]; H] = std::array::from_fn(|_| std::array::from_fn(|_| tile(rng)));
        let b: [Tile; H] = std::array::from_fn(|_| tile(rng));
        // What was there before must not matter.
        let mut sums = [Sums([[-1; LANES]; TILE_ROWS]); D];
        tiles.products(&a, &b, &mut sums);
        for (f, sums) in sums.iter().enumerate() {
            for (i, sums) in sums.0.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let product = |h: usize, k: usize| {
                        i32::from(a[h][f].0[i][k] as i8) * i32::from(b[h].0[k / 4][4 * j + k % 4])
                    };
                    let expected: i32 = (0..H).flat_map(|h| (0..cols).map(move |k| product(h, k))).sum();
                    assert_eq!(sum, expected, "{cols} columns, {H} halves: factor {f}, [{i}, {j}]");
                }
            }
        }
    }

    fn check_all<T: Tiles>(set_up: impl Fn(usize) -> T) {
        let mut rng = Rng(7);
        for cols in [16, 32, 64] {
            let mut tiles = set_up(cols);
            for _ in 0..50 {
                check::<1, 1>(&mut tiles, cols, &mut rng);
                check::<2, 1>(&mut tiles, cols, &mut rng);
                check::<1, 2>(&mut tiles, cols, &mut rng);
                check::<2, 2>(&mut tiles, cols, &mut rng);
                check::<1, 3>(&mut tiles, cols, &mut rng);
                check::<2, 3>(&mut tiles, cols, &mut rng);
            }
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        check_all(Emulated::set_up);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn products_of_the_processor_are_those_of_the_definition() {
        let Some(amx) = Amx::detect() else { return println!("amx: not on this machine") };
        // Threads get their own tile state from the system.
        for thread in [0, 1].map(|_| std::thread::spawn(move || check_all(|cols| amx.set_up(cols)))) {
            thread.join().unwrap();
        }
    }
}
