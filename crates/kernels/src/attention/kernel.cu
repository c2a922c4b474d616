// Attention of few rows over the cache. Macros: K_HEADS (query heads a block serves, of one key head), K_WARPS, K_SPLITS (most splits
// of the positions), and those of cache.cuh.

struct AttentionArgs {
  const Step* step;
  Cache cache;
  Rows q, out;
  const float* sinks; // or null
  float *partial, *stats; // [row, head, split, V_DIM]: output; [row, head, split, 2]: largest score in powers of two, sum
  u32* tickets;           // [row, group of heads], zero
  u32 group;              // query heads per key head
  u32 sliding, chunk;     // width of a window, or 0
  float scale, softcap;
  u32 unused;
};

// A warp looks at POSITIONS positions at a time, four warps at 32 side by side. Lane l scores position l % 8 over a quarter of
// the key; of the whole scores it has those of heads l / 8, l / 8 + 4 ..., and it owns VQ elements of each 32 * VQ of the value.
#if K_HALF && K_V_DIM <= 128
typedef uint2 Piece;
#else
typedef uint4 Piece;
#endif
constexpr int H = K_HEADS, FOURS = (H + 3) / 4, POSITIONS = 8, CHUNKS = DIM / Q, OWN_CHUNKS = (CHUNKS + 3) / 4;
constexpr int VQ = sizeof(Piece) / sizeof(Element), LANES_V = (V_DIM / VQ + 31) / 32;
// Whether all that a warp reads of its positions may be on its way at once.
constexpr bool AT_ONCE = OWN_CHUNKS <= 8 && LANES_V == 1;
// Parts whose outputs are on their way at once when they are joined: those of 512 positions, half of those that 8 groups of heads
// make on 132 multiprocessors.
constexpr int BATCH = 17;
constexpr float LOG2_E = 1.44269504f;
static_assert(K_WARPS * POSITIONS == 32 && K_WARPS == 4 && H <= 8, "a block of positions; a lane for each warp and head");
struct AttentionShared {
  ALIGNED(16) float q[H][DIM];
  ALIGNED(16) float p[K_WARPS][POSITIONS][4 * FOURS];
  ALIGNED(16) float out[K_WARPS][H][V_DIM];
  float most[K_WARPS][H], sum[K_WARPS][H], weight[H][K_SPLITS];
  u32 ticket;
};

// What a block and a warp are to do.
struct Work {
  u32 slot, kv_head;
  int head, first, last, active; // first head; positions seen; splits that have any
  int base, end;                 // of the warp's positions: base, base + 32, ... below end, eight each
};
DEVICE Work work_of(const AttentionArgs& a, int row) {
  Work w = {};
  // Past L1, where a line of the step before may be left: nothing was waited for.
  if (row >= read_fresh(&a.step->rows)) return w;
  const StepRow* at = a.step->row + row;
  w.slot = read_fresh(&at->slot), w.last = read_fresh(&at->position);
  w.head = blockIdx.x * H, w.kv_head = w.head / a.group;
  if (a.sliding) w.first = max(0, w.last + 1 - (int)a.sliding);
  if (a.chunk) w.first = w.last / (int)a.chunk * (int)a.chunk;
  int splits = gridDim.y, tile0 = w.first / 32, tiles = w.last / 32 + 1 - tile0, per = (tiles + splits - 1) / splits;
  w.active = (tiles + per - 1) / per;
  int from = tile0 + (int)blockIdx.y * per;
  w.base = from * 32 + warp() * POSITIONS, w.end = min((from + per) * 32, w.last + 1);
  if (w.base + POSITIONS <= w.first) w.base += 32;
  return w;
}

// Key and value of the last position, if the cache has not got them yet.
struct Fresh { ALIGNED(16) Element key[DIM], value[V_DIM]; };

