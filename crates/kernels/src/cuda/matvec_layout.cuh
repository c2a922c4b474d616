// Products of stored matrices with a few rows of x, on tensor cores: how they are cut up, and what lies where
// in shared memory. matvec_x.cuh brings x there, matvec.cuh multiplies. `cuda/shape.rs` chooses the numbers.
//
// A tile is sixteen outputs. A thread block takes some tiles at a time, all of K at once; its warps share K
// among them in blocks of K. In a block of K the lanes of a warp read the codes of two of the sixteen outputs
// each, straight from memory into registers in the order in which mma.sync wants them (any order of K will
// do, as long as x lies in the same). Codes are exact in f16, without arithmetic (`small_pair`). x is split
// into three f16, a group brought near 2^14 by a power of two before; with dense weights into three bf16,
// whose range f16 has not. Those parts are columns of the product; so are the groups that share a block of K:
// a column holds x for one group and zeros elsewhere. Sums are f32; scales and biases meet them group by
// group. Every sum has one order, which depends on the shape alone.

// Sixteen outputs of a matrix of `rows`, from `row0` on.
struct WeightTile {
  Matrix matrix;
  int row0, rows;
};

// What a Shape may leave out. It must have:
//   Weights     their Format
//   COLS        inputs of one matrix
//   ROWS        of x
//   LANE_COLS   columns of a row of weights that a lane reads at a time
//   WARPS       of a thread block
//   IN_FLIGHT   blocks of K whose codes a warp has under way at a time
//   SLOTS       tiles that a thread block takes at a time: a round
//   ONE_ROUND   whether one round covers all tiles
//   FULL        whether every tile has all its sixteen outputs
struct MatvecDefaults {
  static constexpr int JOIN = 1;          // tiles whose totals belong together: of gate and up
  static constexpr int REPEATS = 1;       // matrices side by side, each with inputs of its own, added up
  static constexpr bool WEIGHTED = false; // whether each of those has a factor
};

