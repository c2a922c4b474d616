// Products of stored matrices with many rows of x, on tensor cores: tiles of 32 * WARPS_OUT outputs and 8 *
// EIGHTS rows, K in slabs of 64.
//
// `Split` writes x once in PARTS, in the order in which the columns of a slab meet in mma.sync: f16 for
// quantised weights, all columns that share a scale brought near 2^14 by one power of two (two parts are 22
// bits, three all 24); bf16 for dense ones, whose range f16 has not (two parts are 16 bits, three all 24).
// With them go those powers and the sums of groups. Codes stay as they are. Both come to shared memory by
// copies that run STAGES - 1 steps ahead. A warp unpacks codes of its own 32 outputs (exact) in registers and
// multiplies them with all rows of the tile. Every product of parts is summed in f32; scales and biases meet
// the sums group by group. Every sum has one order, which depends on the shape alone.

// In a slab, a segment has columns of one group, and quarter t of four lanes has C of them: those of its
// words, in the pairs in which F takes them out. Where a word is for two lanes, each has every second pair of
// pairs.
template <class F> struct Order {
  static constexpr int SLAB = 64, SEGMENT = F::QUANTISED ? min_of(SLAB, F::GROUP) : SLAB,
                       SEGMENTS = SLAB / SEGMENT;
  static constexpr int C = SEGMENT / 4, BITS = C * F::BITS, PER_WORD = max_of(1, 32 / F::BITS),
                       WORDS = (BITS + 31) / 32;
  static constexpr bool HALVES = (F::NIBBLES || F::TWOS) && C < PER_WORD;
  static constexpr int ALIGN = BITS % 128 == 0 ? 16 : BITS % 64 == 0 ? 8 : 4;

  // Column in the segment of pair i of quarter t.
  static DEVICE int column(int t, int i, int half) {
    if (HALVES) return t * C / PER_WORD * PER_WORD + t * C % PER_WORD / 2 + i + half * (PER_WORD / 2);
    return t * C + (half ? F::high(i) : F::low(i));
  }
  static DEVICE constexpr int words_read() {
    int most = WORDS;
    for (int t = 0; t < 4; t++) most = max_of(most, (t * BITS % 32 + BITS + 31) / 32);
    return most;
  }
  // The words of quarter t of a segment, as F::pair wants them.
  static DEVICE void words(u32 (&w)[WORDS], const u8* segment, int t) {
    if constexpr (HALVES) {
      w[0] = read<u32>(segment + t * C / PER_WORD * 4) >> F::BITS * (t * C % PER_WORD / 2);
    } else if constexpr (BITS % 32 == 0) {
#pragma unroll
      for (int i = 0; i < WORDS; i += ALIGN / 4) {
        const u8* p = segment + t * (BITS / 8) + 4 * i;
        if constexpr (ALIGN == 16) {
          uint4 v = read<uint4>(p);
          w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
        } else if constexpr (ALIGN == 8) {
          uint2 v = read<uint2>(p);
          w[i] = v.x, w[i + 1] = v.y;
        } else {
          w[i] = read<u32>(p);
        }
      }
    } else {
      constexpr int READ = words_read();
      const u8* p = segment + t * BITS / 32 * 4;
      u32 raw[READ + 1];
#pragma unroll
      for (int i = 0; i < READ; i++) raw[i] = read<u32>(p + 4 * i);
      raw[READ] = 0;
#pragma unroll
      for (int i = 0; i < WORDS; i++) w[i] = __funnelshift_r(raw[i], raw[i + 1], t * BITS % 32);
    }
  }
};