// What a lane reads of 8 positions; zero for those that it has not.
struct Tile {
  uint4 keys[OWN_CHUNKS];
  Piece values[AT_ONCE ? POSITIONS : 1];
  // Of positions base to base + 7 those in from .. to - 1; the others become zero, or stay as they are.
  template <bool ANEW> DEVICE void load_keys(const AttentionArgs& a, const Work& w, int base, int from, int to) {
    const Element* of = a.cache.key_block(w.slot, w.kv_head, base) + (lane() / POSITIONS * 32 + base % 32 + lane() % POSITIONS) * Q;
    int position = base + lane() % POSITIONS;
    bool in = position >= from && position < to;
#pragma unroll
    for (int i = 0; i < OWN_CHUNKS; i++) {
      if (ANEW) keys[i] = make_uint4(0, 0, 0, 0);
      if (in && (CHUNKS % 4 == 0 || 4 * i + lane() / POSITIONS < CHUNKS)) read_early(of + i * 128 * Q, keys[i]);
    }
  }
  template <bool ANEW> DEVICE void load_values(const AttentionArgs& a, const Work& w, int base, int from, int to) {
    int d = lane() * VQ;
    const Element* of = a.cache.value(w.slot, w.kv_head, base) + d;
#pragma unroll
    for (int n = 0; n < POSITIONS && AT_ONCE; n++) {
      if (ANEW) values[n] = Piece{};
      if (base + n >= from && base + n < to && (V_DIM == 32 * VQ || d < V_DIM)) read_early(of + n * V_DIM, values[n]);
    }
  }
  template <bool ANEW> DEVICE void load(const AttentionArgs& a, const Work& w, int from, int to) {
    if (!AT_ONCE) return;
    load_keys<ANEW>(a, w, w.base, from, to);
    load_values<ANEW>(a, w, w.base, from, to);
  }
  // Of position base + n.
  DEVICE void take(const Fresh& fresh, int n) {
    if (lane() % POSITIONS == n)
#pragma unroll
      for (int i = 0; i < OWN_CHUNKS; i++) {
        int c = 4 * i + lane() / POSITIONS;
        if (CHUNKS % 4 == 0 || c < CHUNKS) keys[i] = read<uint4>(fresh.key + c * Q);
      }
#pragma unroll
    for (int i = 0; i < POSITIONS && AT_ONCE; i++)
      if (i == n && (V_DIM == 32 * VQ || lane() * VQ < V_DIM)) values[i] = read<Piece>(fresh.value + lane() * VQ);
  }
};
// Tiles of a warp whose lines are on their way to L2 before it loads them: with two blocks per multiprocessor 17 MB of f32.
constexpr int AHEAD = 4;
DEVICE void fetch(const AttentionArgs& a, const Work& w, int base) {
  if (base >= w.end) return;
  // Eight positions of a chunk of keys are a line, values of eight positions are side by side.
  const Element* keys = a.cache.key_block(w.slot, w.kv_head, base) + base % 32 * Q;
  const Element* values = a.cache.value(w.slot, w.kv_head, base);
#pragma unroll
  for (int i = lane(); i < CHUNKS; i += 32) fetch_line(keys + i * 32 * Q);
#pragma unroll
  for (int i = lane(); i < POSITIONS * V_DIM / (8 * Q); i += 32) fetch_line(values + i * 8 * Q);
}

struct Running { float most[FOURS], sum[FOURS], out[H][LANES_V][VQ]; };

// Scores of the lane's position and heads. Four sums of four lanes become one whole sum on each of them.
DEVICE void scores(const AttentionArgs& a, const AttentionShared& s, const Tile& tile, float (&score)[FOURS]) {
  float part[4 * FOURS];
#pragma unroll
  for (int h = 0; h < 4 * FOURS; h++) part[h] = 0.0f;
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
        part[h] = fmaf(q.x, k[e], fmaf(q.y, k[e + 1], fmaf(q.z, k[e + 2], fmaf(q.w, k[e + 3], part[h]))));
      }
  }
  bool high = lane() & 16, odd = lane() & 8;
#pragma unroll
  for (int j = 0; j < FOURS; j++) {
    float* p = part + 4 * j;
    float even = (high ? p[2] : p[0]) + __shfl_xor_sync(ALL, high ? p[0] : p[2], 16);
    float other = (high ? p[3] : p[1]) + __shfl_xor_sync(ALL, high ? p[1] : p[3], 16);
    float x = (odd ? other : even) + __shfl_xor_sync(ALL, odd ? even : other, 8);
    x *= a.scale;
    score[j] = LOG2_E * (a.softcap > 0.0f ? a.softcap * tanhf(x / a.softcap) : x);
  }
}

// Of a part whose largest score is `most`, in one whose largest is `all`.
DEVICE float part_of(float most, float all) { return most == lowest() ? 0.0f : exp2f(most - all); }

