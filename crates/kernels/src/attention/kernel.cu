// Keys and values, and attention over them. Macros: K_HALF (stored as f16), K_DIM, K_V_DIM, K_HEADS (query heads a block serves,
// of one key head), K_WARPS, K_SPLITS (most splits of the positions).

struct AppendArgs { const Step* step; Cache cache; Rows k, v; };
KERNEL(kv_append, AppendArgs, 256) {
  begin();
  int row = blockIdx.y, i = blockIdx.x * 256 + threadIdx.x;
  if (row >= a.step->rows || i >= (int)a.cache.kv_heads * (DIM + V_DIM)) return;
  StepRow at = a.step->row[row];
  int head = i / (DIM + V_DIM), d = i % (DIM + V_DIM);
  if (d < DIM) {
    float x = d < K_DIM ? a.k.row(row)[head * K_DIM + d] : 0.0f;
    a.cache.key_block(at.slot, head, at.position)[(d / Q * 32 + at.position % 32) * Q + d % Q] = to_element(x);
  } else {
    d -= DIM;
    float x = d < K_V_DIM ? a.v.row(row)[head * K_V_DIM + d] : 0.0f;
    a.cache.value(at.slot, head, at.position)[d] = to_element(x);
  }
}

// What becomes of the heads of one buffer before attention.
struct Heads {
  Rows x;
  const float* weight; // of the norm, or null
  const double* turns; // per position, of each pair; null: no rotation
  u32 heads, dim, first, half, interleaved;
  u32 norm, append; // append: 0 nowhere, 1 to the keys, 2 to the values
  float eps, scale, amplitude;
};
struct HeadsArgs {
  const Step* step;
  Cache cache;
  Heads of[3];
};

// Norm, rotation and appending of one head per warp, of queries, keys and values.
KERNEL(heads, HeadsArgs, 256) {
  DYNAMIC_SHARED(float, memory);
  begin();
  int row = blockIdx.y, head = blockIdx.x * 8 + warp(), i = 0;
  while (i < 3 && head >= (int)a.of[i].heads) head -= a.of[i++].heads;
  if (row >= a.step->rows || i == 3) return;
  const Heads& h = a.of[i];
  StepRow at = a.step->row[row];
  int dim = h.dim;
  float *x = h.x.row(row) + head * dim, *y = memory + warp() * max(DIM, V_DIM), sum = 0.0f;
  for (int d = lane(); d < dim; d += 32) {
    float v = x[d];
    y[d] = v, sum = fmaf(v, v, sum);
  }
  if (h.norm) {
    float factor = 1.0f / sqrtf(warp_sum(sum) / dim + h.eps);
    for (int d = lane(); d < dim; d += 32) y[d] = y[d] * factor * (h.weight ? constant(h.weight + d) : 1.0f) * h.scale;
  }
  __syncwarp();
  if (h.turns)
    for (int pair = lane(); pair < (int)h.half; pair += 32) {
      float sine, cosine, *low = y + h.first + (h.interleaved ? 2 * pair : pair), *high = low + (h.interleaved ? 1 : h.half);
      turn(at.position, constant(h.turns + pair), h.amplitude, sine, cosine);
      float l = *low, u = *high;
      *low = l * cosine - u * sine, *high = u * cosine + l * sine;
    }
  __syncwarp();
  for (int d = lane(); d < dim && (h.norm || h.turns); d += 32) x[d] = y[d];
  if (h.append == 1)
    for (int d = lane(); d < DIM; d += 32)
      a.cache.key_block(at.slot, head, at.position)[(d / Q * 32 + at.position % 32) * Q + d % Q] = to_element(d < dim ? y[d] : 0.0f);
  if (h.append == 2)
    for (int d = lane(); d < V_DIM; d += 32) a.cache.value(at.slot, head, at.position)[d] = to_element(d < dim ? y[d] : 0.0f);
}

struct AttentionArgs {
  const Step* step;
  Cache cache;
  Rows q, out;
  const float* sinks; // or null
  float *partial, *stats; // [row, head, split, V_DIM]: output; [row, head, split, 2]: largest score, sum
  u32* tickets;           // [row, group of heads], zero
  u32 group;              // query heads per key head
  u32 sliding, chunk;     // width of a window, or 0
  float scale, softcap;
  u32 unused;
};

