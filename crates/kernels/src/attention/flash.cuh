// Attention of many query rows on tensor cores.
//
// Keys and values come to shared memory 32 positions at a time, as two bf16 parts each, like queries and the
// weights of values; of the products of parts the largest three are taken, so sixteen bits are left of each.
// Softmax goes along with the positions.

// S: CacheShape. WARPS have sixteen queries each, those of HEADS heads of one key head, row by row; WARPS_V
// share those and have each a part of the value dims.
template <class S, int HEADS, int WARPS, int WARPS_V> struct Flash {
  typedef typename S::Element Element;
  typedef typename S::Cache Cache;
  static constexpr int K_WIDTH = S::K_WIDTH, V_WIDTH = S::V_WIDTH, DIM = S::DIM, V_DIM = S::V_DIM, Q = S::Q;

  static constexpr int QUERIES = 16 * WARPS, ROWS = QUERIES / HEADS, THREADS = 32 * WARPS * WARPS_V,
                       PLANES = (DIM + 31) / 32;
  static constexpr int TILES_V = V_DIM / 8 / WARPS_V; // of a warp
  static_assert(V_DIM % (8 * WARPS_V) == 0, "whole tiles");
  // [32 dims][part][query or position][quarter][8], [part][value dim][quarter][8 positions]; quarters are
  // mixed so that eight lanes meet no bank twice.
  struct Shared {
    ALIGNED(16) u8 q[PLANES * 2 * QUERIES * 64], k[PLANES * 2 * 32 * 64], v[2 * V_DIM * 64];
  };
  static DEVICE int place(int plane, int rows, int row, int t) {
    return (plane * rows + row) * 64 + (t ^ row / 2 % 4) * 16;
  }
  static DEVICE int place_value(int part, int d, int t) {
    return (part * V_DIM + d) * 64 + (t ^ d / 4 % 4) * 16;
  }

  struct Args {
    const Step* step;
    Cache cache;
    Rows q, out;
    const float* sinks; // or null
    u32 group;          // query heads per key head
    u32 sliding, chunk; // width of a window, or 0
    float scale, softcap;
    u32 unused;
  };

  static DEVICE int first_seen(const Args& a, int position) {
    if (a.sliding) return max(0, position + 1 - (int)a.sliding);
    return a.chunk ? position / (int)a.chunk * (int)a.chunk : 0;
  }

  // Eight numbers in two parts.
  struct Both {
    uint4 part[2];
  };
  static DEVICE Both both_of(const float (&x)[8]) {
    u32 high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      high[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
      low[i] = pack_bf16(x[2 * i] - bf16_to_f32(high[i] & 0xffff), x[2 * i + 1] - bf16_to_f32(high[i] >> 16));
    }
    return {{make_uint4(high[0], high[1], high[2], high[3]), make_uint4(low[0], low[1], low[2], low[3])}};
  }

  // Queries from row `row0` to before `end`, zeros past the last.
  static DEVICE void load_queries(const Args& a, Shared& s, int row0, int end, int head0) {
    for (int i = threadIdx.x; i < QUERIES * PLANES * 4; i += THREADS) {
      int query = i / (PLANES * 4), d = i % (PLANES * 4) * 8, row = row0 + query / HEADS,
          head = head0 + query % HEADS;
      float x[8];
#pragma unroll
      for (int j = 0; j < 8; j++)
        x[j] = query < ROWS * HEADS && row < end && d + j < K_WIDTH ? a.q.row(row)[head * K_WIDTH + d + j]
                                                                    : 0.0f;
      Both both = both_of(x);
#pragma unroll
      for (int p = 0; p < 2; p++) write(s.q + place(d / 32 * 2 + p, QUERIES, query, d / 8 % 4), both.part[p]);
    }
  }

  // 32 positions from `base` on; values past `last` are zero.
  static DEVICE void load_positions(const Args& a, Shared& s, u32 slot, int kv_head, int base, int last) {
    const Element *keys = a.cache.key_block(slot, kv_head, base),
                  *values = a.cache.value(slot, kv_head, base);
#pragma unroll 4
    for (int i = threadIdx.x; i < 32 * PLANES * 4; i += THREADS) {
      int position = i % 32, d = i / 32 * 8;
      float x[8] = {};
      if (d < DIM) {
#pragma unroll
        for (int j = 0; j < 8; j += Q) {
          float part[Q];
          S::from_elements(read<uint4>(keys + ((d + j) / Q * 32 + position) * Q), part);
#pragma unroll
          for (int k = 0; k < Q; k++) x[j + k] = part[k];
        }
      }
      Both both = both_of(x);
#pragma unroll
      for (int p = 0; p < 2; p++) write(s.k + place(d / 32 * 2 + p, 32, position, d / 8 % 4), both.part[p]);
    }
    // Positions 2t, 2t + 1, 8 and 9 more, and those 16 later are what a lane of quarter t multiplies.
    for (int i = threadIdx.x; i < V_DIM; i += THREADS) {
      int d = i % (V_DIM / 4) * 4, t = i / (V_DIM / 4);
      float x[8][4];
#pragma unroll
      for (int j = 0; j < 8; j++) {
        int n = 2 * t + j % 2 + j / 2 * 8;
        const Element* from = values + n * V_DIM + d;
        if (base + n > last) {
#pragma unroll
          for (int k = 0; k < 4; k++) x[j][k] = 0.0f;
        } else if (Q == 4) {
          float4 v = read<float4>(from);
          x[j][0] = v.x, x[j][1] = v.y, x[j][2] = v.z, x[j][3] = v.w;
        } else {
          uint2 v = read<uint2>(from);
          x[j][0] = f16_to_f32((u16)v.x), x[j][1] = f16_to_f32((u16)(v.x >> 16)),
          x[j][2] = f16_to_f32((u16)v.y), x[j][3] = f16_to_f32((u16)(v.y >> 16));
        }
      }
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float column[8];
#pragma unroll
        for (int j = 0; j < 8; j++) column[j] = x[j][k];
        Both both = both_of(column);
#pragma unroll
        for (int p = 0; p < 2; p++) write(s.v + place_value(p, d + k, t), both.part[p]);
      }
    }
  }

  // d += A B of parts: A sixteen rows by 32, `a[part][h]` of rows g + 8h; B 32 by eight columns of each n.
  template <int N>
  static DEVICE void multiply(float (*d)[4], const uint4 (&a)[2][2], const uint4 (&b)[N][2]) {
#pragma unroll
    for (int product = 2; product >= 0; product--) {
      const uint4 &low = a[product == 2][0], &high = a[product == 2][1];
#pragma unroll
      for (int n = 0; n < N; n++)
        mma_bf16(d[n], low.x, high.x, low.y, high.y, b[n][product == 1].x, b[n][product == 1].y);
#pragma unroll
      for (int n = 0; n < N; n++)
        mma_bf16(d[n], low.z, high.z, low.w, high.w, b[n][product == 1].z, b[n][product == 1].w);
    }
  }

  // What a lane has of its queries g and g + 8 of the warp, and of those the positions they see.
  struct Seen {
    int first[2], last[2];
  };
  struct Running {
    float most[2], sum[2], out[TILES_V][4];
  };

  static DEVICE void attend(const Args& a, const Shared& s, Running& r, const Seen& seen, int base) {
    int g = lane() / 4, t = lane() % 4, query0 = warp() % WARPS * 16, d0 = warp() / WARPS * TILES_V * 8;
    float p[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++) p[i / 4][i % 4] = 0.0f;
#pragma unroll
    for (int plane = 0; plane < PLANES; plane++) {
      uint4 q[2][2];
#pragma unroll
      for (int i = 0; i < 4; i++)
        q[i / 2][i % 2] = read<uint4>(s.q + place(plane * 2 + i / 2, QUERIES, query0 + i % 2 * 8 + g, t));
      uint4 k[4][2];
#pragma unroll
      for (int i = 0; i < 8; i++)
        k[i / 2][i % 2] = read<uint4>(s.k + place(plane * 2 + i % 2, 32, i / 2 * 8 + g, t));
      multiply<4>(p, q, k);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float most = r.most[h];
#pragma unroll
      for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          int position = base + n * 8 + 2 * t + i;
          float x = p[n][2 * h + i] * a.scale;
          if (a.softcap > 0.0f) x = a.softcap * tanhf(x / a.softcap);
          x = position >= seen.first[h] && position <= seen.last[h] ? x : lowest();
          p[n][2 * h + i] = x, most = most < x ? x : most;
        }
#pragma unroll
      for (int o = 1; o < 4; o *= 2) {
        float other = __shfl_xor_sync(ALL, most, o);
        most = most < other ? other : most;
      }
      float keep = share(r.most[h], most);
      r.most[h] = most, r.sum[h] *= keep;
#pragma unroll
      for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float x = share(p[n][2 * h + i], most);
          p[n][2 * h + i] = x, r.sum[h] += x;
        }