template <class T> DEVICE T max_of_positions(T v) {
#pragma unroll
  for (int o = POSITIONS / 2; o; o >>= 1) {
    T other = __shfl_xor_sync(ALL, v, o);
    v = v < other ? other : v;
  }
  return v;
}

// Shares of the lane's position, before division by their sum, to where all lanes find them.
DEVICE void shares(AttentionShared& s, Running& r, const float (&score)[FOURS], bool seen) {
  float keep[FOURS];
  bool grew = false;
#pragma unroll
  for (int j = 0; j < FOURS; j++) {
    float x = seen ? score[j] : lowest(), most = max_of_positions(x);
    most = most < r.most[j] ? r.most[j] : most;
    float p = seen ? exp2f(x - most) : 0.0f;
    keep[j] = part_of(r.most[j], most);
    grew = grew || (r.most[j] != lowest() && most != r.most[j]);
    r.most[j] = most, r.sum[j] = r.sum[j] * keep[j] + p;
    s.p[warp()][lane() % POSITIONS][4 * j + lane() / POSITIONS] = p;
  }
  if (__ballot_sync(ALL, grew)) {
#pragma unroll
    for (int h = 0; h < H; h++) {
      float factor = __shfl_sync(ALL, keep[h / 4], h % 4 * POSITIONS);
#pragma unroll
      for (int i = 0; i < LANES_V * VQ; i++) (&r.out[h][0][0])[i] *= factor;
    }
  }
}

DEVICE void add_value(const AttentionShared& s, Running& r, Piece stored, int l, int n) {
  float v[VQ], p[4 * FOURS];
  from_elements(stored, v);
#pragma unroll
  for (int j = 0; j < FOURS; j++) {
    float4 of = read<float4>(&s.p[warp()][n][4 * j]);
    p[4 * j] = of.x, p[4 * j + 1] = of.y, p[4 * j + 2] = of.z, p[4 * j + 3] = of.w;
  }
#pragma unroll
  for (int h = 0; h < H; h++)
#pragma unroll
    for (int i = 0; i < VQ; i++) r.out[h][l][i] = fmaf(p[h], v[i], r.out[h][l][i]);
}

// Online softmax of a warp over its positions. Of the first eight the tile holds what the cache has (if AT_ONCE); the next keys are
// asked for as soon as these are scored, the next values as soon as these are added. FRESH: the last position is not in the cache.
template <bool FRESH>
DEVICE void attend(const AttentionArgs& a, AttentionShared& s, Running& r, Tile& tile, const Work& w, const Fresh* fresh) {
  int stored = FRESH ? w.last : w.last + 1;
#pragma unroll 1
  for (int base = w.base; base < w.end; base += 32) {
    int position = base + lane() % POSITIONS, next = base + 32;
    fetch(a, w, base + 32 * AHEAD);
    if (!AT_ONCE) tile.load_keys<true>(a, w, base, w.first, stored);
    if (FRESH && base + POSITIONS > w.last) tile.take(*fresh, w.last - base);
    float score[FOURS];
    scores(a, s, tile, score);
    if (AT_ONCE && next < w.end) tile.load_keys<true>(a, w, next, w.first, stored);
    shares(s, r, score, position >= w.first && position <= w.last);
    __syncwarp();
    if (AT_ONCE) {
#pragma unroll
      for (int n = 0; n < POSITIONS; n++) add_value(s, r, tile.values[n], 0, n);
      if (next < w.end) tile.load_values<true>(a, w, next, w.first, stored);
    } else {
      const Element* values = a.cache.value(w.slot, w.kv_head, base);
#pragma unroll 4
      for (int n = max(w.first - base, 0); n < min(w.last + 1 - base, POSITIONS); n++) {
        const Element* value = FRESH && base + n == w.last ? fresh->value : values + n * V_DIM;
#pragma unroll
        for (int l = 0; l < LANES_V; l++) {
          int d = (l * 32 + lane()) * VQ;
          if (d < V_DIM) add_value(s, r, read<Piece>(value + d), l, n);
        }
      }
    }
    __syncwarp();
  }
}

DEVICE void start(Running& r) {
#pragma unroll
  for (int j = 0; j < FOURS; j++) r.most[j] = lowest(), r.sum[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < H * LANES_V * VQ; i++) (&r.out[0][0][0])[i] = 0.0f;
}

DEVICE void add_scaled(float4& y, float factor, float4 v) {
  y.x = fmaf(factor, v.x, y.x), y.y = fmaf(factor, v.y, y.y), y.z = fmaf(factor, v.z, y.z), y.w = fmaf(factor, v.w, y.w);
}