// A warp looks at POSITIONS positions at a time, four warps at 32 side by side. Lane l scores position l % 8 over a quarter of
// the key, and owns VQ elements of each 32 * VQ of the value.
#if K_HALF && K_V_DIM <= 128
typedef uint2 Piece;
#else
typedef uint4 Piece;
#endif
constexpr int H = K_HEADS, POSITIONS = 8, CHUNKS = DIM / Q, OWN_CHUNKS = (CHUNKS + 3) / 4;
constexpr int VQ = sizeof(Piece) / sizeof(Element), LANES_V = (V_DIM / VQ + 31) / 32;
// Whether all that a warp reads of its positions may be on its way at once.
constexpr bool AT_ONCE = OWN_CHUNKS <= 8 && LANES_V == 1;
static_assert(K_WARPS * POSITIONS == 32, "a block of positions");
struct AttentionShared {
  ALIGNED(16) float q[H][DIM];
  float p[K_WARPS][H][POSITIONS];
  float most[K_WARPS][H], sum[K_WARPS][H];
  ALIGNED(16) float out[K_WARPS][H][V_DIM];
  float weight[H][K_SPLITS], all[H];
  u32 ticket;
};

// What a lane reads of 8 positions.
struct Tile {
  uint4 keys[OWN_CHUNKS];
  Piece values[AT_ONCE ? POSITIONS : 1];
  DEVICE void load_keys(const Element* keys_of) {
#pragma unroll
    for (int i = 0; i < OWN_CHUNKS; i++) {
      int c = 4 * i + lane() / POSITIONS;
      if (CHUNKS % 4 == 0 || c < CHUNKS) keys[i] = read<uint4>(keys_of + (c * 32 + lane() % POSITIONS) * Q);
    }
  }
  DEVICE void load_values(const Element* values_of, int begin, int end) {
    int d = lane() * VQ;
#pragma unroll
    for (int n = 0; n < POSITIONS; n++)
      if (n >= begin && n < end && (V_DIM == 32 * VQ || d < V_DIM)) values[n] = read<Piece>(values_of + n * V_DIM + d);
  }
};
struct Running { float most[H], sum[H], out[H][LANES_V][VQ]; };

// Scores of the lane's position, whole on every lane of it.
DEVICE void scores(const AttentionArgs& a, const AttentionShared& s, const Tile& tile, float (&score)[H]) {
#pragma unroll
  for (int h = 0; h < H; h++) score[h] = 0.0f;
#pragma unroll
  for (int i = 0; i < OWN_CHUNKS; i++) {
    int c = 4 * i + lane() / POSITIONS;
    if (CHUNKS % 4 && c >= CHUNKS) continue;
    float k[Q];
    from_elements(tile.keys[i], k);
#pragma unroll
    for (int h = 0; h < H; h++)
#pragma unroll
      for (int e = 0; e < Q; e += 4) {
        float4 q = read<float4>(&s.q[h][c * Q + e]);
        score[h] = fmaf(q.x, k[e], fmaf(q.y, k[e + 1], fmaf(q.z, k[e + 2], fmaf(q.w, k[e + 3], score[h]))));
      }
  }
#pragma unroll
  for (int h = 0; h < H; h++) {
    score[h] += __shfl_xor_sync(ALL, score[h], 8);
    score[h] += __shfl_xor_sync(ALL, score[h], 16);
    score[h] *= a.scale;
    if (a.softcap > 0.0f) score[h] = a.softcap * tanhf(score[h] / a.softcap);
  }
}

template <class T> DEVICE T max_of_positions(T v) {
#pragma unroll
  for (int o = POSITIONS / 2; o; o >>= 1) {
    T other = __shfl_xor_sync(ALL, v, o);
    v = v < other ? other : v;
  }
  return v;
}

DEVICE void add_value(const AttentionShared& s, Running& r, Piece stored, int l, int n) {
  float v[VQ];
  from_elements(stored, v);
#pragma unroll
  for (int h = 0; h < H; h++)
#pragma unroll
    for (int i = 0; i < VQ; i++) r.out[h][l][i] = fmaf(s.p[warp()][h][n], v[i], r.out[h][l][i]);
}