// A row of x in parts, slab by slab: [32 columns][part][quarter][8], then, for quantised weights, four
// numbers: sums of segments if there are biases, two at most, and the powers of two that the segments are to
// be multiplied with.
template <class F, int COLS, int PARTS> struct Split {
  typedef Order<F> O;
  static constexpr int SLAB = O::SLAB, SLABS = (COLS + SLAB - 1) / SLAB, TAIL = PARTS * 2 * SLAB,
                       RECORD = TAIL + (F::QUANTISED ? 16 : 0);
  static constexpr int ROW = SLABS * RECORD, UNITS = SLABS * 8,
                       POWERS = F::BIASED ? 2 : 0; // of the four numbers
  static_assert(COLS % 4 == 0 && (!F::QUANTISED || COLS % F::GROUP == 0) && (!F::BIASED || O::SEGMENT > 16),
                "shape");

  // Eight positions: of quarter unit % 4, of half unit / 4 % 2 of a slab. All lanes call, those past the last
  // unit too.
  static DEVICE void piece(const float* x, u8* out, int unit) {
    int slab = unit / 8, k32 = unit / 4 % 2, t = unit % 4;
    bool mine = unit < UNITS;
    float v[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
      int step = 2 * k32 + j / 4, in = step % (O::SEGMENT / 16); // mma of the slab, of the segment
      int col = slab * SLAB + step * 16 / O::SEGMENT * O::SEGMENT + O::column(t, 2 * in + j % 4 / 2, j % 2);
      v[j] = mine && (COLS % SLAB == 0 || col < COLS) ? x[col] : 0.0f;
    }
    u8* record = out + slab * RECORD;
    if (F::QUANTISED) scale(v, (float*)(record + TAIL), k32, mine && t == 0);
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      u32 pair[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (F::QUANTISED) {
          pair[j] = pack_f16(v[2 * j], v[2 * j + 1]);
          v[2 * j] -= f16_to_f32((u16)pair[j]), v[2 * j + 1] -= f16_to_f32((u16)(pair[j] >> 16));
        } else {
          pair[j] = pack_bf16(v[2 * j], v[2 * j + 1]);
          v[2 * j] -= bf16_to_f32(pair[j] & 0xffff), v[2 * j + 1] -= bf16_to_f32(pair[j] >> 16);
        }
      }
      if (mine)
        write(record + ((k32 * PARTS + part) * 4 + t) * 16, make_uint4(pair[0], pair[1], pair[2], pair[3]));
    }
  }
  // Brings segments near 2^14; sums and powers by the first lane of each, `first` of the 32 columns.
  static DEVICE void scale(float (&v)[8], float* tail, int k32, bool first) {
    constexpr int OWN = O::SEGMENT == 16 ? 2 : 1, EACH = 8 / OWN; // segments of a lane, values of each
#pragma unroll
    for (int h = 0; h < OWN; h++) {
      float sum = 0.0f, most = 0.0f;
#pragma unroll
      for (int j = h * EACH; j < (h + 1) * EACH; j++) sum += v[j], most = fmaxf(most, fabsf(v[j]));
#pragma unroll
      for (int o = 1; o < (O::SEGMENT == 64 ? 8 : 4); o *= 2) {
        if (F::BIASED) sum += __shfl_xor_sync(ALL, sum, o);
        most = fmaxf(most, __shfl_xor_sync(ALL, most, o));
      }
      u32 exponent = max(__float_as_uint(most) >> 23, 15u);
      float power = __uint_as_float((268 - exponent) << 23);
#pragma unroll
      for (int j = h * EACH; j < (h + 1) * EACH; j++) v[j] *= power;
      int segment = O::SEGMENT == 64 ? 0 : O::SEGMENT == 32 ? k32 : 2 * k32 + h;
      if (!first || (O::SEGMENT == 64 && k32)) continue;
      if (F::BIASED) tail[segment] = sum;
      tail[POWERS + segment] = __uint_as_float((exponent - 14) << 23);
    }
  }
};