DEVICE void write_out(float* out, int d, float4 y) {
  if (K_V_DIM % 4 == 0) {
    if (d < K_V_DIM) write(out + d, y);
    return;
  }
  float of[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
  for (int e = 0; e < 4; e++)
    if (d + e < K_V_DIM) out[d + e] = of[e];
}

// Where the results of the block's heads lie, and their sinks.
struct Results {
  u64 part; // of the first head and split
  float* out;
  const float* sinks;
  // In powers of two; the lowest if there is none.
  DEVICE float sink(int h) const { return sinks ? constant(sinks + h) * LOG2_E : lowest(); }
};
DEVICE Results results(const AttentionArgs& a, const Work& w, int row) {
  u64 part = ((u64)row * a.cache.kv_heads * a.group + w.head) * gridDim.y;
  return {part, a.out.row(row) + w.head * K_V_DIM, a.sinks ? a.sinks + w.head : nullptr};
}

// What the warps of a block have, as one: the result itself if there is one split only, else a part of it.
DEVICE void merge(const AttentionArgs& a, AttentionShared& s, const Running& r, const Results& to, bool whole) {
#pragma unroll
  for (int j = 0; j < FOURS; j++) {
    float sum = r.sum[j];
#pragma unroll
    for (int o = POSITIONS / 2; o; o >>= 1) sum += __shfl_xor_sync(ALL, sum, o);
    int h = 4 * j + lane() / POSITIONS;
    if (lane() % POSITIONS == 0 && h < H) s.most[warp()][h] = r.most[j], s.sum[warp()][h] = sum;
  }
#pragma unroll
  for (int h = 0; h < H; h++)
#pragma unroll
    for (int l = 0; l < LANES_V; l++) {
      int d = (l * 32 + lane()) * VQ;
      if (V_DIM % (32 * VQ) && d >= V_DIM) continue;
#pragma unroll
      for (int i = 0; i < VQ; i += 4) write(&s.out[warp()][h][d + i], make_float4(r.out[h][l][i], r.out[h][l][i + 1], r.out[h][l][i + 2], r.out[h][l][i + 3]));
    }
  __syncthreads();
  // Each warp finds all factors, those of warp l % 4 and head l / 4 on lane l.
  int of = lane() % K_WARPS, own = min(lane() / K_WARPS, H - 1);
  float most = s.most[of][own], all = most, sink = whole ? to.sink(own) : lowest();
#pragma unroll
  for (int o = 1; o < K_WARPS; o *= 2) {
    float other = __shfl_xor_sync(ALL, all, o);
    all = all < other ? other : all;
  }
  all = all < sink ? sink : all;
  float factor = part_of(most, all), sum = factor * s.sum[of][own];
#pragma unroll
  for (int o = 1; o < K_WARPS; o *= 2) sum += __shfl_xor_sync(ALL, sum, o);
  if (whole) factor /= sum + part_of(sink, all);
  else if (warp() == 0 && of == 0 && lane() / K_WARPS < H)
    write(a.stats + 2 * (to.part + (u64)own * gridDim.y + blockIdx.y), make_float2(all, sum));
#pragma unroll
  for (int i0 = 0; i0 < H * V_DIM; i0 += 128 * K_WARPS) {
    int i = min(i0 + 4 * (int)threadIdx.x, H * V_DIM - 4), h = i / V_DIM, d = i % V_DIM;
    float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int v = 0; v < K_WARPS; v++) add_scaled(y, __shfl_sync(ALL, factor, h * K_WARPS + v), read<float4>(&s.out[v][h][d]));
    if (i != i0 + 4 * (int)threadIdx.x) continue;
    if (whole) write_out(to.out + h * K_V_DIM, d, y);
    else write(a.partial + (to.part + (u64)h * gridDim.y + blockIdx.y) * V_DIM + d, y);
  }
}