// Online softmax of a warp over 8 positions from `base` on, of which [first, last] are seen.
DEVICE void attend_tile(const AttentionArgs& a, AttentionShared& s, Running& r, StepRow at, int kv_head, int base, int first, int last) {
  int begin = max(first - base, 0), end = min(last + 1 - base, POSITIONS), position = base + lane() % POSITIONS;
  const Element* values = a.cache.value(at.slot, kv_head, base);
  Tile tile;
  tile.load_keys(a.cache.key_block(at.slot, kv_head, base) + base % 32 * Q);
  if (AT_ONCE) tile.load_values(values, begin, end);
  float score[H];
  scores(a, s, tile, score);
  bool seen = position >= first && position <= last;
#pragma unroll
  for (int h = 0; h < H; h++) {
    float x = seen ? score[h] : lowest(), most = max_of_positions(x);
    most = most < r.most[h] ? r.most[h] : most;
    float keep = share(r.most[h], most), p = seen ? expf(x - most) : 0.0f;
    r.most[h] = most;
    r.sum[h] = r.sum[h] * keep + p;
    if (lane() < POSITIONS) s.p[warp()][h][lane()] = p;
#pragma unroll
    for (int i = 0; i < LANES_V * VQ; i++) (&r.out[h][0][0])[i] *= keep;
  }
  __syncwarp();
  if (AT_ONCE) {
#pragma unroll
    for (int n = 0; n < POSITIONS; n++)
      if (n >= begin && n < end && (V_DIM == 32 * VQ || lane() * VQ < V_DIM)) add_value(s, r, tile.values[n], 0, n);
  } else {
#pragma unroll 4
    for (int n = begin; n < end; n++) {
#pragma unroll
      for (int l = 0; l < LANES_V; l++) {
        int d = (l * 32 + lane()) * VQ;
        if (d < V_DIM) add_value(s, r, read<Piece>(values + n * V_DIM + d), l, n);
      }
    }
  }
  __syncwarp();
}

// Largest score of all and each part's weight: a warp per head, a lane per split.
DEVICE void weigh(AttentionShared& s, const float* stats, u64 first_part, const float* sink, int splits, int active) {
  for (int h = warp(); h < H; h += K_WARPS) {
    const float* of = stats + (first_part + (u64)h * splits) * 2;
    float most = sink ? constant(sink + h) : lowest(), sum = 0.0f;
    for (int n = lane(); n < active; n += 32) {
      float m = read_fresh(of + 2 * n);
      s.weight[h][n] = m;
      most = most < m ? m : most;
    }
    most = warp_max(most);
    for (int n = lane(); n < active; n += 32) {
      float weight = share(s.weight[h][n], most);
      s.weight[h][n] = weight;
      if (weight != 0.0f) sum = fmaf(weight, read_fresh(of + 2 * n + 1), sum);
    }
    sum = warp_sum(sum);
    if (sink) sum += expf(constant(sink + h) - most);
    if (lane() == 0) s.all[h] = sum;
  }
}

