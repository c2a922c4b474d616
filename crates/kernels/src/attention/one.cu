// Attention of one row with what becomes of its heads before: every block prepares its own queries, those that see the last position
// its key and value, too, and one of these appends them. Macros as in kernel.cu.

#if K_DIM <= 256 && K_V_DIM <= 256 // wider ones take two launches
struct OneArgs {
  AttentionArgs attention;
  Heads of[3]; // queries, keys, values
};
struct OneShared {
  AttentionShared attention;
  Fresh fresh;
  float made[2][WIDE];
  ALIGNED(8) float2 turned[DIM / 2];
};

// Grid: groups of heads, splits of the positions. Before begin(): what `attention` reads there, norms' weights, angles.
KERNEL(attention_one, OneArgs, 32 * K_WARPS) {
  DYNAMIC_SHARED(OneShared, shared);
  const AttentionArgs& of = a.attention;
  AttentionShared& s = shared->attention;
  Work w = work_of(of, 0);
  bool idle = (int)blockIdx.y >= w.active;
  int part = (warp() + 4 - H % 4) % 4; // 0, 1: makes key or value, if the block needs them; warps with fewer queries first
  bool makes = (int)blockIdx.y == w.active - 1 && part < 2;
  const Heads &q = a.of[0], &mine = a.of[1 + part % 2];
  Tile tile;
  Lanes<DIM> weight;
  Lanes<WIDE> weight_mine;
  if (!idle) {
    if (w.base < w.end) {
      tile.load<true>(of, w, w.first, w.last);
      for (int i = 1; i < AHEAD; i++) fetch(of, w, w.base + 32 * i);
    }
    const Heads& turns = q.turns ? q : a.of[1];
    for (int pair = threadIdx.x; turns.turns && pair < (int)turns.half; pair += 32 * K_WARPS) shared->turned[pair] = turned(turns, w.last, pair);
    weight = weights_of<DIM>(q);
    if (makes) weight_mine = weights_of<WIDE>(mine);
    __syncthreads();
  }
  begin();
  if (idle) return;
  auto angle = [&](int pair) { return shared->turned[pair]; };
  Lanes<DIM> x[FOURS];
  Lanes<WIDE> x_mine;
#pragma unroll
  for (int j = 0; j < FOURS; j++)
    if (4 * j + warp() < H) x[j] = lanes_of<DIM>(q.x.row(0) + (w.head + 4 * j + warp()) * K_DIM, K_DIM, 0.0f);
  if (makes) x_mine = lanes_of<WIDE>(mine.x.row(0) + w.kv_head * mine.dim, mine.dim, 0.0f);
#pragma unroll
  for (int j = 0; j < FOURS; j++)
    if (4 * j + warp() < H) prepare(q, x[j], weight, s.q[4 * j + warp()], angle);
  if (makes) {
    float* y = shared->made[part];
    prepare(mine, x_mine, weight_mine, y, angle);
    bool appends = w.head % of.group == 0;
    for (int d = lane(); d < (part ? V_DIM : DIM); d += 32) {
      Element e = to_element(y[d]);
      (part ? shared->fresh.value : shared->fresh.key)[d] = e;
      if (appends) *(part ? of.cache.value(w.slot, w.kv_head, w.last) + d : of.cache.key_element(w.slot, w.kv_head, w.last, d)) = e;
    }
  }
  __syncthreads();
  Running r;
  start(r);
  attend<true>(of, s, r, tile, w, &shared->fresh);
  finish(of, s, r, w, 0);
}
#endif
