// Attention of one row with what becomes of its heads before: every block prepares its own queries, those
// that see the last position its key and value, too, and one of these appends them.

// Keys and values of at most 256 dims: wider ones take two launches.
template <class S, int HEADS, int SPLITS> struct AttentionOfOne {
  typedef typename S::Element Element;
  typedef Attention<S, HEADS, SPLITS> A;
  typedef AttentionTile<S, HEADS, SPLITS> T;
  typedef typename T::Work Work;
  typedef typename T::Tile Tile;
  typedef typename T::Fresh Fresh;
  typedef typename T::Running Running;
  static constexpr int K_WIDTH = S::K_WIDTH, DIM = S::DIM, V_DIM = S::V_DIM;
  static constexpr int WARPS = T::WARPS, THREADS = 32 * WARPS, H = T::H, FOURS = T::FOURS,
                       POSITIONS = T::POSITIONS, AHEAD = T::AHEAD;
  static constexpr int WIDE = S::WIDE;

  struct Args {
    typename T::Args attention;
    Heads of[3]; // queries, keys, values
  };
  struct Shared {
    typename T::Shared attention;
    Fresh fresh;
    float made[2][WIDE];
    ALIGNED(8) float2 turned[DIM / 2];
  };

  // Grid: groups of heads, splits of the positions. Before begin(): what `attention` reads there, norms'
  // weights, angles.
  template <class Block> static DEVICE void run(const Args& a, Block block, Shared* shared) {
    const typename T::Args& of = a.attention;
    typename T::Shared& s = shared->attention;
    Work w = T::work_of(of, block, 0);
    bool idle = (int)block.y() >= w.active;
    int part = (warp() + 4 - H % 4) %
               4; // 0, 1: makes key or value, if the block needs them; warps with fewer queries first
    bool makes = (int)block.y() == w.active - 1 && part < 2;
    const Heads &q = a.of[0], &mine = a.of[1 + part % 2];
    Tile tile;
    Lanes<DIM> weight;
    Lanes<WIDE> weight_mine;
    if (!idle) {
      if (w.base < w.end) {
        tile.template load<true>(of, w, w.first, w.last);
        for (int i = 1; i < AHEAD; i++) T::fetch(of, w, w.base + 32 * i);
      }
      const Heads& turns = q.turns ? q : a.of[1];
      for (int pair = threadIdx.x; turns.turns && pair < (int)turns.half; pair += THREADS)
        shared->turned[pair] = turned(turns, w.last, pair);
      weight = weights_of<DIM>(q);
      if (makes) weight_mine = weights_of<WIDE>(mine);
      __syncthreads();
    }
    block.wait_for_inputs();
    if (idle) return;
    auto angle = [&](int pair) { return shared->turned[pair]; };
    Lanes<DIM> x[FOURS];
    Lanes<WIDE> x_mine;
#pragma unroll
    for (int j = 0; j < FOURS; j++)
      if (4 * j + warp() < H)
        x[j] = lanes_of<DIM>(q.x.row(0) + (w.head + 4 * j + warp()) * K_WIDTH, K_WIDTH, 0.0f);
    if (makes) x_mine = lanes_of<WIDE>(mine.x.row(0) + w.kv_head * mine.dim, mine.dim, 0.0f);
#pragma unroll
    for (int j = 0; j < FOURS; j++)
      if (4 * j + warp() < H) prepare(q, x[j], weight, s.q[4 * j + warp()], angle);
    if (makes) {
      float* y = shared->made[part];
      prepare(mine, x_mine, weight_mine, y, angle);
      bool appends = w.head % of.group == 0;
      for (int d = lane(); d < (part ? V_DIM : DIM); d += 32) {
        Element e = S::to_element(y[d]);
        (part ? shared->fresh.value : shared->fresh.key)[d] = e;
        if (appends)
          *(part ? of.cache.value(w.slot, w.kv_head, w.last) + d
                 : of.cache.key_element(w.slot, w.kv_head, w.last, d)) = e;
      }
    }
    __syncthreads();
    Running r;
    A::start(r);
    T::template attend<true>(of, s, r, tile, w, &shared->fresh);
    A::finish(of, block, s, r, w, 0);
  }
};
