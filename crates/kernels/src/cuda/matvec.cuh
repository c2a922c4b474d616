// The product itself. In this order a kernel calls, before its inputs are there and after:
//
//   issue_weights    codes of the first blocks of K are on their way to registers, scales to shared memory
//   x.load, x.store  x to registers and shared memory: matvec_x.cuh
//   prefetch_addend  what the results will be added to
//   barrier_x        x and scales are there
//   run              all tiles of the thread block
//
// Tiles of a launch are joined in groups of JOIN, `number` groups in all; each thread block takes every
// grid_x()-th group, SLOTS tiles a round. `at(group, m, repeat)` is tile m of a group.
template <class Shape, class Block> struct Matvec {
  typedef MatvecLayout<Shape> L;
  typedef MatvecX<Shape> X;
  typedef typename L::F F;
  static constexpr int C = L::C, COLS = L::COLS, ROWS = L::ROWS, WARPS = L::WARPS, THREADS = L::THREADS;
  static constexpr int SLOTS = L::SLOTS, JOIN = Shape::JOIN, REPEATS = L::REPEATS,
                       IN_FLIGHT = Shape::IN_FLIGHT;
  static constexpr bool ONE_ROUND = Shape::ONE_ROUND, FULL = Shape::FULL, WEIGHTED = Shape::WEIGHTED;
  static constexpr int BLOCK = L::BLOCK, BLOCKS = L::BLOCKS, BLOCKS_EACH = L::BLOCKS_EACH, STEPS = L::STEPS;
  static constexpr int GROUP = L::GROUP, GROUPS = L::GROUPS, SEGMENT = L::SEGMENT, SEGMENTS = L::SEGMENTS;
  static constexpr int SHARING = L::SHARING, SPAN = L::SPAN, TILES = L::TILES, KEPT = L::KEPT, EACH = L::EACH;
  static constexpr int PARTS = L::PARTS, PADDED_PARTS = L::PADDED_PARTS, WORDS = L::WORDS;
  static constexpr int ROW_BYTES = L::ROW_BYTES, LOAD_BYTES = L::LOAD_BYTES, SCALE_KINDS = L::SCALE_KINDS;
  static constexpr bool SCALES_COPIED = L::SCALES_COPIED, WHOLE = L::WHOLE;

  // Codes under way to registers, and scales where they do not come by copies.
  struct Raw {
    u32 codes[IN_FLIGHT][SLOTS][2][WORDS];
    u32 numbers[SCALES_COPIED ? 1 : IN_FLIGHT][SCALES_COPIED ? 1 : SLOTS][SEGMENTS][TILES][2][2];
  };
  struct Sums {
    float v[SLOTS][KEPT][EACH];
  };

  Block block;
  X x;
  u8* memory;
  int g, t;            // row and quarter of the lane
  int group_of[TILES]; // which of the sharing groups the lane's columns of D belong to
  int part_of[TILES];  // their first part of x
  int x_at[TILES];     // where the lane finds its column of B, -1 if that is zero here

  DEVICE Matvec(Block block, u8* memory) : block(block), x{memory}, memory(memory) {
    g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      int c = n * 8 + 2 * t, b = n * 8 + g;
      group_of[n] = min(c / PADDED_PARTS, SHARING - 1), part_of[n] = c % PADDED_PARTS;
      bool mine = SHARING == 1 || t * C / SPAN == b / PADDED_PARTS;
      x_at[n] =
          mine && b / PADDED_PARTS < SHARING && b % PADDED_PARTS < PARTS ? b % PADDED_PARTS * 4 + t : -1;
    }
  }

  DEVICE int group_at(int round, int slot) const {
    return (round * (SLOTS / JOIN) + slot / JOIN) * block.grid_x() + block.x();
  }

  // Codes of the first blocks of K, IN_FLIGHT of them for each warp.
  template <class At> DEVICE void issue_weights(Raw& raw, int number, At at) const {
    if (STEPS > 1) prefetch_codes(0, number, at);
    if (SCALES_COPIED) copy_scales(0, number, at);
#pragma unroll
    for (int k = 0; k < IN_FLIGHT; k++)
#pragma unroll
      for (int slot = 0; slot < SLOTS; slot++) load(raw, k, slot, 0, 0, number, at);
  }

  // Waits for x and, where they come by copies, for scales.
  static DEVICE void barrier_x() {
    if (SCALES_COPIED) copies_wait<0>();
    __syncthreads();
  }

  // Whether each output of the thread block has a thread to itself; that one may read what it adds to before
  // the product.
  static constexpr bool THREAD_PER_OUTPUT = ONE_ROUND && 16 * ROWS * (SLOTS / JOIN) <= THREADS;
  template <class Of> DEVICE float prefetch_addend(int number, Of of) const {
    int i = threadIdx.x, group = group_at(0, i / 16 / ROWS * JOIN);
    return THREAD_PER_OUTPUT && i < 16 * ROWS * (SLOTS / JOIN) && group < number
               ? of(group, i % 16, i / 16 % ROWS)
               : 0.0f;
  }

  // All tiles of the thread block, after issue_weights: codes of another block of K travel as soon as
  // registers are free. `factor(repeat)` is what a matrix counts; `out(group, row of the sixteen, row of x,
  // totals [JOIN])` once for each output.
  template <class At, class Factor, class Out>
  DEVICE void run(Raw& raw, int number, At at, Factor factor, Out out) const {
    for (int round = 0; round == 0 || (!ONE_ROUND && group_at(round, 0) < number); round++) {
      if (!ONE_ROUND) prefetch_codes(round + 1, number, at);
      if (!ONE_ROUND && SCALES_COPIED) copy_scales(round + 1, number, at);
      Sums sums;
#pragma unroll
      for (int i = 0; i < SLOTS * KEPT * EACH; i++) (&sums.v[0][0][0])[i] = 0.0f;
      for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; k++)
#pragma unroll
          for (int slot = 0; slot < SLOTS; slot++) {
            multiply(sums, raw, k, slot, step, round, factor);
            load(raw, k, slot, step + 1, round, number, at);
          }
      reduce(sums, round & 1, [&](int slot, int row, int r, const float* total) {
        int group = group_at(round, slot * JOIN);
        if (group < number) out(group, row, r, total);
      });
    }
  }

  // What a warp needs of a block of K for one tile, on its way.
  template <class At>
  DEVICE void load(Raw& raw, int k, int slot, int step, int round, int number, At at) const {
    if (step == STEPS) {
      if (ONE_ROUND) return;
      step = 0, round++;
    }
    int kb = (step * WARPS + warp()) * IN_FLIGHT + k, group = group_at(round, slot);
    if ((!WHOLE && kb >= BLOCKS) || group >= number) return;
    int repeat = kb / BLOCKS_EACH, in = kb % BLOCKS_EACH, col = in * BLOCK + t * C;
    WeightTile tile = at(group, slot % JOIN, repeat);
    // The lane's two rows: where tiles are full, all that it reads is at fixed distances from one place.
    u32 first = FULL ? tile.row0 + g : min(tile.row0 + g, tile.rows - 1);
    u32 more = FULL ? 8 : min(tile.row0 + g + 8, tile.rows - 1) - first;
    const u8* codes = tile.matrix.codes + (u64)first * ROW_BYTES + col * F::BITS / 8;
#pragma unroll
    for (int h = 0; h < 2; h++) load_words(raw.codes[k][slot][h], codes + h * more * ROW_BYTES, col);
    if constexpr (F::QUANTISED && !SCALES_COPIED) {
#pragma unroll
      for (int s = 0; s < SEGMENTS; s++)
#pragma unroll
        for (int n = 0; n < TILES; n++) {
          int scale = (in * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
          if (COLS % BLOCK) scale = min(scale, GROUPS - 1);
          u64 from = (u64)first * GROUPS + scale;
#pragma unroll
          for (int h = 0; h < 2; h++) {
            u32(&of)[2] = raw.numbers[SCALES_COPIED ? 0 : k][SCALES_COPIED ? 0 : slot][s][n][h];
            of[0] = F::stored(tile.matrix.scales, from + h * more * GROUPS);
            if (F::BIASED) of[1] = F::stored(tile.matrix.biases, from + h * more * GROUPS);
          }
        }
    }
  }
  static DEVICE void load_words(u32 (&w)[WORDS], const u8* p, int col) {
#pragma unroll
    for (int i = 0; i < WORDS; i += LOAD_BYTES / 4) {
      if (COLS % BLOCK && col + i * 32 / F::BITS >= COLS) {
#pragma unroll
        for (int k = 0; k < LOAD_BYTES / 4; k++) w[i + k] = 0;
      } else if (LOAD_BYTES == 16) {
        uint4 v = stream16(p + 4 * i);
        w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
      } else if (LOAD_BYTES == 8) {
        uint2 v = stream8(p + 4 * i);
        w[i] = v.x, w[i + 1] = v.y;
      } else {
        w[i] = stream4(p + 4 * i);
      }
    }
  }

  template <class Factor>
  DEVICE void multiply(Sums& sums, const Raw& raw, int k, int slot, int step, int round,
                       Factor factor) const {
    int kb = (step * WARPS + warp()) * IN_FLIGHT + k;
    if (!WHOLE && kb >= BLOCKS) return;
    const u8* b_at[TILES];
#pragma unroll
    for (int n = 0; n < TILES; n++)
      b_at[n] =
          memory + (x_at[n] < 0 ? BLOCKS * L::BLOCK_BYTES : kb * L::BLOCK_BYTES + x_at[n] * (C % 8 ? 8 : 16));
#pragma unroll
    for (int s = 0; s < SEGMENTS; s++) {
      float d[TILES][4];
#pragma unroll
      for (int i = 0; i < TILES * 4; i++)
        (&d[0][0])[i] = L::SCALED ? 0.0f : (&sums.v[slot][0][0])[i % (KEPT * EACH)];
#pragma unroll
      for (int i = 0; i < SEGMENT / 4; i++) {
        int m = s * SEGMENT / 4 + i; // mma of the block of K
        uint2 b[TILES];
#pragma unroll
        for (int n = 0; n < TILES; n++)
          b[n] = read<uint2>(b_at[n] + (C % 8 ? m * PARTS * 32 : m / 2 * PARTS * 64 + m % 2 * 8));
#pragma unroll
        for (int part = 0; part < F::PARTS; part++) {
          u32 a[4];
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const u32(&words)[WORDS] = raw.codes[k][slot][j % 2];
            a[j] = F::QUANTISED ? F::small_pair(words, 2 * m + j / 2) : F::pair(words, 2 * m + j / 2, part);
          }
#pragma unroll
          for (int n = 0; n < TILES; n++) {
            if (F::QUANTISED) mma_f16(d[n], a[0], a[1], a[2], a[3], b[n].x, b[n].y);
            else mma_bf16(d[n], a[0], a[1], a[2], a[3], b[n].x, b[n].y);
          }
        }
      }
      add(sums.v[slot], d, raw, k, slot, s, kb, round, WEIGHTED ? factor(kb / BLOCKS_EACH) : 1.0f);
    }
  }
  // Adds up the products of a segment, with scales and biases of their groups.
  DEVICE void add(float (&sums)[KEPT][EACH], const float (&d)[TILES][4], const Raw& raw, int k, int slot,
                  int s, int kb, int round, float factor) const {
    const float *group_sums = (const float*)(memory + L::SUMS_AT),
                *powers = (const float*)(memory + L::POWERS_AT);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      int of_group = (kb * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
      int at = of_group * PADDED_PARTS + part_of[n];
      bool inside = TILES * 8 == SHARING * PADDED_PARTS || n * 8 + 2 * t < SHARING * PADDED_PARTS;
      float2 sum = make_float2(0.0f, 0.0f), power = make_float2(factor, factor);
      // A group of several blocks: its bias counts once.
      if (F::BIASED && inside && (GROUP <= BLOCK || kb % (GROUP / BLOCK) == 0))
        sum = read<float2>(group_sums + at);
      if (F::QUANTISED) power = inside ? read<float2>(powers + at) : make_float2(0.0f, 0.0f);
      if (WEIGHTED && F::QUANTISED) sum.x *= factor, sum.y *= factor, power.x *= factor, power.y *= factor;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        auto number = [&](int kind) {
          if (!SCALES_COPIED)
            return late(raw.numbers[SCALES_COPIED ? 0 : k][SCALES_COPIED ? 0 : slot][s][n][h][kind]);
          int group =
              (kb % BLOCKS_EACH * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
          return copied_scale(round, slot, kb / BLOCKS_EACH, kind, g + 8 * h,
                              COLS % BLOCK ? min(group, GROUPS - 1) : group);
        };
        float scale = F::QUANTISED ? F::value(number(0)) : 1.0f,
              bias = F::BIASED ? F::value(number(1)) : 0.0f;
        const float* p = &d[n][2 * h];
        if (ROWS == 1) {
          float& v = sums[0][h];
          v = fmaf(scale * power.x, p[0] + p[1], v);
          if (F::BIASED) v = fmaf(bias, sum.x, v);
          continue;
        }
        float* v = &sums[n % KEPT][2 * h % EACH];
        if (L::SCALED) v[0] = fmaf(scale * power.x, p[0], v[0]), v[1] = fmaf(scale * power.y, p[1], v[1]);
        else v[0] = p[0], v[1] = p[1];
        if (F::BIASED) v[0] = fmaf(bias, sum.x, v[0]), v[1] = fmaf(bias, sum.y, v[1]);
      }
    }
  }

  // Scales of a round start on their way to shared memory.
  template <class At> DEVICE void copy_scales(int round, int number, At at) const {
    constexpr int ROW = L::SCALE_ROW, PADDED = L::PADDED_ROW;
    constexpr int CHUNKS = ROW, ALL_CHUNKS = SLOTS * REPEATS * SCALE_KINDS * CHUNKS; // of sixteen bytes
#pragma unroll
    for (int base = 0; base < ALL_CHUNKS; base += THREADS) {
      int i = base + threadIdx.x, tile_at = i / max_of(CHUNKS, 1), slot = tile_at / SCALE_KINDS % SLOTS;
      int group = group_at(round, slot);
      if (i >= ALL_CHUNKS || group >= number) continue;
      WeightTile tile = at(group, slot % JOIN, tile_at / SCALE_KINDS / SLOTS);
      int byte = i % max_of(CHUNKS, 1) * 16;
      int to = PADDED == ROW ? byte : byte / max_of(ROW, 1) * PADDED + byte % max_of(ROW, 1);
      const u8* from =
          (F::BIASED && tile_at % 2 ? tile.matrix.biases : tile.matrix.scales) + (u64)tile.row0 * ROW + byte;
      copy_async<16>(memory + L::SCALES_AT + scales_of(round) + tile_at * L::SCALE_TILE + to, from);
    }
    copies_close();
  }
  static DEVICE int scales_of(int round) { return (ONE_ROUND ? 0 : round % 2) * L::SCALE_ROUND; }
  // Scale (kind 0) or bias (1) of a row of a tile, as stored.
  DEVICE u32 copied_scale(int round, int slot, int repeat, int kind, int row, int group) const {
    int tile = (repeat * SLOTS + slot) * SCALE_KINDS + kind;
    const u8* at = memory + L::SCALES_AT + scales_of(round) + tile * L::SCALE_TILE + row * L::PADDED_ROW;
    if (F::SCALE_BYTES == 4) return read<u32>(at + group * 4);
    if (F::SCALE_BYTES == 2) return read<u16>(at + group * 2);
    return read<u8>(at + group);
  }

  // Codes of a round start on their way to L2: what lies in one piece by one thread.
  template <class At> DEVICE void prefetch_codes(int round, int number, At at) const {
    for (int i = THREADS - 1 - threadIdx.x; FULL && i < SLOTS * REPEATS; i += THREADS) {
      int slot = i % SLOTS, group = group_at(round, slot);
      if (group >= number) continue;
      WeightTile tile = at(group, slot % JOIN, i / SLOTS);
      fetch_to_l2(tile.matrix.codes + (u64)tile.row0 * ROW_BYTES, 16 * ROW_BYTES);
    }
  }

  // Adds up what the warps have. `parity` alternates from call to call, so that one barrier is enough. Every
  // thread of the thread block calls.
  template <class Out> DEVICE void reduce(const Sums& sums, int parity, Out out) const {
    constexpr int WIDTH = L::WIDTH;
    float* all = (float*)(memory + L::REDUCE_AT) + parity * (L::REDUCE_BYTES / 8);
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float* at = all + ((warp() * SLOTS + slot) * 16 + g + 8 * h) * WIDTH;
        if (ROWS == 1) {
          float v = sums.v[slot][0][h];
          v += __shfl_xor_sync(ALL, v, 1);
          v += __shfl_xor_sync(ALL, v, 2);
          if (t == 0) *at = v;
        } else {
#pragma unroll
          for (int n = 0; n < TILES; n++) {
            at[n * 8 + 2 * t] = sums.v[slot][n % KEPT][2 * h % EACH];
            at[n * 8 + 2 * t + 1] = sums.v[slot][n % KEPT][2 * h % EACH + 1];
          }
        }
      }
    barrier_x(); // and for scales of the next round
    for (int i = threadIdx.x; i < 16 * ROWS * (SLOTS / JOIN); i += THREADS) {
      int row = i % 16, r = i / 16 % ROWS, joined = i / 16 / ROWS;
      float total[JOIN];
#pragma unroll
      for (int m = 0; m < JOIN; m++) {
        total[m] = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
          const float* at = all + ((w * SLOTS + joined * JOIN + m) * 16 + row) * WIDTH;
          if (ROWS == 1) {
            total[m] += at[0];
          } else {
#pragma unroll
            for (int j = 0; j < SHARING; j++)
#pragma unroll
              for (int part = 0; part < 3; part++) total[m] += at[j * PADDED_PARTS + r * 3 + part];
          }
        }
      }
      out(joined, row, r, total);
    }
  }
};