template <class Shape> struct MatvecLayout {
  typedef typename Shape::Weights F;
  static constexpr int C = Shape::LANE_COLS, COLS = Shape::COLS, ROWS = Shape::ROWS, WARPS = Shape::WARPS;
  static constexpr int SLOTS = Shape::SLOTS, REPEATS = Shape::REPEATS;
  static constexpr int THREADS = 32 * WARPS;

  // K, in blocks that four lanes read together: of one matrix, of all; steps of a warp over its own.
  static constexpr int BLOCK = 4 * C;
  static constexpr int BLOCKS_EACH = (COLS + BLOCK - 1) / BLOCK;
  static constexpr int BLOCKS = BLOCKS_EACH * REPEATS;
  static constexpr int STEPS = (BLOCKS + WARPS * Shape::IN_FLIGHT - 1) / (WARPS * Shape::IN_FLIGHT);
  static constexpr bool WHOLE = BLOCKS % (WARPS * Shape::IN_FLIGHT) == 0; // all warps do equally many

  // Groups of columns with a scale. A lane's columns are in segments of one group each.
  static constexpr int GROUP = F::QUANTISED ? F::GROUP : BLOCK;
  static constexpr int GROUPS = COLS / GROUP;
  static constexpr int SEGMENT = min_of(C, GROUP), SEGMENTS = C / SEGMENT;
  static constexpr int SPAN = max_of(C, GROUP);           // columns from a group of a segment to the next
  static constexpr int SHARING = max_of(1, BLOCK / SPAN); // groups that a segment of all four lanes meets
  static constexpr bool SCALED =
      F::QUANTISED || Shape::WEIGHTED || ROWS == 1; // sums leave mma for each block

  // Columns of the product: three parts of each row, filled up to pairs, for each group that shares a block.
  static constexpr int PARTS = 3 * ROWS, PADDED_PARTS = (PARTS + 1) / 2 * 2;
  static constexpr int TILES = (SHARING * PADDED_PARTS + 7) / 8; // of eight columns: one mma each
  static constexpr int KEPT = ROWS == 1 ? 1 : TILES; // tiles of sums: of one row, columns are one sum
  static constexpr int EACH = ROWS == 1 ? 2 : 4;     // sums of a lane in one

  // Codes: words of a lane, bytes of a row, bytes of a load.
  static constexpr int WORDS = C * F::BITS / 32;
  static constexpr int ROW_BYTES = COLS * F::BITS / 8;
  static constexpr int LOAD_BYTES = ROW_BYTES % 16 == 0 && WORDS % 4 == 0  ? 16
                                    : ROW_BYTES % 8 == 0 && WORDS % 2 == 0 ? 8
                                                                           : 4;

  // x: a thread takes a unit of columns of a row at a time; units of one matrix, of a row; turns of the
  // thread block for a row and for all; turns whose x is in registers at a time.
  static constexpr int UNIT = min_of(C, F::TWOS ? 16 : 8);
  static constexpr int UNITS_EACH = BLOCKS_EACH * BLOCK / UNIT;
  static constexpr int UNITS = UNITS_EACH * REPEATS;
  static constexpr int TURNS = (UNITS + THREADS - 1) / THREADS;
  static constexpr int ALL_TURNS = ROWS * TURNS;
  static constexpr int HELD = min_of(ALL_TURNS, 32 / UNIT);

  // Shared memory, in this order. x by blocks of K and one of zeros; of each group and part a sum (if there
  // are biases) and a power of two; scales; sums of the warps.
  static constexpr int BLOCK_BYTES = C * PARTS * 8;
  static constexpr int PART_BYTES = UNIT == 4 ? 32 : 64; // of a unit, from a part to the next
  static constexpr int X_BYTES = (BLOCKS + 1) * BLOCK_BYTES;
  static constexpr int NUMBERS = F::QUANTISED ? BLOCKS * BLOCK / GROUP * PADDED_PARTS : 0;
  static constexpr int POWER_BYTES = (NUMBERS * 4 + 15) / 16 * 16;
  static constexpr int SUM_BYTES = F::BIASED ? POWER_BYTES : 0;
  static constexpr int SUMS_AT = X_BYTES, POWERS_AT = SUMS_AT + SUM_BYTES;

  // Scales of a tile, and then its biases, lie together in memory, too far apart for lanes to read one by
  // one: they come by copies, in rows so far apart that eight of them are in different banks. Of the tiles of
  // a round, and of the next.
  static constexpr bool SCALES_COPIED = F::QUANTISED && Shape::FULL;
  static constexpr int SCALE_KINDS = F::BIASED ? 2 : 1;
  static constexpr int SCALE_ROW = SCALES_COPIED ? GROUPS * F::SCALE_BYTES : 0;
  static constexpr int PADDED_ROW = SCALE_ROW % 32 ? SCALE_ROW : SCALE_ROW + 16;
  static constexpr int SCALE_TILE = SCALES_COPIED ? 16 * PADDED_ROW : 0;
  static constexpr int SCALE_ROUND = SLOTS * REPEATS * SCALE_KINDS * SCALE_TILE;
  static constexpr int SCALES_AT = POWERS_AT + POWER_BYTES;

  static constexpr int WIDTH = ROWS == 1 ? 1 : TILES * 8; // sums of an output and warp
  static constexpr int REDUCE_AT = SCALES_AT + (Shape::ONE_ROUND ? 1 : 2) * SCALE_ROUND;
  static constexpr int REDUCE_BYTES = 2 * WARPS * 16 * SLOTS * WIDTH * 4;
  static constexpr int SHARED_BYTES = REDUCE_AT + REDUCE_BYTES;

  static_assert(C % 4 == 0 && COLS % UNIT == 0 && UNIT <= GROUP && (C * F::BITS) % 32 == 0, "shape");
  static_assert(SLOTS % Shape::JOIN == 0, "joined tiles are in one round");
};
