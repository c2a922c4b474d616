// Attention of few rows over the cache: tile.cuh for warps, here what becomes of their results.

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