#pragma unroll
      for (int n = 0; n < TILES_V; n++) r.out[n][2 * h] *= keep, r.out[n][2 * h + 1] *= keep;
    }
    // Weights as rows of A: positions as the lane has them.
    uint4 w[2][2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float x[8];
#pragma unroll
      for (int n = 0; n < 4; n++) x[2 * n] = p[n][2 * h], x[2 * n + 1] = p[n][2 * h + 1];
      Both both = both_of(x);
      w[0][h] = both.part[0], w[1][h] = both.part[1];
    }
    constexpr int N = TILES_V % 4 == 0 ? 4 : TILES_V % 2 == 0 ? 2 : 1;
#pragma unroll
    for (int n0 = 0; n0 < TILES_V; n0 += N) {
      uint4 v[N][2];
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int part = 0; part < 2; part++)
          v[n][part] = read<uint4>(s.v + place_value(part, d0 + (n0 + n) * 8 + g, t));
      multiply<N>(&r.out[n0], w, v);
    }
  }

  // Grid: tiles of rows, the last ones first since they see most; groups of heads.
  template <class Block> static DEVICE void run(const Args& a, Block block, Shared& s) {
    block.wait_for_inputs();
    int row0 = (block.grid_x() - 1 - block.x()) * ROWS, end = min(row0 + ROWS, a.step->rows),
        head0 = block.y() * HEADS;
    if (row0 >= end) return;
    load_queries(a, s, row0, end, head0);
    Running r;
#pragma unroll
    for (int i = 0; i < TILES_V * 4; i++) r.out[i / 4][i % 4] = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; h++) r.most[h] = lowest(), r.sum[h] = 0.0f;
    // Rows of one sequence at a time.
    for (int from = row0, to; from < end; from = to) {
      const StepRow at = a.step->row[from];
      for (to = from + 1; to < end && a.step->row[to].slot == at.slot;) to++;
      Seen seen;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        int query = warp() % WARPS * 16 + 8 * h + lane() / 4, row = row0 + query / HEADS;
        bool mine = query < ROWS * HEADS && row >= from && row < to;
        seen.last[h] = mine ? (int)a.step->row[row].position : -1;
        seen.first[h] = mine ? first_seen(a, seen.last[h]) : 0;
      }
      int last = a.step->row[to - 1].position;
      for (int base = first_seen(a, at.position) / 32 * 32; base <= last; base += 32) {
        __syncthreads();
        load_positions(a, s, at.slot, head0 / a.group, base, last);
        __syncthreads();
        attend(a, s, r, seen, base);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int query = warp() % WARPS * 16 + 8 * h + lane() / 4, row = row0 + query / HEADS,
          head = head0 + query % HEADS;
      float sum = r.sum[h], factor = 1.0f;
      sum += __shfl_xor_sync(ALL, sum, 1);
      sum += __shfl_xor_sync(ALL, sum, 2);
      if (query >= ROWS * HEADS || row >= end) continue;
      if (a.sinks) {
        float sink = constant(a.sinks + head), most = r.most[h] < sink ? sink : r.most[h];
        factor = share(r.most[h], most), sum = sum * factor + expf(sink - most);
      }
      float* out = a.out.row(row) + head * V_WIDTH;
#pragma unroll
      for (int n = 0; n < TILES_V; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          int d = (warp() / WARPS * TILES_V + n) * 8 + 2 * (lane() % 4) + i;
          if (d < V_WIDTH) out[d] = r.out[n][2 * h + i] * factor / sum;
        }
    }
  }
};