// Joins what the splits have, in their order.
DEVICE void join(const AttentionArgs& a, AttentionShared& s, u64 first_part, float* out, const float* sink, int splits, int active) {
  weigh(s, a.stats, first_part, sink, splits, active);
  __syncthreads();
  for (int i = 4 * threadIdx.x; i < H * V_DIM; i += 128 * K_WARPS) {
    int h = i / V_DIM, d = i % V_DIM;
    const float* part = a.partial + (first_part + (u64)h * splits) * V_DIM + d;
    float y[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
    for (int n = 0; n < active; n++) {
      float weight = s.weight[h][n];
      float4 v = read_fresh((const float4*)(part + (u64)n * V_DIM));
      y[0] = fmaf(weight, v.x, y[0]), y[1] = fmaf(weight, v.y, y[1]), y[2] = fmaf(weight, v.z, y[2]), y[3] = fmaf(weight, v.w, y[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (d + e < K_V_DIM) out[h * K_V_DIM + d + e] = y[e] / s.all[h];
  }
}

// What the warps of a block have, as one: the result itself if there is one split only, else a part of it.
DEVICE void finish(const AttentionArgs& a, AttentionShared& s, const Running& r, u64 first_part, float* out, const float* sink, int active) {
#pragma unroll
  for (int h = 0; h < H; h++) {
    float sum = r.sum[h];
#pragma unroll
    for (int o = POSITIONS / 2; o; o >>= 1) sum += __shfl_xor_sync(ALL, sum, o);
    if (lane() == 0) s.most[warp()][h] = r.most[h], s.sum[warp()][h] = sum;
#pragma unroll
    for (int l = 0; l < LANES_V; l++) {
      int d = (l * 32 + lane()) * VQ;
      if (d >= V_DIM) continue;
#pragma unroll
      for (int i = 0; i < VQ; i += 4) write(&s.out[warp()][h][d + i], make_float4(r.out[h][l][i], r.out[h][l][i + 1], r.out[h][l][i + 2], r.out[h][l][i + 3]));
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < H * V_DIM; i += 32 * K_WARPS) {
    int h = i / V_DIM, d = i % V_DIM;
    float most = active == 1 && sink ? constant(sink + h) : lowest(), sum = 0.0f, y = 0.0f;
#pragma unroll
    for (int w = 0; w < K_WARPS; w++) most = most < s.most[w][h] ? s.most[w][h] : most;
#pragma unroll
    for (int w = 0; w < K_WARPS; w++) {
      float weight = share(s.most[w][h], most);
      sum = fmaf(weight, s.sum[w][h], sum), y = fmaf(weight, s.out[w][h][d], y);
    }
    if (active == 1) {
      if (sink) sum += expf(constant(sink + h) - most);
      if (d < K_V_DIM) out[h * K_V_DIM + d] = y / sum;
    } else {
      u64 part = first_part + (u64)h * gridDim.y + blockIdx.y;
      if (d == 0) a.stats[2 * part] = most, a.stats[2 * part + 1] = sum;
      a.partial[part * V_DIM + d] = y;
    }
  }
}

// Grid: groups of heads, splits of the positions, rows. Splits that no position is left for return at once.
KERNEL(attention, AttentionArgs, 32 * K_WARPS) {
  DYNAMIC_SHARED(AttentionShared, shared);
  begin();
  AttentionShared& s = *shared;
  int row = blockIdx.z, splits = gridDim.y, split = blockIdx.y;
  if (row >= a.step->rows) return;
  StepRow at = a.step->row[row];
  int head = blockIdx.x * H, kv_head = head / a.group, last = at.position, first = 0;
  if (a.sliding) first = max(0, last + 1 - (int)a.sliding);
  if (a.chunk) first = last / (int)a.chunk * (int)a.chunk;
  int tile0 = first / 32, tiles = last / 32 + 1 - tile0, per = (tiles + splits - 1) / splits, active = (tiles + per - 1) / per;
  if (split >= active) return;
  int from = tile0 + split * per, to = min(from + per, tile0 + tiles);
  for (int i = threadIdx.x; i < H * DIM; i += 32 * K_WARPS)
    s.q[i / DIM][i % DIM] = i % DIM < K_DIM ? a.q.row(row)[(head + i / DIM) * K_DIM + i % DIM] : 0.0f;
  __syncthreads();
  Running r;
#pragma unroll
  for (int h = 0; h < H; h++) {
    r.most[h] = lowest(), r.sum[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < LANES_V * VQ; i++) (&r.out[h][0][0])[i] = 0.0f;
  }
  for (int tile = from; tile < to; tile++) {
    int base = tile * 32 + warp() * POSITIONS;
    if (base <= last && base + POSITIONS > first) attend_tile(a, s, r, at, kv_head, base, first, last);
  }
  u64 first_part = ((u64)row * a.cache.kv_heads * a.group + head) * splits;
  const float* sink = a.sinks ? a.sinks + head : nullptr;
  float* out = a.out.row(row) + head * K_V_DIM;
  finish(a, s, r, first_part, out, sink, active);
  if (active == 1) return;
  // The block that comes last joins.
  __threadfence();
  __syncthreads();
  u32* tickets = a.tickets + (u64)row * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) s.ticket = ticket(tickets);
  __syncthreads();
  if (s.ticket != (u32)active - 1) return;
  __threadfence();
  join(a, s, first_part, out, sink, splits, active);
  if (threadIdx.x == 0) *tickets = 0;
}
