// What a warp makes of its positions in attention of few rows.

// S: CacheShape. HEADS: query heads that a block serves, of one key head. SPLITS: of the positions, at most.
template <class S, int HEADS, int SPLITS> struct AttentionTile {
  typedef typename S::Element Element;
  typedef typename S::Cache Cache;
  static constexpr int K_WIDTH = S::K_WIDTH, V_WIDTH = S::V_WIDTH, DIM = S::DIM, V_DIM = S::V_DIM, Q = S::Q;
  static constexpr int WARPS = 4;

  struct Args {
    const Step* step;
    Cache cache;
    Rows q, out;
    const float* sinks;     // or null
    float *partial, *stats; // [row, head, split, V_DIM]: output; [row, head, split, 2]: largest score in
                            // powers of two, sum
    u32* tickets;           // [row, group of heads], zero
    u32 group;              // query heads per key head
    u32 sliding, chunk;     // width of a window, or 0
    float scale, softcap;
    u32 unused;
  };

  // A warp looks at POSITIONS positions at a time, four warps at 32 side by side. Lane l scores position l %
  // 8 over a quarter of the key; of the whole scores it has those of heads l / 8, l / 8 + 4 ..., and it owns
  // VQ elements of each 32 * VQ of the value.
  template <bool SMALL, class T> struct PieceOf {
    typedef uint4 Type;
  };
  template <class T> struct PieceOf<true, T> {
    typedef uint2 Type;
  };
  typedef typename PieceOf<S::HALF && V_WIDTH <= 128, void>::Type Piece;
  static constexpr int H = HEADS, FOURS = (H + 3) / 4, POSITIONS = 8, CHUNKS = DIM / Q,
                       OWN_CHUNKS = (CHUNKS + 3) / 4;
  static constexpr int VQ = sizeof(Piece) / sizeof(Element), LANES_V = (V_DIM / VQ + 31) / 32;
  // Whether all that a warp reads of its positions may be on its way at once.
  static constexpr bool AT_ONCE = OWN_CHUNKS <= 8 && LANES_V == 1;
  // Parts whose outputs are on their way at once when they are joined: those of 512 positions, half of those
  // that 8 groups of heads make on 132 multiprocessors.
  static constexpr int BATCH = 17;
  static constexpr float LOG2_E = 1.44269504f;
  static_assert(WARPS * POSITIONS == 32 && WARPS == 4 && H <= 8,
                "a block of positions; a lane for each warp and head");
  struct Shared {
    ALIGNED(16) float q[H][DIM];
    ALIGNED(16) float p[WARPS][POSITIONS][4 * FOURS];
    ALIGNED(16) float out[WARPS][H][V_DIM];
    float most[WARPS][H], sum[WARPS][H], weight[H][SPLITS];
    u32 ticket;
  };

  // What a block and a warp are to do.
  struct Work {
    u32 slot, kv_head;
    int head, first, last, active; // first head; positions seen; splits that have any
    int base, end;                 // of the warp's positions: base, base + 32, ... below end, eight each
  };
  template <class Block> static DEVICE Work work_of(const Args& a, Block block, int row) {
    Work w = {};
    // Past L1, where a line of the step before may be left: nothing was waited for.
    if (row >= read_fresh(&a.step->rows)) return w;
    const StepRow* at = a.step->row + row;
    w.slot = read_fresh(&at->slot), w.last = read_fresh(&at->position);
    w.head = block.x() * H, w.kv_head = w.head / a.group;
    if (a.sliding) w.first = max(0, w.last + 1 - (int)a.sliding);
    if (a.chunk) w.first = w.last / (int)a.chunk * (int)a.chunk;
    int splits = block.grid_y(), tile0 = w.first / 32, tiles = w.last / 32 + 1 - tile0,
        per = (tiles + splits - 1) / splits;
    w.active = (tiles + per - 1) / per;
    int from = tile0 + (int)block.y() * per;
    w.base = from * 32 + warp() * POSITIONS, w.end = min((from + per) * 32, w.last + 1);
    if (w.base + POSITIONS <= w.first) w.base += 32;
    return w;
  }

  // Key and value of the last position, if the cache has not got them yet.
  struct Fresh {
    ALIGNED(16) Element key[DIM], value[V_DIM];
  };

  // What a lane reads of 8 positions; zero for those that it has not.
  struct Tile {
    uint4 keys[OWN_CHUNKS];
    Piece values[AT_ONCE ? POSITIONS : 1];
    // Of positions base to base + 7 those in from .. to - 1; the others become zero, or stay as they are.
    template <bool ANEW> DEVICE void load_keys(const Args& a, const Work& w, int base, int from, int to) {
      const Element* of = a.cache.key_block(w.slot, w.kv_head, base) +
                          (lane() / POSITIONS * 32 + base % 32 + lane() % POSITIONS) * Q;
      int position = base + lane() % POSITIONS;
      bool in = position >= from && position < to;
#pragma unroll
      for (int i = 0; i < OWN_CHUNKS; i++) {
        if (ANEW) keys[i] = make_uint4(0, 0, 0, 0);
        if (in && (CHUNKS % 4 == 0 || 4 * i + lane() / POSITIONS < CHUNKS))
          read_early(of + i * 128 * Q, keys[i]);
      }
    }
    template <bool ANEW> DEVICE void load_values(const Args& a, const Work& w, int base, int from, int to) {
      int d = lane() * VQ;
      const Element* of = a.cache.value(w.slot, w.kv_head, base) + d;
#pragma unroll
      for (int n = 0; n < POSITIONS && AT_ONCE; n++) {
        if (ANEW) values[n] = Piece{};
        if (base + n >= from && base + n < to && (V_DIM == 32 * VQ || d < V_DIM))
          read_early(of + n * V_DIM, values[n]);
      }
    }
    template <bool ANEW> DEVICE void load(const Args& a, const Work& w, int from, int to) {
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
        if (i == n && (V_DIM == 32 * VQ || lane() * VQ < V_DIM))
          values[i] = read<Piece>(fresh.value + lane() * VQ);
    }
  };
  // Tiles of a warp whose lines are on their way to L2 before it loads them: with two blocks per
  // multiprocessor 17 MB of f32.
  static constexpr int AHEAD = 4;
  static DEVICE void fetch(const Args& a, const Work& w, int base) {
    if (base >= w.end) return;
    // Eight positions of a chunk of keys are a line, values of eight positions are side by side.
    const Element* keys = a.cache.key_block(w.slot, w.kv_head, base) + base % 32 * Q;
    const Element* values = a.cache.value(w.slot, w.kv_head, base);
#pragma unroll
    for (int i = lane(); i < CHUNKS; i += 32) fetch_line(keys + i * 32 * Q);
#pragma unroll
    for (int i = lane(); i < POSITIONS * V_DIM / (8 * Q); i += 32) fetch_line(values + i * 8 * Q);
  }

  struct Running {
    float most[FOURS], sum[FOURS], out[H][LANES_V][VQ];
  };

  // Scores of the lane's position and heads. Four sums of four lanes become one whole sum on each of them.
  static DEVICE void scores(const Args& a, const Shared& s, const Tile& tile, float (&score)[FOURS]) {
    float part[4 * FOURS];
#pragma unroll
    for (int h = 0; h < 4 * FOURS; h++) part[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < OWN_CHUNKS; i++) {
      int c = 4 * i + lane() / POSITIONS;
      if (CHUNKS % 4 && c >= CHUNKS) continue;
      float k[Q];
      S::from_elements(tile.keys[i], k);
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
  static DEVICE float part_of(float most, float all) { return most == lowest() ? 0.0f : exp2f(most - all); }

  template <class T> static DEVICE T max_of_positions(T v) {
#pragma unroll
    for (int o = POSITIONS / 2; o; o >>= 1) {
      T other = __shfl_xor_sync(ALL, v, o);
      v = v < other ? other : v;
    }
    return v;
  }

  // Shares of the lane's position, before division by their sum, to where all lanes find them.
  static DEVICE void shares(Shared& s, Running& r, const float (&score)[FOURS], bool seen) {
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

  static DEVICE void add_value(const Shared& s, Running& r, Piece stored, int l, int n) {
    float v[VQ], p[4 * FOURS];
    S::from_elements(stored, v);
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

  // Online softmax of a warp over its positions. Of the first eight the tile holds what the cache has (if
  // AT_ONCE); the next keys are asked for as soon as these are scored, the next values as soon as these are
  // added. FRESH: the last position is not in the cache.
  template <bool FRESH>
  static DEVICE void attend(const Args& a, Shared& s, Running& r, Tile& tile, const Work& w,
                            const Fresh* fresh) {
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
};