// Each part's weight in the result: a warp per head, a lane per split.
DEVICE void weigh(AttentionShared& s, const float* stats, const Results& to, int active) {
  constexpr int TURNS = (K_SPLITS + 31) / 32;
  for (int h = warp(); h < H; h += K_WARPS) {
    float2 of[TURNS];
    float sink = to.sink(h), most = sink, sum = 0.0f;
#pragma unroll
    for (int t = 0; t < TURNS; t++) {
      int n = t * 32 + lane();
      of[t] = make_float2(lowest(), 0.0f);
      if (n < active) of[t] = read_fresh((const float2*)stats + to.part + (u64)h * gridDim.y + n);
    }
#pragma unroll
    for (int t = 0; t < TURNS; t++) most = most < of[t].x ? of[t].x : most;
    most = warp_max(most);
#pragma unroll
    for (int t = 0; t < TURNS; t++) of[t].x = part_of(of[t].x, most), sum = fmaf(of[t].x, of[t].y, sum);
    float factor = 1.0f / (warp_sum(sum) + part_of(sink, most));
#pragma unroll
    for (int t = 0; t < TURNS; t++)
      if (t * 32 + lane() < active) s.weight[h][t * 32 + lane()] = of[t].x * factor;
  }
}

// Joins what the splits have, in their order.
DEVICE void join(const AttentionArgs& a, AttentionShared& s, const Results& to, int active) {
  int splits = gridDim.y;
  float4 v[BATCH];
  auto load = [&](int i, int n0) {
    const float* part = a.partial + (to.part + (u64)(i / V_DIM) * splits + n0) * V_DIM + i % V_DIM;
#pragma unroll
    for (int n = 0; n < BATCH; n++) {
      v[n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (n0 + n < active) v[n] = read_fresh((const float4*)(part + n * V_DIM));
    }
  };
  int first = 4 * threadIdx.x;
  if (first < H * V_DIM) load(first, 0);
  weigh(s, a.stats, to, active);
  __syncthreads();
#pragma unroll 1
  for (int i = first; i < H * V_DIM; i += 128 * K_WARPS) {
    float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (int n0 = 0; n0 < active; n0 += BATCH) {
      if (i != first || n0) load(i, n0);
#pragma unroll
      for (int n = 0; n < BATCH; n++)
        if (n0 + n < active) add_scaled(y, s.weight[i / V_DIM][n0 + n], v[n]);
    }
    write_out(to.out + i / V_DIM * K_V_DIM, i % V_DIM, y);
  }
}

// The block that comes last joins. What the threads of a block wrote is before its barrier, and with that before the fence of the one
// thread that takes the ticket, as in grid_barrier().
DEVICE void finish(const AttentionArgs& a, AttentionShared& s, const Running& r, const Work& w, int row) {
  Results to = results(a, w, row);
  merge(a, s, r, to, w.active == 1);
  if (w.active == 1) return;
  u32* tickets = a.tickets + (u64)row * gridDim.x + blockIdx.x;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    s.ticket = ticket(tickets);
    if (s.ticket == (u32)w.active - 1) __threadfence();
  }
  __syncthreads();
  if (s.ticket != (u32)w.active - 1) return;
  join(a, s, to, w.active);
  if (threadIdx.x == 0) *tickets = 0;
}

// Grid: groups of heads, splits of the positions, rows. Splits that no position is left for return at once.
//
// What is read before begin() is older than the launch before: this one starts when all blocks of that have passed their begin(), so
// all before that is done. The launches before attention in a step are two at least (embedding, products), so earlier steps are done,
// with the rows of this one, which the last launch of an earlier step may write, and with their keys and values: of row r those of
// positions before its own less r, as rows of a sequence stand in one stretch, in order.
KERNEL(attention, AttentionArgs, 32 * K_WARPS) {
  DYNAMIC_SHARED(AttentionShared, shared);
  AttentionShared& s = *shared;
  int row = blockIdx.z;
  Work w = work_of(a, row);
  bool idle = (int)blockIdx.y >= w.active, early = !idle && w.base < w.end;
  int old = max(w.last - row, w.first);
  Tile tile;
  if (early) {
    tile.load<true>(a, w, w.first, old);
    for (int i = 1; i < AHEAD; i++) fetch(a, w, w.base + 32 * i);
  }
  begin();
  if (idle) return;
  if (early && w.base + POSITIONS > old) tile.load<false>(a, w, old, w.last + 1);
  for (int i = threadIdx.x; i < H * DIM; i += 32 * K_WARPS)
    s.q[i / DIM][i % DIM] = i % DIM < K_DIM ? a.q.row(row)[(w.head + i / DIM) * K_DIM + i % DIM] : 0.0f;
  __syncthreads();
  Running r;
  start(r);
  attend<false>(a, s, r, tile, w, nullptr);
  finish(a, s, r, w, row);
}
