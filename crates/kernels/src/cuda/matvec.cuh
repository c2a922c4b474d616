// Products of stored matrices with a few rows of x, on tensor cores: sixteen outputs a block, all of K at once.
//
// A warp takes some blocks of K; its lanes read the codes of two of the sixteen outputs each, straight from memory into
// registers in the order in which mma.sync wants them (any order of K will do, as long as x lies in the same). Codes are
// exact in bf16. x is split into three bf16, exactly, which are three columns of the product; so are the groups that share a
// block of K: a column holds x for one group and zeros elsewhere. Sums are f32; scales and biases meet them group by group.
// Every sum has one order, which depends on the shape alone.

// F: format. C: columns a lane reads at a time. COLS: inputs of one matrix. R: rows of x. WARPS: per block. KS: blocks of K a
// warp reads at a time. NM: matrices that share x. REP: matrices side by side, each with inputs of its own, added up;
// WEIGHTED: each with a factor.
template <class F, int C, int COLS, int R, int WARPS, int KS, int NM, int REP, bool WEIGHTED = false> struct Matvec {
  static constexpr int BLOCK = 4 * C, KB1 = (COLS + BLOCK - 1) / BLOCK, KB = KB1 * REP, STEPS = (KB + WARPS * KS - 1) / (WARPS * KS);
  static constexpr bool SCALED = F::QUANTISED || WEIGHTED;
  static constexpr int GROUP = F::QUANTISED ? F::GROUP : BLOCK;
  static constexpr int SEGMENT = min_of(C, GROUP), SEGMENTS = C / SEGMENT; // of a lane's columns, by group
  static constexpr int SPAN = max_of(C, GROUP);                            // from a group of a segment to the next
  static constexpr int SHARING = max_of(1, BLOCK / SPAN);                  // groups that a segment of a block meets
  static constexpr int QS = 3 * R, QE = (QS + 1) / 2 * 2;                  // parts of x; filled up to pairs
  static constexpr int TILES = (SHARING * QE + 7) / 8;
  static constexpr int WORDS = C * F::BITS / 32, ROW_BYTES = COLS * F::BITS / 8, GROUPS = COLS / GROUP;
  static constexpr int ALIGN = ROW_BYTES % 16 == 0 && WORDS % 4 == 0 ? 16 : ROW_BYTES % 8 == 0 && WORDS % 2 == 0 ? 8 : 4;
  static constexpr int UNIT = min_of(C, 16), THREADS = 32 * WARPS;
  static constexpr int X_BYTES = KB * C * QS * 8, SUMS = KB1 * REP * BLOCK / GROUP * QE;
  static constexpr int SUM_BYTES = F::BIASED ? SUMS * 4 : 0, RED_BYTES = 2 * WARPS * 16 * NM * (R == 1 ? 1 : TILES * 8) * 4;
  static constexpr int SHARED_BYTES = X_BYTES + (SUM_BYTES + 15) / 16 * 16 + RED_BYTES;
  static_assert(C % 4 == 0 && COLS % UNIT == 0 && UNIT <= GROUP && (C * F::BITS) % 32 == 0, "shape");

  struct Raw { u32 codes[KS][NM][2][WORDS], scales[KS][NM][SEGMENTS][TILES][2], biases[KS][NM][SEGMENTS][TILES][2]; float factor[KS]; };
  struct Sums { float v[NM][TILES][4]; };

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

  // x as B wants it: [block of K][two mma][part][quarter], 16 bytes each, and sums of groups. `x(rep, row)` is a row of f32, null
  // past the last; `adjust(row, column, values)` may change UNIT of them.
  template <class X> DEVICE void stage(X x) { stage(x, [](int, int, float (&)[UNIT]) {}); }
  template <class X, class Adjust> DEVICE void stage(X x, Adjust adjust) {
    float* sums = (float*)(memory + X_BYTES);
    constexpr int PER_REP = KB1 * BLOCK / UNIT, UNITS = R * REP * PER_REP, PER_GROUP = GROUP / UNIT;
    for (int base = 0; base < UNITS; base += THREADS) {
      int unit = base + threadIdx.x, u = unit % PER_REP, rep = unit / PER_REP % REP, row = unit / PER_REP / REP, col = u * UNIT;
      float v[UNIT], sum = 0.0f;
#pragma unroll
      for (int i = 0; i < UNIT; i++) v[i] = 0.0f;
      const float* from = unit < UNITS ? x(rep, row) : nullptr;
      if (from && col < COLS) {
#pragma unroll
        for (int i = 0; i < UNIT; i += 4) {
          float4 f = read<float4>(from + col + i);
          v[i] = f.x, v[i + 1] = f.y, v[i + 2] = f.z, v[i + 3] = f.w;
        }
        adjust(row, col, v);
      }
      if (unit < UNITS) {
        int kb = rep * KB1 + col / BLOCK, quarter = col % BLOCK / C, mma = col % C / 4;
#pragma unroll
        for (int m = 0; m < UNIT / 4; m++) {
          Parts p[4];
#pragma unroll
          for (int i = 0; i < 2; i++) p[2 * i] = parts_of(v[F::low(2 * m + i)]), p[2 * i + 1] = parts_of(v[F::high(2 * m + i)]);
#pragma unroll
          for (int part = 0; part < 3; part++)
            write(memory + x_offset(kb, mma + m, (row * 3 + part) * 4 + quarter),
                  make_uint2(upper_halves(p[0].bits[part], p[1].bits[part]), upper_halves(p[2].bits[part], p[3].bits[part])));
        }
      }
      if (F::BIASED) {
#pragma unroll
        for (int i = 0; i < UNIT; i++) sum += v[i];
#pragma unroll
        for (int o = 1; o < PER_GROUP; o *= 2) sum += __shfl_xor_sync(ALL, sum, o);
        if (unit < UNITS && u % PER_GROUP == 0) {
          float* at = sums + (rep * (KB1 * BLOCK / GROUP) + u / PER_GROUP) * QE;
          at[row * 3] = sum, at[row * 3 + 1] = 0.0f, at[row * 3 + 2] = 0.0f;
          if (QE > QS && row == R - 1) at[QS] = 0.0f;
        }
      }
    }
  }
  static DEVICE int x_offset(int kb, int mma, int at) {
    if (C % 8) return ((kb * (C / 4) + mma) * QS * 4 + at) * 8;
    return ((kb * (C / 8) + mma / 2) * QS * 4 + at) * 16 + mma % 2 * 8;
  }

  // What a warp needs of K in one step: `at(m, rep)` is the Matrix, `factor(rep)` a factor on it; outputs from `row0`, the last
  // of which is `rows - 1`.
  template <class At, class Factor> DEVICE void load(Raw& raw, int row0, int rows, int step, At at, Factor factor) const {
#pragma unroll
    for (int ks = 0; ks < KS; ks++) {
      int kb = (step * WARPS + warp()) * KS + ks;
      if (kb >= KB) break;
      int rep = kb / KB1, block = kb % KB1, col = block * BLOCK + t * C;
      if (WEIGHTED) raw.factor[ks] = factor(rep);
#pragma unroll
      for (int m = 0; m < NM; m++) {
        Matrix matrix = at(m, rep);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          u64 row = min(row0 + g + 8 * h, rows - 1);
          words(raw.codes[ks][m][h], matrix.codes + row * ROW_BYTES + col * F::BITS / 8, col);
          if (F::QUANTISED) {
#pragma unroll
            for (int s = 0; s < SEGMENTS; s++)
#pragma unroll
              for (int n = 0; n < TILES; n++) {
                int group = (block * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
                if (COLS % BLOCK) group = min(group, GROUPS - 1);
                raw.scales[ks][m][s][n][h] = F::stored(matrix.scales, row * GROUPS + group);
                if (F::BIASED) raw.biases[ks][m][s][n][h] = F::stored(matrix.biases, row * GROUPS + group);
              }
          }
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

  DEVICE void multiply(Sums& sums, const Raw& raw, int step) const {
#pragma unroll
    for (int ks = 0; ks < KS; ks++) {
      int kb = (step * WARPS + warp()) * KS + ks;
      if (kb >= KB) break;
#pragma unroll
      for (int s = 0; s < SEGMENTS; s++) {
        float d[NM][TILES][4];
#pragma unroll
        for (int i = 0; i < NM * TILES * 4; i++) (&d[0][0][0])[i] = SCALED ? 0.0f : (&sums.v[0][0][0])[i];
#pragma unroll
        for (int i = 0; i < SEGMENT / 4; i++) {
          int k = s * SEGMENT / 4 + i;
          uint2 b[TILES];
#pragma unroll
          for (int n = 0; n < TILES; n++)
            b[n] = x_at[n] < 0 ? make_uint2(0, 0) : read<uint2>(memory + x_offset(kb, k, x_at[n]));
#pragma unroll
          for (int m = 0; m < NM; m++)
#pragma unroll
            for (int part = 0; part < F::PARTS; part++) {
              u32 a[4];
#pragma unroll
              for (int j = 0; j < 4; j++) a[j] = F::pair(raw.codes[ks][m][j % 2], 2 * k + j / 2, part);
#pragma unroll
              for (int n = 0; n < TILES; n++) mma_bf16(d[m][n], a[0], a[1], a[2], a[3], b[n].x, b[n].y);
            }
        }
        add(sums, d, raw, ks, s, kb);
      }
    }
  }
  DEVICE void add(Sums& sums, const float (&d)[NM][TILES][4], const Raw& raw, int ks, int s, int kb) const {
    const float* group_sums = (const float*)(memory + X_BYTES);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      float2 x = make_float2(0.0f, 0.0f);
      if (F::BIASED) {
        int group = (kb * BLOCK + (SHARING > 1 ? group_of[n] * SPAN : 0) + s * SEGMENT) / GROUP;
        if (TILES * 8 == SHARING * QE || n * 8 + 2 * t < SHARING * QE) x = read<float2>(group_sums + group * QE + q_of[n]);
        // A group of several blocks: its bias counts once.
        if (GROUP > BLOCK && kb % (GROUP / BLOCK)) x = make_float2(0.0f, 0.0f);
      }
#pragma unroll
      for (int m = 0; m < NM; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          float scale = F::QUANTISED ? F::value(raw.scales[ks][m][s][n][h]) : 1.0f;
          float bias = F::BIASED ? F::value(raw.biases[ks][m][s][n][h]) : 0.0f;
          if (WEIGHTED) scale *= raw.factor[ks], bias *= raw.factor[ks];
          float* v = &sums.v[m][n][2 * h];
          const float* p = &d[m][n][2 * h];
          if (SCALED) v[0] = fmaf(scale, p[0], v[0]), v[1] = fmaf(scale, p[1], v[1]);
          else v[0] = p[0], v[1] = p[1];
          if (F::BIASED) v[0] = fmaf(bias, x.x, v[0]), v[1] = fmaf(bias, x.y, v[1]);
        }
    }
  }

  // Adds up what the warps have; `out(row of the sixteen, row of x, totals [NM])` once for each. `parity` alternates from call to
  // call, so that one barrier is enough. Every thread of the block calls.
  template <class Out> DEVICE void finish(Sums& sums, int parity, Out out) const {
    float* red = (float*)(memory + X_BYTES + (SUM_BYTES + 15) / 16 * 16) + parity * (RED_BYTES / 8);
    constexpr int WIDTH = R == 1 ? 1 : TILES * 8;
#pragma unroll
    for (int m = 0; m < NM; m++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float* at = red + ((warp() * NM + m) * 16 + g + 8 * h) * WIDTH;
        if (R == 1) {
          float v = 0.0f;
#pragma unroll
          for (int n = 0; n < TILES; n++) v += sums.v[m][n][2 * h] + sums.v[m][n][2 * h + 1];
          v += __shfl_xor_sync(ALL, v, 1);
          v += __shfl_xor_sync(ALL, v, 2);
          if (t == 0) *at = v;
        } else {
#pragma unroll
          for (int n = 0; n < TILES; n++) at[n * 8 + 2 * t] = sums.v[m][n][2 * h], at[n * 8 + 2 * t + 1] = sums.v[m][n][2 * h + 1];
        }
      }
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * R; i += THREADS) {
      int row = i % 16, r = i / 16;
      float total[NM];
#pragma unroll
      for (int m = 0; m < NM; m++) {
        total[m] = 0.0f;
        for (int w = 0; w < WARPS; w++) {
          const float* at = red + ((w * NM + m) * 16 + row) * WIDTH;
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
      out(row, r, total);
    }
  }
  // All steps of one tile, the first of which is loaded: codes of the next travel while those of this one are multiplied.
  template <class Load> DEVICE void run(Sums& sums, Raw (&raw)[2], Load load) const {
    for (int step = 0; step < STEPS; step += 2) {
      if (step + 1 < STEPS) load(raw[1], step + 1);
      multiply(sums, raw[0], step);
      if (step + 1 >= STEPS) break;
      if (step + 2 < STEPS) load(raw[0], step + 2);
      multiply(sums, raw[1], step + 1);
    }
  }
  static DEVICE void clear(Sums& sums) {
#pragma unroll
    for (int i = 0; i < NM * TILES * 4; i++) (&sums.v[0][0][0])[i] = 0.0f;
  }
};
