// One template of more than 400 lines: every part of it is made of the same constants.
//
// Products of stored matrices with a few rows of x, on tensor cores: tiles of sixteen outputs, some of them a block, all of K at once.
//
// A block is a multiprocessor's share: it stages x once, and its warps take blocks of K. The lanes of a warp read the codes of
// two of the sixteen outputs each, straight from memory into registers in the order in which mma.sync wants them (any order of K
// will do, as long as x lies in the same). Codes are exact in f16, without arithmetic (`small_pair`). x is split into three f16, a group
// brought near 2^14 by a power of two before; with dense weights into three bf16, whose range f16 has not. Parts are columns of the
// product; so are the groups that share a block of K: a column holds x for one group and zeros elsewhere. Sums are f32; scales and biases
// meet them group by group. Every sum has one order, which depends on the shape alone.

// Sixteen outputs of a matrix of `rows`, from `row0` on.
struct Tile { Matrix matrix; int row0, rows; };

// F: format. C: columns a lane reads at a time. COLS: inputs of one matrix. R: rows of x. WARPS: per block. KS: blocks of K of
// which a warp has the codes on their way, of SLOTS tiles each. ONCE: the tiles that blocks take at once are all. FULL: none has
// less than sixteen outputs. JOIN: tiles whose
// totals belong together. REP: matrices side by side, each with inputs of its own, added up; WEIGHTED: each with a factor.
template <class F, int C, int COLS, int R, int WARPS, int KS, int SLOTS, bool ONCE, bool FULL, int JOIN = 1, int REP = 1, bool WEIGHTED = false> struct Matvec {
  static constexpr int BLOCK = 4 * C, KB1 = (COLS + BLOCK - 1) / BLOCK, KB = KB1 * REP, STEPS = (KB + WARPS * KS - 1) / (WARPS * KS);
  static constexpr bool SCALED = F::QUANTISED || WEIGHTED || R == 1, WHOLE = KB % (WARPS * KS) == 0;
  static constexpr int GROUP = F::QUANTISED ? F::GROUP : BLOCK;
  static constexpr int SEGMENT = min_of(C, GROUP), SEGMENTS = C / SEGMENT; // of a lane's columns, by group
  static constexpr int SPAN = max_of(C, GROUP);                            // from a group of a segment to the next
  static constexpr int SHARING = max_of(1, BLOCK / SPAN);                  // groups that a segment of a block meets
  static constexpr int QS = 3 * R, QE = (QS + 1) / 2 * 2;                  // parts of x; filled up to pairs
  static constexpr int TILES = (SHARING * QE + 7) / 8;
  static constexpr int WORDS = C * F::BITS / 32, ROW_BYTES = COLS * F::BITS / 8, GROUPS = COLS / GROUP;
  static constexpr int ALIGN = ROW_BYTES % 16 == 0 && WORDS % 4 == 0 ? 16 : ROW_BYTES % 8 == 0 && WORDS % 2 == 0 ? 8 : 4;
  static constexpr int UNIT = min_of(C, F::TWOS ? 16 : 8), THREADS = 32 * WARPS; // columns of x that a thread stages together
  // Shared memory: x by blocks of K and one of zeros; sums of groups and powers of two, a number for each part; sums of warps.
  static constexpr int KB_BYTES = C * QS * 8, X_BYTES = (KB + 1) * KB_BYTES, NUMBERS = F::QUANTISED ? KB * BLOCK / GROUP * QE : 0;
  static constexpr int POWER_BYTES = (NUMBERS * 4 + 15) / 16 * 16, SUM_BYTES = F::BIASED ? POWER_BYTES : 0, WIDTH = R == 1 ? 1 : TILES * 8;
  // Scales of a tile, and then its biases, lie together in memory, too far apart for lanes to read one by one: they come to shared memory
  // by copies, rows so far apart that eight of them are in different banks. Of all tiles of a round, and those of the next.
  static constexpr bool STAGED = F::QUANTISED && FULL;
  static constexpr int SCALE_ROW = STAGED ? GROUPS * F::SCALE_BYTES : 0, PADDED_ROW = SCALE_ROW % 32 ? SCALE_ROW : SCALE_ROW + 16;
  static constexpr int SCALE_KINDS = F::BIASED ? 2 : 1, SCALE_TILE = STAGED ? 16 * PADDED_ROW : 0, SCALE_ROUND = SLOTS * REP * SCALE_KINDS * SCALE_TILE;
  static constexpr int SCALES_AT = X_BYTES + SUM_BYTES + POWER_BYTES, RED_AT = SCALES_AT + (ONCE ? 1 : 2) * SCALE_ROUND;
  static constexpr int RED_BYTES = 2 * WARPS * 16 * SLOTS * WIDTH * 4, SHARED_BYTES = RED_AT + RED_BYTES;
  // Units of x: of one matrix, of a row; turns of the block to stage a row and all of them, and how many at a time.
  static constexpr int UNITS1 = KB1 * BLOCK / UNIT, UNITS = UNITS1 * REP, TURNS = (UNITS + THREADS - 1) / THREADS, ALL_TURNS = R * TURNS;
  static constexpr int HELD = min_of(ALL_TURNS, 32 / UNIT), PART_BYTES = UNIT == 4 ? 32 : 64;
  static_assert(C % 4 == 0 && COLS % UNIT == 0 && UNIT <= GROUP && (C * F::BITS) % 32 == 0 && SLOTS % JOIN == 0, "shape");

  struct Raw { u32 codes[KS][SLOTS][2][WORDS], numbers[STAGED ? 1 : KS][STAGED ? 1 : SLOTS][SEGMENTS][TILES][2][2]; };
  // Of one row, columns are added up at once.
  static constexpr int KEPT = R == 1 ? 1 : TILES, EACH = R == 1 ? 2 : 4;
  struct Sums { float v[SLOTS][KEPT][EACH]; };
  struct Held { float v[HELD][UNIT]; };

  u8* memory;
  int g, t;                       // row and quarter of the lane
  int group_of[TILES];            // which of the sharing groups the lane's columns of D belong to
  int q_of[TILES], x_at[TILES];   // their first part of x; where the lane finds its column of B, -1 if that is zero here

  DEVICE explicit Matvec(u8* memory) : memory(memory) {
    g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      int c = n * 8 + 2 * t, b = n * 8 + g;
      group_of[n] = min(c / QE, SHARING - 1), q_of[n] = c % QE;
      bool mine = SHARING == 1 || t * C / SPAN == b / QE;
      x_at[n] = mine && b / QE < SHARING && b % QE < QS ? b % QE * 4 + t : -1;
    }
  }

  // Row of x and unit of it that the thread stages in a turn.
  static DEVICE int row_of(int turn) { return R == 1 ? 0 : turn / TURNS; }
  static DEVICE int unit_of(int turn) { return (R == 1 ? turn : turn % TURNS) * THREADS + threadIdx.x; }
  static DEVICE int col_of(int unit) { return (REP == 1 ? unit : unit % UNITS1) * UNIT; }
  static DEVICE bool in_row(int unit) { return unit < UNITS && col_of(unit) < COLS; }

  // Reads x for some turns: `x(rep, row)` is a row of f32, null past the last. Ahead of codes, which would hold it up: loads return in order.
  template <class X> static DEVICE void fetch(Held& held, X x, int first = 0) {
#pragma unroll
    for (int n = 0; n < HELD; n++) {
      int turn = first + n, unit = unit_of(turn);
      const float* from = turn < ALL_TURNS && in_row(unit) ? x(unit / UNITS1, row_of(turn)) : nullptr;
#pragma unroll
      for (int i = 0; i < UNIT; i += 4) {
        float4 f = from ? read<float4>(from + col_of(unit) + i) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        held.v[n][i] = f.x, held.v[n][i + 1] = f.y, held.v[n][i + 2] = f.z, held.v[n][i + 3] = f.w;
      }
    }
  }
  // x as B wants it: [block of K][two mma][part][quarter], 16 bytes each, and numbers of groups. `adjust(turn, values)` may change a
  // unit of a row; all lanes of a warp call it for the same row.
  template <class X> DEVICE void stage(Held& held, X x) const { stage(held, x, [](int, float (&)[UNIT]) {}); }
  template <class X, class Adjust> DEVICE void stage(Held& held, X x, Adjust adjust) const {
    for (int i = threadIdx.x; i < KB_BYTES / 16; i += THREADS) write(memory + KB * KB_BYTES + 16 * i, uint4{0, 0, 0, 0});
    for (int first = 0; first < ALL_TURNS; first += HELD) {
      if (first) fetch(held, x, first);
#pragma unroll
      for (int n = 0; n < HELD; n++)
        if (ALL_TURNS % HELD == 0 || first + n < ALL_TURNS) adjust(first + n, held.v[n]), stage_unit(first + n, held.v[n]);
    }
  }
  DEVICE void stage_unit(int turn, const float (&v)[UNIT]) const {
    int unit = unit_of(turn), row = row_of(turn);
    float power = F::QUANTISED ? number(unit, row, v) : 1.0f;
    if (unit >= UNITS) return;
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
        u8* at = to + m / 2 * QS * 64 + part * PART_BYTES;
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
  // Sum of a group and what its sums of products are to be multiplied with, into shared memory; the power of two x is to be.
  DEVICE float number(int unit, int row, const float (&v)[UNIT]) const {
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
    if (unit < UNITS && unit % PER_GROUP == 0) {
      int at = (unit / UNITS1 * (KB1 * BLOCK / GROUP) + col_of(unit) / GROUP) * QE + row * 3;
      float *sums = (float*)(memory + X_BYTES), *powers = (float*)(memory + X_BYTES + SUM_BYTES);
      float back = __uint_as_float((exponent - 14) << 23) * (1 << F::DOWN);
#pragma unroll
      for (int part = 0; part < 3; part++) {
        if (F::BIASED) sums[at + part] = part ? 0.0f : sum;
        powers[at + part] = back;
      }
      if (QE > QS && row == R - 1) {
        if (F::BIASED) sums[at + 3] = 0.0f;
        powers[at + 3] = 0.0f;
      }
    }
    return __uint_as_float((268 - exponent) << 23);
  }
  static DEVICE int x_offset(int kb, int mma, int at) {
    if (C % 8) return ((kb * (C / 4) + mma) * QS * 4 + at) * 8;
    return ((kb * (C / 8) + mma / 2) * QS * 4 + at) * 16 + mma % 2 * 8;
  }
  static DEVICE int unit_offset(int unit, int row) {
    int col = col_of(unit);
    return x_offset(unit / UNITS1 * KB1 + col / BLOCK, col % C / 4, row * 12 + col % BLOCK / C);
  }
  // What the thread has staged of a unit: the parts add up to it.
  DEVICE void staged(int turn, float (&v)[UNIT]) const {
    int unit = unit_of(turn), row = row_of(turn);
    const u8* from = memory + unit_offset(unit, row);
    const float* powers = (const float*)(memory + X_BYTES + SUM_BYTES);
    float back = 1.0f;
    if (F::QUANTISED) back = powers[(unit / UNITS1 * (KB1 * BLOCK / GROUP) + col_of(unit) / GROUP) * QE + row * 3] / (1 << F::DOWN);
#pragma unroll
    for (int pair = 0; pair < UNIT / 2; pair++) {
      float low = 0.0f, high = 0.0f;
#pragma unroll
      for (int part = 2; part >= 0; part--) {
        u32 both = read<u32>(from + pair / 4 * QS * 64 + part * PART_BYTES + pair % 4 * 4);
        low += F::QUANTISED ? f16_to_f32((u16)both) : __uint_as_float(both << 16);
        high += F::QUANTISED ? f16_to_f32((u16)(both >> 16)) : __uint_as_float(both & 0xffff0000u);
      }
      float factor = F::QUANTISED ? back * (1 << F::lift(pair)) : 1.0f;
      v[F::low(pair)] = low * factor, v[F::high(pair)] = high * factor;
    }
  }

  // Tiles of a launch are joined in groups, `number` in all; each block takes every gridDim.x-th, some a round.
  static DEVICE int group_at(int round, int slot) { return (round * (SLOTS / JOIN) + slot / JOIN) * gridDim.x + blockIdx.x; }

  // What a warp needs of a block of K for one tile: `at(group, m, rep)` is tile m of a group.
  template <class At> DEVICE void load(Raw& raw, int ks, int slot, int step, int round, int number, At at) const {
    if (step == STEPS) {
      if (ONCE) return;
      step = 0, round++;
    }
    int kb = (step * WARPS + warp()) * KS + ks, group = group_at(round, slot);
    if ((!WHOLE && kb >= KB) || group >= number) return;
    int rep = kb / KB1, block = kb % KB1, col = block * BLOCK + t * C;
    Tile tile = at(group, slot % JOIN, rep);
    // The lane's two rows: where tiles are full, all that it reads is at fixed distances from one place.
    u32 first = FULL ? tile.row0 + g : min(tile.row0 + g, tile.rows - 1);
    u32 more = FULL ? 8 : min(tile.row0 + g + 8, tile.rows - 1) - first;
    const u8* codes = tile.matrix.codes + (u64)first * ROW_BYTES + col * F::BITS / 8;
#pragma unroll
    for (int h = 0; h < 2; h++) words(raw.codes[ks][slot][h], codes + h * more * ROW_BYTES, col);
    if constexpr (F::QUANTISED && !STAGED) {
#pragma unroll
      for (int s = 0; s < SEGMENTS; s++)
#pragma unroll
        for (int n = 0; n < TILES; n++) {
          int scale = (block * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
          if (COLS % BLOCK) scale = min(scale, GROUPS - 1);
          u64 from = (u64)first * GROUPS + scale;
#pragma unroll
          for (int h = 0; h < 2; h++) {
            u32(&of)[2] = raw.numbers[STAGED ? 0 : ks][STAGED ? 0 : slot][s][n][h];
            of[0] = F::stored(tile.matrix.scales, from + h * more * GROUPS);
            if (F::BIASED) of[1] = F::stored(tile.matrix.biases, from + h * more * GROUPS);
          }
        }
    }
  }
  static DEVICE void words(u32 (&w)[WORDS], const u8* p, int col) {
#pragma unroll
    for (int i = 0; i < WORDS; i += ALIGN / 4) {
      if (COLS % BLOCK && col + i * 32 / F::BITS >= COLS) {
#pragma unroll
        for (int k = 0; k < ALIGN / 4; k++) w[i + k] = 0;
      } else if (ALIGN == 16) {
        uint4 v = stream16(p + 4 * i);
        w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
      } else if (ALIGN == 8) {
        uint2 v = stream8(p + 4 * i);
        w[i] = v.x, w[i + 1] = v.y;
      } else {
        w[i] = stream4(p + 4 * i);
      }
    }
  }

  template <class Factor> DEVICE void multiply(Sums& sums, const Raw& raw, int ks, int slot, int step, int round, Factor factor) const {
    int kb = (step * WARPS + warp()) * KS + ks;
    if (!WHOLE && kb >= KB) return;
    const u8* x[TILES];
#pragma unroll
    for (int n = 0; n < TILES; n++) x[n] = memory + (x_at[n] < 0 ? KB * KB_BYTES : kb * KB_BYTES + x_at[n] * (C % 8 ? 8 : 16));
#pragma unroll
    for (int s = 0; s < SEGMENTS; s++) {
      float d[TILES][4];
#pragma unroll
      for (int i = 0; i < TILES * 4; i++) (&d[0][0])[i] = SCALED ? 0.0f : (&sums.v[slot][0][0])[i % (KEPT * EACH)];
#pragma unroll
      for (int i = 0; i < SEGMENT / 4; i++) {
        int k = s * SEGMENT / 4 + i;
        uint2 b[TILES];
#pragma unroll
        for (int n = 0; n < TILES; n++) b[n] = read<uint2>(x[n] + (C % 8 ? k * QS * 32 : k / 2 * QS * 64 + k % 2 * 8));
#pragma unroll
        for (int part = 0; part < F::PARTS; part++) {
          u32 a[4];
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const u32(&words)[WORDS] = raw.codes[ks][slot][j % 2];
            a[j] = F::QUANTISED ? F::small_pair(words, 2 * k + j / 2) : F::pair(words, 2 * k + j / 2, part);
          }
#pragma unroll
          for (int n = 0; n < TILES; n++) {
            if (F::QUANTISED) mma_f16(d[n], a[0], a[1], a[2], a[3], b[n].x, b[n].y);
            else mma_bf16(d[n], a[0], a[1], a[2], a[3], b[n].x, b[n].y);
          }
        }
      }
      add(sums.v[slot], d, raw, ks, slot, s, kb, round, WEIGHTED ? factor(kb / KB1) : 1.0f);
    }
  }
  DEVICE void add(float (&sums)[KEPT][EACH], const float (&d)[TILES][4], const Raw& raw, int ks, int slot, int s, int kb, int round, float factor) const {
    const float *group_sums = (const float*)(memory + X_BYTES), *powers = (const float*)(memory + X_BYTES + SUM_BYTES);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      int at = (kb * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP * QE + q_of[n];
      bool inside = TILES * 8 == SHARING * QE || n * 8 + 2 * t < SHARING * QE;
      float2 x = make_float2(0.0f, 0.0f), power = make_float2(factor, factor);
      // A group of several blocks: its bias counts once.
      if (F::BIASED && inside && (GROUP <= BLOCK || kb % (GROUP / BLOCK) == 0)) x = read<float2>(group_sums + at);
      if (F::QUANTISED) power = inside ? read<float2>(powers + at) : make_float2(0.0f, 0.0f);
      if (WEIGHTED && F::QUANTISED) x.x *= factor, x.y *= factor, power.x *= factor, power.y *= factor;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        auto number = [&](int kind) {
          if (!STAGED) return late(raw.numbers[STAGED ? 0 : ks][STAGED ? 0 : slot][s][n][h][kind]);
          int group = (kb % KB1 * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
          return number_of(round, slot, kb / KB1, kind, g + 8 * h, COLS % BLOCK ? min(group, GROUPS - 1) : group);
        };
        float scale = F::QUANTISED ? F::value(number(0)) : 1.0f, bias = F::BIASED ? F::value(number(1)) : 0.0f;
        const float* p = &d[n][2 * h];
        if (R == 1) {
          float& v = sums[0][h];
          v = fmaf(scale * power.x, p[0] + p[1], v);
          if (F::BIASED) v = fmaf(bias, x.x, v);
          continue;
        }
        float* v = &sums[n % KEPT][2 * h % EACH];
        if (SCALED) v[0] = fmaf(scale * power.x, p[0], v[0]), v[1] = fmaf(scale * power.y, p[1], v[1]);
        else v[0] = p[0], v[1] = p[1];
        if (F::BIASED) v[0] = fmaf(bias, x.x, v[0]), v[1] = fmaf(bias, x.y, v[1]);
      }
    }
  }

  // Whether each output of the block has a thread to itself, and what that thread reads for it before the product, or nothing.
  static constexpr bool ALONE = ONCE && 16 * R * (SLOTS / JOIN) <= THREADS;
  template <class Of> static DEVICE float foresee(int number, Of of) {
    int i = threadIdx.x, group = group_at(0, i / 16 / R * JOIN);
    return ALONE && i < 16 * R * (SLOTS / JOIN) && group < number ? of(group, i % 16, i / 16 % R) : 0.0f;
  }

  // Starts the copies of scales of a round; `settle` waits for them and for x.
  template <class At> DEVICE void copy_scales(int round, int number, At at) const {
    constexpr int CHUNKS = SCALE_ROW, ALL_CHUNKS = SLOTS * REP * SCALE_KINDS * CHUNKS; // of sixteen bytes
#pragma unroll
    for (int base = 0; base < ALL_CHUNKS; base += THREADS) {
      int i = base + threadIdx.x, tile_at = i / max_of(CHUNKS, 1), slot = tile_at / SCALE_KINDS % SLOTS, group = group_at(round, slot);
      if (i >= ALL_CHUNKS || group >= number) continue;
      Tile tile = at(group, slot % JOIN, tile_at / SCALE_KINDS / SLOTS);
      int byte = i % max_of(CHUNKS, 1) * 16, to = PADDED_ROW == SCALE_ROW ? byte : byte / max_of(SCALE_ROW, 1) * PADDED_ROW + byte % max_of(SCALE_ROW, 1);
      const u8* from = (F::BIASED && tile_at % 2 ? tile.matrix.biases : tile.matrix.scales) + (u64)tile.row0 * SCALE_ROW + byte;
      copy_async<16>(memory + SCALES_AT + (ONCE ? 0 : round % 2) * SCALE_ROUND + tile_at * SCALE_TILE + to, from);
    }
    copies_close();
  }
  static DEVICE void settle() {
    if (STAGED) copies_wait<0>();
    __syncthreads();
  }
  // Scale or bias of a row of a tile in shared memory.
  DEVICE u32 number_of(int round, int slot, int rep, int kind, int row, int group) const {
    const u8* at = memory + SCALES_AT + (ONCE ? 0 : round % 2) * SCALE_ROUND + ((rep * SLOTS + slot) * SCALE_KINDS + kind) * SCALE_TILE + row * PADDED_ROW;
    if (F::SCALE_BYTES == 4) return read<u32>(at + group * 4);
    if (F::SCALE_BYTES == 2) return read<u16>(at + group * 2);
    return read<u8>(at + group);
  }
  // Has L2 fetch the codes of a round, what lies in one piece by one thread.
  template <class At> DEVICE void announce(int round, int number, At at) const {
    for (int i = THREADS - 1 - threadIdx.x; FULL && i < SLOTS * REP; i += THREADS) {
      int slot = i % SLOTS, group = group_at(round, slot);
      if (group >= number) continue;
      Tile tile = at(group, slot % JOIN, i / SLOTS);
      fetch_to_l2(tile.matrix.codes + (u64)tile.row0 * ROW_BYTES, 16 * ROW_BYTES);
    }
  }
  // Codes of the first tiles, as many as may be on their way.
  template <class At> DEVICE void ahead(Raw& raw, int number, At at) const {
    if (STEPS > 1) announce(0, number, at);
    if (STAGED) copy_scales(0, number, at);
#pragma unroll
    for (int ks = 0; ks < KS; ks++)
#pragma unroll
      for (int slot = 0; slot < SLOTS; slot++) load(raw, ks, slot, 0, 0, number, at);
  }
  // All tiles of the block, the first codes of which are ahead: those of another block of K travel as soon as registers are free.
  // `factor(rep)` is what a matrix counts; `out(group, row of the sixteen, row of x, totals [JOIN])` once for each output.
  template <class At, class Factor, class Out> DEVICE void run(Raw& raw, int number, At at, Factor factor, Out out) const {
    for (int round = 0; round == 0 || (!ONCE && group_at(round, 0) < number); round++) {
      if (!ONCE) announce(round + 1, number, at);
      if (!ONCE && STAGED) copy_scales(round + 1, number, at);
      Sums sums;
#pragma unroll
      for (int i = 0; i < SLOTS * KEPT * EACH; i++) (&sums.v[0][0][0])[i] = 0.0f;
      for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int ks = 0; ks < KS; ks++)
#pragma unroll
          for (int slot = 0; slot < SLOTS; slot++) multiply(sums, raw, ks, slot, step, round, factor), load(raw, ks, slot, step + 1, round, number, at);
      finish(sums, round & 1, [&](int slot, int row, int r, const float* total) {
        int group = group_at(round, slot * JOIN);
        if (group < number) out(group, row, r, total);
      });
    }
  }

  // Adds up what the warps have. `parity` alternates from call to call, so that one barrier is enough. Every thread of the block calls.
  template <class Out> DEVICE void finish(const Sums& sums, int parity, Out out) const {
    float* red = (float*)(memory + RED_AT) + parity * (RED_BYTES / 8);
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float* at = red + ((warp() * SLOTS + slot) * 16 + g + 8 * h) * WIDTH;
        if (R == 1) {
          float v = sums.v[slot][0][h];
          v += __shfl_xor_sync(ALL, v, 1);
          v += __shfl_xor_sync(ALL, v, 2);
          if (t == 0) *at = v;
        } else {
#pragma unroll
          for (int n = 0; n < TILES; n++) at[n * 8 + 2 * t] = sums.v[slot][n % KEPT][2 * h % EACH], at[n * 8 + 2 * t + 1] = sums.v[slot][n % KEPT][2 * h % EACH + 1];
        }
      }
    settle();
    for (int i = threadIdx.x; i < 16 * R * (SLOTS / JOIN); i += THREADS) {
      int row = i % 16, r = i / 16 % R, joined = i / 16 / R;
      float total[JOIN];
#pragma unroll
      for (int m = 0; m < JOIN; m++) {
        total[m] = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
          const float* at = red + ((w * SLOTS + joined * JOIN + m) * 16 + row) * WIDTH;
          if (R == 1) {
            total[m] += at[0];
          } else {
#pragma unroll
            for (int j = 0; j < SHARING; j++)
#pragma unroll
              for (int part = 0; part < 3; part++) total[m] += at[j * QE + r * 3 + part];
          }
        }
      }
      out(joined, row, r, total);
    }
  }
};
