// Attention of few rows over the cache: tile.cuh for warps, here what becomes of their results.

template <class S, int HEADS, int SPLITS> struct Attention {
  typedef AttentionTile<S, HEADS, SPLITS> T;
  typedef typename T::Args Args;
  typedef typename T::Shared Shared;
  typedef typename T::Work Work;
  typedef typename T::Tile Tile;
  typedef typename T::Fresh Fresh;
  typedef typename T::Running Running;
  static constexpr int K_WIDTH = S::K_WIDTH, V_WIDTH = S::V_WIDTH, DIM = S::DIM, V_DIM = S::V_DIM;
  static constexpr int WARPS = T::WARPS, THREADS = 32 * WARPS, H = T::H, FOURS = T::FOURS,
                       POSITIONS = T::POSITIONS, VQ = T::VQ, LANES_V = T::LANES_V, BATCH = T::BATCH,
                       AHEAD = T::AHEAD;

  static DEVICE void start(Running& r) {
#pragma unroll
    for (int j = 0; j < FOURS; j++) r.most[j] = lowest(), r.sum[j] = 0.0f;
#pragma unroll
    for (int i = 0; i < H * LANES_V * VQ; i++) (&r.out[0][0][0])[i] = 0.0f;
  }

  static DEVICE void add_scaled(float4& y, float factor, float4 v) {
    y.x = fmaf(factor, v.x, y.x), y.y = fmaf(factor, v.y, y.y), y.z = fmaf(factor, v.z, y.z),
    y.w = fmaf(factor, v.w, y.w);
  }

  static DEVICE void write_out(float* out, int d, float4 y) {
    if (V_WIDTH % 4 == 0) {
      if (d < V_WIDTH) write(out + d, y);
      return;
    }
    float of[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (d + e < V_WIDTH) out[d + e] = of[e];
  }

  // Where the results of the block's heads lie, and their sinks.
  struct Results {
    u64 part; // of the first head and split
    float* out;
    const float* sinks;
    // In powers of two; the lowest if there is none.
    DEVICE float sink(int h) const { return sinks ? constant(sinks + h) * T::LOG2_E : lowest(); }
  };
  template <class Block> static DEVICE Results results(const Args& a, Block block, const Work& w, int row) {
    u64 part = ((u64)row * a.cache.kv_heads * a.group + w.head) * block.grid_y();
    return {part, a.out.row(row) + w.head * V_WIDTH, a.sinks ? a.sinks + w.head : nullptr};
  }

  // What the warps of a block have, as one: the result itself if there is one split only, else a part of it.
  template <class Block>
  static DEVICE void merge(const Args& a, Block block, Shared& s, const Running& r, const Results& to,
                           bool whole) {
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
        for (int i = 0; i < VQ; i += 4)
          write(&s.out[warp()][h][d + i],
                make_float4(r.out[h][l][i], r.out[h][l][i + 1], r.out[h][l][i + 2], r.out[h][l][i + 3]));
      }
    __syncthreads();
    // Each warp finds all factors, those of warp l % 4 and head l / 4 on lane l.
    int of = lane() % WARPS, own = min(lane() / WARPS, H - 1);
    float most = s.most[of][own], all = most, sink = whole ? to.sink(own) : lowest();
#pragma unroll
    for (int o = 1; o < WARPS; o *= 2) {
      float other = __shfl_xor_sync(ALL, all, o);
      all = all < other ? other : all;
    }
    all = all < sink ? sink : all;
    float factor = T::part_of(most, all), sum = factor * s.sum[of][own];
#pragma unroll
    for (int o = 1; o < WARPS; o *= 2) sum += __shfl_xor_sync(ALL, sum, o);
    if (whole) factor /= sum + T::part_of(sink, all);
    else if (warp() == 0 && of == 0 && lane() / WARPS < H)
      write(a.stats + 2 * (to.part + (u64)own * block.grid_y() + block.y()), make_float2(all, sum));
#pragma unroll
    for (int i0 = 0; i0 < H * V_DIM; i0 += 128 * WARPS) {
      int i = min(i0 + 4 * (int)threadIdx.x, H * V_DIM - 4), h = i / V_DIM, d = i % V_DIM;
      float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
      for (int v = 0; v < WARPS; v++)
        add_scaled(y, __shfl_sync(ALL, factor, h * WARPS + v), read<float4>(&s.out[v][h][d]));
      if (i != i0 + 4 * (int)threadIdx.x) continue;
      if (whole) write_out(to.out + h * V_WIDTH, d, y);
      else write(a.partial + (to.part + (u64)h * block.grid_y() + block.y()) * V_DIM + d, y);
    }
  }

  // Each part's weight in the result: a warp per head, a lane per split.
  template <class Block>
  static DEVICE void weigh(Block block, Shared& s, const float* stats, const Results& to, int active) {
    constexpr int TURNS = (SPLITS + 31) / 32;
    for (int h = warp(); h < H; h += WARPS) {
      float2 of[TURNS];
      float sink = to.sink(h), most = sink, sum = 0.0f;
#pragma unroll
      for (int t = 0; t < TURNS; t++) {
        int n = t * 32 + lane();
        of[t] = make_float2(lowest(), 0.0f);
        if (n < active) of[t] = read_fresh((const float2*)stats + to.part + (u64)h * block.grid_y() + n);
      }
#pragma unroll
      for (int t = 0; t < TURNS; t++) most = most < of[t].x ? of[t].x : most;
      most = warp_max(most);
#pragma unroll
      for (int t = 0; t < TURNS; t++) of[t].x = T::part_of(of[t].x, most), sum = fmaf(of[t].x, of[t].y, sum);
      float factor = 1.0f / (warp_sum(sum) + T::part_of(sink, most));
#pragma unroll
      for (int t = 0; t < TURNS; t++)
        if (t * 32 + lane() < active) s.weight[h][t * 32 + lane()] = of[t].x * factor;
    }
  }

  // Joins what the splits have, in their order.
  template <class Block>
  static DEVICE void join(const Args& a, Block block, Shared& s, const Results& to, int active) {
    int splits = block.grid_y();
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
    weigh(block, s, a.stats, to, active);
    __syncthreads();
#pragma unroll 1
    for (int i = first; i < H * V_DIM; i += 128 * WARPS) {
      float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
      for (int n0 = 0; n0 < active; n0 += BATCH) {
        if (i != first || n0) load(i, n0);
#pragma unroll
        for (int n = 0; n < BATCH; n++)
          if (n0 + n < active) add_scaled(y, s.weight[i / V_DIM][n0 + n], v[n]);
      }
      write_out(to.out + i / V_DIM * V_WIDTH, i % V_DIM, y);
    }
  }

  // The block that comes last joins. What the threads of a block wrote is before its barrier, and with that
  // before the fence of the one thread that takes the ticket, as in grid_barrier().
  template <class Block>
  static DEVICE void finish(const Args& a, Block block, Shared& s, const Running& r, const Work& w, int row) {
    Results to = results(a, block, w, row);
    merge(a, block, s, r, to, w.active == 1);
    if (w.active == 1) return;
    u32* tickets = a.tickets + (u64)row * block.grid_x() + block.x();
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      s.ticket = ticket(tickets);
      if (s.ticket == (u32)w.active - 1) __threadfence();
    }
    __syncthreads();
    if (s.ticket != (u32)w.active - 1) return;
    join(a, block, s, to, w.active);
    if (threadIdx.x == 0) *tickets = 0;
  }

  // Grid: groups of heads, splits of the positions, rows. Splits without positions return at once.
  //
  // What is read before begin() is older than the launch before: this one starts when all blocks of that have
  // passed their begin(), so all before that is done. The launches before attention in a step are two at
  // least (embedding, products), so earlier steps are done, with the rows of this one, which the last launch
  // of an earlier step may write, and with their keys and values: of row r those of positions before its own
  // less r, as rows of a sequence stand in one stretch, in order.
  template <class Block> static DEVICE void run(const Args& a, Block block, Shared& s) {
    int row = block.z();
    Work w = T::work_of(a, block, row);
    bool idle = (int)block.y() >= w.active, early = !idle && w.base < w.end;
    int old = max(w.last - row, w.first);
    Tile tile;
    if (early) {
      tile.template load<true>(a, w, w.first, old);
      for (int i = 1; i < AHEAD; i++) T::fetch(a, w, w.base + 32 * i);
    }
    block.wait_for_inputs();
    if (idle) return;
    if (early && w.base + POSITIONS > old) tile.template load<false>(a, w, old, w.last + 1);
    for (int i = threadIdx.x; i < H * DIM; i += 32 * WARPS)
      s.q[i / DIM][i % DIM] = i % DIM < K_WIDTH ? a.q.row(row)[(w.head + i / DIM) * K_WIDTH + i % DIM] : 0.0f;
    __syncthreads();
    Running r;
    start(r);
    T::template attend<false>(a, s, r, tile, w, nullptr);
    finish(a, block, s, r, w, row);
  }
};