// A Shape has, as `cuda/gemm.rs` chooses it:
//   Weights    their Format
//   COLS       inputs
//   X_PARTS    of x
//   WARPS_OUT  warps along outputs, 32 each
//   WARPS_K    warps along K, which take slabs in turn
//   EIGHTS     rows of x of a tile, in eights
//   STAGES     steps in shared memory
template <class Shape> struct Gemm {
  typedef typename Shape::Weights F;
  static constexpr int COLS = Shape::COLS, PARTS = Shape::X_PARTS, WM = Shape::WARPS_OUT, WK = Shape::WARPS_K;
  static constexpr int NT = Shape::EIGHTS, STAGES = Shape::STAGES;
  typedef Order<F> O;
  typedef Split<F, COLS, PARTS> X;
  static constexpr int SLAB = O::SLAB, SLABS = X::SLABS, STEPS = (SLABS + WK - 1) / WK;
  static constexpr int OUTPUTS = 32 * WM, TOKENS = 8 * NT, THREADS = 32 * WM * WK;
  static constexpr int GROUP = F::QUANTISED ? F::GROUP : SLAB, GROUPS = COLS / GROUP;
  static constexpr int ROW_BYTES = COLS * F::BITS / 8, A_ROW = SLAB * F::BITS / 8;
  static constexpr int A_UNIT = ROW_BYTES % 16 == 0 && A_ROW % 16 == 0 ? 16
                                : ROW_BYTES % 8 == 0 && A_ROW % 8 == 0 ? 8
                                                                       : 4;
  static constexpr int A_UNITS = A_ROW / A_UNIT;
  // Shared memory: addresses of the rows of x; then of each stage WK slabs of codes, parts [32
  // columns][part][row][quarter], sums and powers.
  static constexpr int A_BYTES = OUTPUTS * A_ROW, TAIL_AT = A_BYTES + TOKENS * X::TAIL,
                       SLAB_BYTES = A_BYTES + TOKENS * X::RECORD;
  static constexpr int STAGE_BYTES = WK * SLAB_BYTES, SHARED_BYTES = 8 * TOKENS + STAGES * STAGE_BYTES;
  static_assert(STAGES >= 2 && (WK - 1) * WM * 32 * NT * 32 <= STAGES * STAGE_BYTES, "shape");

  struct Scales {
    u32 scales[O::SEGMENTS][2][2], biases[O::SEGMENTS][2][2];
  };
  struct Sums {
    float v[2][NT][4];
  }; // of outputs g, g + 8 (and 16 more), rows 2t, 2t + 1 of each eight

  const u8** rows;
  u8* memory;
  int tokens; // rows of x that there are
  DEVICE Gemm(u8* memory, int tokens)
      : rows((const u8**)memory), memory(memory + 8 * TOKENS), tokens(min(tokens, TOKENS)) {}
  static DEVICE int output0() { return warp() % WM * 32 + lane() / 4; }
  static DEVICE int turn() { return WK == 1 ? 0 : warp() / WM; }

  // Asks for the slabs of a step.
  template <class At> DEVICE void copy(int step, At at) const {
#pragma unroll
    for (int k = 0; k < WK; k++) {
      int s = step * WK + k;
      if (SLABS % WK && s >= SLABS) break;
      u8* slab = memory + step % STAGES * STAGE_BYTES + k * SLAB_BYTES;
#pragma unroll
      for (int base = 0; base < OUTPUTS * A_UNITS; base += THREADS) {
        int i = base + threadIdx.x, offset = s * A_ROW + i % A_UNITS * A_UNIT;
        if (OUTPUTS * A_UNITS % THREADS && i >= OUTPUTS * A_UNITS) break;
        Matrix m;
        u64 row = at(i / A_UNITS, m);
        bool any = COLS % SLAB == 0 || offset < ROW_BYTES;
        copy_async<A_UNIT>(slab + i * A_UNIT, m.codes + row * ROW_BYTES + (any ? offset : 0), any);
      }
#pragma unroll
      for (int base = 0; base < TOKENS * PARTS * 8; base += THREADS) {
        // Eight lanes write two rows of one plane: no bank twice.
        int i = base + threadIdx.x, t = i % 4, row = i / (16 * PARTS) * 2 + i / 4 % 2,
            plane = i / 8 % (2 * PARTS);
        if (row >= tokens) break;
        copy_async<16>(slab + A_BYTES + (plane * TOKENS + row) * 64 + t * 16,
                       rows[row] + s * X::RECORD + (plane * 4 + t) * 16);
      }
      int row = threadIdx.x;
      if (F::QUANTISED && row < tokens)
        copy_async<16>(slab + TAIL_AT + row * 16, rows[row] + s * X::RECORD + X::TAIL);
    }
  }
  template <class At> static DEVICE void load(Scales& next, int s, At at) {
    if constexpr (F::QUANTISED) {
      if (s >= SLABS) return;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        Matrix m;
        u64 row = at(output0() + 8 * i, m);
#pragma unroll
        for (int segment = 0; segment < O::SEGMENTS; segment++) {
          int group = (s * SLAB + segment * O::SEGMENT) / GROUP;
          if (COLS % SLAB) group = min(group, GROUPS - 1);
          next.scales[segment][i / 2][i % 2] = F::stored(m.scales, row * GROUPS + group);
          if (F::BIASED) next.biases[segment][i / 2][i % 2] = F::stored(m.biases, row * GROUPS + group);
        }
      }
    }
  }

  DEVICE void multiply(Sums& sums, const Scales& scales, const u8* slab) const {
    constexpr int STEPS_K = O::SEGMENT / 16;
#pragma unroll
    for (int segment = 0; segment < O::SEGMENTS; segment++) {
      u32 w[4][O::WORDS];
#pragma unroll
      for (int i = 0; i < 4; i++)
        O::words(w[i], slab + (output0() + 8 * i) * A_ROW + segment * (O::SEGMENT * F::BITS / 8), lane() % 4);
#pragma unroll
      for (int pa = 0; pa < F::PARTS; pa++) {
        u32 a[2][STEPS_K][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
          for (int k = 0; k < STEPS_K; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
              a[m][k][i] = F::QUANTISED ? F::half_pair(w[2 * m + i % 2], 2 * k + i / 2)
                                        : F::pair(w[2 * m + i % 2], 2 * k + i / 2, pa);
#pragma unroll
        for (int n = 0; n < NT; n += 2)
          if (n * 8 < tokens) sixteen(sums, a, scales, slab, segment, n);
      }
    }
  }
  // Sixteen rows of x.
  template <int STEPS_K>
  DEVICE void sixteen(Sums& sums, const u32 (&a)[2][STEPS_K][4], const Scales& scales, const u8* slab,
                      int segment, int n) const {
    constexpr int MMA = min_of(2, STEPS_K); // that share a load
    float d[2][2][4];
#pragma unroll
    for (int i = 0; i < 16; i++)
      d[i / 8][i / 4 % 2][i % 4] = F::QUANTISED ? 0.0f : sums.v[i / 8][n + i / 4 % 2][i % 4];
#pragma unroll
    for (int k = 0; k < STEPS_K; k += MMA)
#pragma unroll
      for (int p = PARTS - 1; p >= 0; p--) {
        uint4 b[2];
#pragma unroll
        for (int h = 0; h < 2; h++)
          b[h] = part<MMA>(slab, segment * STEPS_K + k, p, (n + h) * 8 + lane() / 4, lane() % 4);
#pragma unroll
        for (int j = 0; j < MMA; j++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const u32(&own)[4] = a[i % 2][k + j];
            u32 b0 = j ? b[i / 2].z : b[i / 2].x, b1 = j ? b[i / 2].w : b[i / 2].y;
            if (F::QUANTISED) mma_f16(d[i % 2][i / 2], own[0], own[1], own[2], own[3], b0, b1);
            else mma_bf16(d[i % 2][i / 2], own[0], own[1], own[2], own[3], b0, b1);
          }
      }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float sum[2] = {0.0f, 0.0f}, power[2] = {1.0f, 1.0f};
#pragma unroll
      for (int i = 0; i < 2 && F::QUANTISED; i++) {
        const u8* tail = slab + TAIL_AT + ((n + h) * 8 + 2 * (lane() % 4) + i) * 16 + segment * 4;
        power[i] = read<float>(tail + 4 * X::POWERS);
        if (F::BIASED) sum[i] = read<float>(tail);
      }
#pragma unroll
      for (int m = 0; m < 2; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float& v = sums.v[m][n + h][i];
          v = F::QUANTISED ? fmaf(F::value(scales.scales[segment][m][i / 2]) * power[i % 2], d[m][h][i], v)
                           : d[m][h][i];
          if (F::BIASED) v = fmaf(F::value(scales.biases[segment][m][i / 2]), sum[i % 2], v);
        }
    }
  }
  // What a lane holds of a row of x in one mma, or in two.
  template <int MMA> static DEVICE uint4 part(const u8* slab, int step, int part, int row, int t) {
    const u8* p = slab + A_BYTES + ((step / 2 * PARTS + part) * TOKENS + row) * 64 + t * 16;
    if (MMA == 2) return read<uint4>(p);
    uint2 v = read<uint2>(p + step % 2 * 8);
    return make_uint4(v.x, v.y, 0, 0);
  }

  // The whole product. `at(i, matrix)` gives the row and the matrix of output i of the tile, any that exists
  // past the last; `x(i)` row i of x in parts. Then `out(output of the tile, row of x, value, value of 16
  // outputs later)` for each.
  template <class At, class Row, class Out> DEVICE void run(At at, Row x, Out out) const {
    if ((int)threadIdx.x < tokens) rows[threadIdx.x] = x(threadIdx.x);
    __syncthreads();
    Sums sums;
    Scales scales[2] = {};
#pragma unroll
    for (int i = 0; i < 8 * NT; i++) (&sums.v[0][0][0])[i] = 0.0f;
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
      if (step < STEPS) copy(step, at);
      copies_close();
    }
    load(scales[0], turn(), at);
    auto one = [&](int step, const Scales& now, Scales& next) {
      copies_wait<STAGES - 2>();
      __syncthreads();
      if (step + STAGES - 1 < STEPS) copy(step + STAGES - 1, at);
      copies_close();
      int s = step * WK + turn();
      load(next, s + WK, at);
      if (SLABS % WK == 0 || s < SLABS)
        multiply(sums, now, memory + step % STAGES * STAGE_BYTES + turn() * SLAB_BYTES);
    };
#pragma unroll 1
    for (int step = 0; step < STEPS; step += 2) {
      one(step, scales[0], scales[1]);
      if (step + 1 < STEPS) one(step + 1, scales[1], scales[0]);
    }
    if constexpr (WK > 1) gather(sums);
    if (turn()) return;
    int row0 = output0(), token0 = 2 * (lane() % 4);
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (token0 + 8 * n + i % 2 < tokens)
          out(row0 + i / 2 * 8, token0 + 8 * n + i % 2, sums.v[0][n][i], sums.v[1][n][i]);
  }
  // The first warps get what the others have, in order.
  DEVICE void gather(Sums& sums) const {
    float *all = (float*)memory, *own = &sums.v[0][0][0];
    copies_wait<0>();
    __syncthreads();
    constexpr int SHARE = 32 * WM, EACH = 8 * NT;
    int thread = threadIdx.x % SHARE;
    if (turn()) {
#pragma unroll
      for (int i = 0; i < EACH; i++) all[((turn() - 1) * EACH + i) * SHARE + thread] = own[i];
    }
    __syncthreads();
    if (turn() == 0) {
#pragma unroll
      for (int i = 0; i < (WK - 1) * EACH; i++) own[i % EACH] += all[i * SHARE + thread];
    }
  }
};
