// x of a product, from memory by way of registers to shared memory, where it lies as mma.sync wants B:
// [block of K][two mma][part][quarter of a warp's lanes], 16 bytes each, and after it the numbers of the
// groups.
template <class Shape> struct MatvecX {
  typedef MatvecLayout<Shape> L;
  typedef typename L::F F;
  static constexpr int UNIT = L::UNIT, TURNS = L::TURNS, ALL_TURNS = L::ALL_TURNS, HELD = L::HELD;
  static constexpr int ROWS = L::ROWS, C = L::C, BLOCK = L::BLOCK, BLOCK_BYTES = L::BLOCK_BYTES;
  static constexpr int PARTS = L::PARTS, PADDED_PARTS = L::PADDED_PARTS, GROUP = L::GROUP;

  struct Held {
    float v[HELD][UNIT];
  };

  u8* memory;

  // Row of x and unit of it that the thread has in a turn.
  static DEVICE int row_of(int turn) { return ROWS == 1 ? 0 : turn / TURNS; }
  static DEVICE int unit_of(int turn) { return (ROWS == 1 ? turn : turn % TURNS) * L::THREADS + threadIdx.x; }
  static DEVICE int col_of(int unit) { return (Shape::REPEATS == 1 ? unit : unit % L::UNITS_EACH) * UNIT; }
  static DEVICE bool in_row(int unit) { return unit < L::UNITS && col_of(unit) < L::COLS; }

  // Reads x of the first turns: `x(repeat, row)` is a row of f32, null past the last. Before the loads of
  // codes, which would hold it up: loads return in order.
  template <class Rows> static DEVICE void load(Held& held, Rows x, int first = 0) {
#pragma unroll
    for (int n = 0; n < HELD; n++) {
      int turn = first + n, unit = unit_of(turn);
      const float* from = turn < ALL_TURNS && in_row(unit) ? x(unit / L::UNITS_EACH, row_of(turn)) : nullptr;
#pragma unroll
      for (int i = 0; i < UNIT; i += 4) {
        float4 f = from ? read<float4>(from + col_of(unit) + i) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        held.v[n][i] = f.x, held.v[n][i + 1] = f.y, held.v[n][i + 2] = f.z, held.v[n][i + 3] = f.w;
      }
    }
  }

  // Writes it to shared memory, and reads and writes what is left. `adjust(turn, values)` may change a unit
  // of a row; all lanes of a warp call it for the same row.
  template <class Rows> DEVICE void store(Held& held, Rows x) const {
    store(held, x, [](int, float (&)[UNIT]) {});
  }
  template <class Rows, class Adjust> DEVICE void store(Held& held, Rows x, Adjust adjust) const {
    for (int i = threadIdx.x; i < BLOCK_BYTES / 16; i += L::THREADS)
      write(memory + L::BLOCKS * BLOCK_BYTES + 16 * i, uint4{0, 0, 0, 0});
    for (int first = 0; first < ALL_TURNS; first += HELD) {
      if (first) load(held, x, first);
#pragma unroll
      for (int n = 0; n < HELD; n++)
        if (ALL_TURNS % HELD == 0 || first + n < ALL_TURNS)
          adjust(first + n, held.v[n]), store_unit(first + n, held.v[n]);
    }
  }
  DEVICE void store_unit(int turn, const float (&v)[UNIT]) const {
    int unit = unit_of(turn), row = row_of(turn);
    float power = F::QUANTISED ? store_numbers(unit, row, v) : 1.0f;
    if (unit >= L::UNITS) return;
    u8* to = memory + unit_offset(unit, row);
#pragma unroll
    for (int m = 0; m < UNIT / 4; m += 2) {
      uint2 pairs[2][3];
#pragma unroll
      for (int half = 0; half < min_of(2, UNIT / 4); half++) {
        constexpr int STEP = 2;
        u32 p[2][3];
#pragma unroll
        for (int i = 0; i < STEP; i++) {
          int pair = STEP * (m + half) + i;
          float factor = F::QUANTISED ? power / (1 << F::lift(pair)) : 1.0f;
          split(v[F::low(pair)] * factor, v[F::high(pair)] * factor, p[i]);
        }
#pragma unroll
        for (int part = 0; part < 3; part++) pairs[half][part] = make_uint2(p[0][part], p[1][part]);
      }
#pragma unroll
      for (int part = 0; part < 3; part++) {
        u8* at = to + m / 2 * PARTS * 64 + part * L::PART_BYTES;
        if (UNIT == 4) write(at, pairs[0][part]);
        else write(at, make_uint4(pairs[0][part].x, pairs[0][part].y, pairs[1][part].x, pairs[1][part].y));
      }
    }
  }
  // Three parts of two numbers side by side.
  static DEVICE void split(float low, float high, u32 (&pair)[3]) {
#pragma unroll
    for (int part = 0; part < 3; part++) {
      if (F::QUANTISED) {
        pair[part] = pack_f16(low, high);
        low -= f16_to_f32((u16)pair[part]), high -= f16_to_f32((u16)(pair[part] >> 16));
      } else { // cutting off is exact, and three times eight bits are all there are
        pair[part] = upper_halves(__float_as_uint(low), __float_as_uint(high));
        low -= __uint_as_float(pair[part] << 16), high -= __uint_as_float(pair[part] & 0xffff0000u);
      }
    }
  }

  // Where the numbers of the group of a unit lie; the same for sums and powers.
  static DEVICE int number_at(int unit, int row) {
    return (unit / L::UNITS_EACH * (L::BLOCKS_EACH * BLOCK / GROUP) + col_of(unit) / GROUP) * PADDED_PARTS +
           row * 3;
  }
  // The sum of a group and what its sums of products are to be multiplied with, into shared memory; the power
  // of two that x is to be multiplied with.
  DEVICE float store_numbers(int unit, int row, const float (&v)[UNIT]) const {
    constexpr int PER_GROUP = GROUP / UNIT;
    float sum = 0.0f, most = 0.0f;
#pragma unroll
    for (int i = 0; i < UNIT; i++) sum += v[i], most = fmaxf(most, fabsf(v[i]));
#pragma unroll
    for (int o = 1; o < PER_GROUP; o *= 2) {
      if (F::BIASED) sum += __shfl_xor_sync(ALL, sum, o);
      most = fmaxf(most, __shfl_xor_sync(ALL, most, o));
    }
    u32 exponent = max(__float_as_uint(most) >> 23, 15u);
    if (unit < L::UNITS && unit % PER_GROUP == 0) {
      int at = number_at(unit, row);
      float *sums = (float*)(memory + L::SUMS_AT), *powers = (float*)(memory + L::POWERS_AT);
      float back = __uint_as_float((exponent - 14) << 23) * (1 << F::DOWN);
#pragma unroll
      for (int part = 0; part < 3; part++) {
        if (F::BIASED) sums[at + part] = part ? 0.0f : sum;
        powers[at + part] = back;
      }
      if (PADDED_PARTS > PARTS && row == ROWS - 1) {
        if (F::BIASED) sums[at + 3] = 0.0f;
        powers[at + 3] = 0.0f;
      }
    }
    return __uint_as_float((268 - exponent) << 23);
  }

  static DEVICE int x_offset(int block, int mma, int at) {
    if (C % 8) return ((block * (C / 4) + mma) * PARTS * 4 + at) * 8;
    return ((block * (C / 8) + mma / 2) * PARTS * 4 + at) * 16 + mma % 2 * 8;
  }
  static DEVICE int unit_offset(int unit, int row) {
    int col = col_of(unit);
    int block = unit / L::UNITS_EACH * L::BLOCKS_EACH + col / BLOCK;
    return x_offset(block, col % C / 4, row * 12 + col % BLOCK / C);
  }

  // What the thread has stored of a unit: the parts add up to it.
  DEVICE void stored(int turn, float (&v)[UNIT]) const {
    int unit = unit_of(turn), row = row_of(turn);
    const u8* from = memory + unit_offset(unit, row);
    const float* powers = (const float*)(memory + L::POWERS_AT);
    float back = 1.0f;
    if (F::QUANTISED) back = powers[number_at(unit, row)] / (1 << F::DOWN);
#pragma unroll
    for (int pair = 0; pair < UNIT / 2; pair++) {
      float low = 0.0f, high = 0.0f;
#pragma unroll
      for (int part = 2; part >= 0; part--) {
        u32 both = read<u32>(from + pair / 4 * PARTS * 64 + part * L::PART_BYTES + pair % 4 * 4);
        low += F::QUANTISED ? f16_to_f32((u16)both) : __uint_as_float(both << 16);
        high += F::QUANTISED ? f16_to_f32((u16)(both >> 16)) : __uint_as_float(both & 0xffff0000u);
      }
      float factor = F::QUANTISED ? back * (1 << F::lift(pair)) : 1.0f;
      v[F::low(pair)] = low * factor, v[F::high(pair)] = high * factor;
    }
  }
};
