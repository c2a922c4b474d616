// Routed experts of many rows: pairs of row and choice in a list per expert, tiles of the lists, three
// products, weighted sum.

struct GroupedArgs {
  const int* count;
  Rows x, route, out, add; // add: null, or what `factor` times the result is added to as well
  Stack gate, up, down;
  u8 *parts, *inner_parts;      // x and inner in parts
  float *inner, *outer;         // [pair, FF], [pair, HIDDEN]; a pair is row * TOP + choice
  u32 *lists, *counts, *ticket; // [expert, capacity] of pairs, ascending; [expert]; zero
  uint2* tiles;                 // expert, first of its list; before them their number
  u32 capacity, unused;
  float limit, alpha, factor, unused2;
};

// Shape:
//   HIDDEN, FF      widths
//   EXPERTS, TOP    all and those of a row
//   GATE            where the gate comes from
//   ACTIVATION      or RAW
//   Up, Down        shapes of the products, as Gemm wants them
template <class Shape> struct GroupedExperts {
  static constexpr int HIDDEN = Shape::HIDDEN, FF = Shape::FF, EXPERTS = Shape::EXPERTS, TOP = Shape::TOP;
  static constexpr int GATE = Shape::GATE, ACTIVATION = Shape::ACTIVATION;
  static constexpr int WARPS = 8, THREADS = 32 * WARPS; // of the kernels that are not products
  typedef Gemm<typename Shape::Up> Up;
  typedef Gemm<typename Shape::Down> Down;
  static_assert(Up::TOKENS == Down::TOKENS, "they share tiles");

  struct Shared {
    u32 sums[WARPS], last;
  };

  // Sum of `own` over the threads before this one, and over all.
  static DEVICE u32 before(Shared& s, u32 own, u32& all) {
    u32 sum = own, before = 0;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      u32 other = __shfl_sync(ALL, sum, lane() - o);
      if (lane() >= o) sum += other;
    }
    if (lane() == 31) s.sums[warp()] = sum;
    __syncthreads();
    all = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      if (w < warp()) before += s.sums[w];
      all += s.sums[w];
    }
    __syncthreads();
    return before + sum - own;
  }

  // The list of one expert; the last block to finish cuts all lists into tiles.
  static DEVICE void group(const GroupedArgs& a, Shared& s, int expert) {
    int pairs = *a.count * TOP, own = (pairs + THREADS - 1) / (THREADS),
        from = min((int)threadIdx.x * own, pairs), to = min(from + own, pairs);
    auto mine = [&](int pair) { return (int)a.route.row(pair / TOP)[pair % TOP] == expert; };
    u32 found = 0, all;
#pragma unroll 8
    for (int pair = from; pair < to; pair++) found += mine(pair);
    u32 at = before(s, found, all);
    for (int pair = from; pair < to; pair++)
      if (mine(pair) && at < a.capacity) a.lists[(u64)expert * a.capacity + at++] = pair;
    if (threadIdx.x == 0) a.counts[expert] = min(all, a.capacity);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) s.last = ticket(a.ticket) == EXPERTS - 1;
    __syncthreads();
    if (!s.last) return;
    __threadfence();
    u32 tiles = 0;
    for (int base = 0; base < EXPERTS; base += THREADS) {
      int e = base + threadIdx.x;
      u32 own = e < EXPERTS ? (read_fresh(a.counts + e) + Up::TOKENS - 1) / Up::TOKENS : 0,
          at = tiles + before(s, own, all);
      for (u32 i = 0; i < own; i++) a.tiles[1 + at + i] = make_uint2(e, i * Up::TOKENS);
      tiles += all;
    }
    if (threadIdx.x == 0) a.tiles[0].x = tiles, *a.ticket = 0;
  }

  // Lists and tiles, and x in parts. Grid: experts, then blocks of units of each row.
  template <class Block> static DEVICE void prepare(const GroupedArgs& a, Block block, Shared& s) {
    block.wait_for_inputs();
    if (block.x() < EXPERTS) return group(a, s, block.x());
    constexpr int BLOCKS = (Up::X::UNITS + THREADS - 1) / (THREADS);
    int piece = block.x() - EXPERTS, row = piece / BLOCKS;
    if (row < *a.count)
      Up::X::piece(a.x.row(row), a.parts + (u64)row * Up::X::ROW, piece % BLOCKS * THREADS + threadIdx.x);
  }

  // A tile of pairs of one expert.
  struct Tile {
    u32 expert;
    int count;
    const u32* list;
    template <class Block>
    DEVICE Tile(const GroupedArgs& a, Block block) : expert(0), count(0), list(nullptr) {
      if (block.y() >= a.tiles[0].x) return;
      uint2 tile = a.tiles[1 + block.y()];
      expert = tile.x, count = a.counts[expert] - tile.y, list = a.lists + (u64)expert * a.capacity + tile.y;
    }
  };

  // inner = act(gate x, up x) of the pairs of a tile. Grid: tiles of outputs, tiles of pairs.
  template <class Block> static DEVICE void up(const GroupedArgs& a, Block block, u8* memory) {
    block.wait_for_inputs();
    const Tile tile(a, block);
    if (!tile.count) return;
    // With a gate, sixteen outputs of up and the same of gate take turns, so that a lane has both.
    constexpr bool BOTH = GATE == GATE_JOINED;
    const Matrix up = matrix_of<typename Up::F>(a.up.first, tile.expert, FF, HIDDEN);
    const Matrix gate = BOTH ? matrix_of<typename Up::F>(a.gate.first, tile.expert, FF, HIDDEN) : up;
    int row0 = block.x() * (BOTH ? Up::OUTPUTS / 2 : Up::OUTPUTS);
    auto channel_of = [&](int i) { return row0 + (BOTH ? i / 32 * 16 + i % 16 : i); };
    auto finish = [&](u32 pair, int channel, float u, float g) {
      if (channel >= FF) return;
      float* inner = a.inner + (u64)pair * FF + channel;
      if (a.up.bias) u += constant(a.up.bias + (u64)tile.expert * FF + channel);
      if (BOTH && a.gate.bias) g += constant(a.gate.bias + (u64)tile.expert * FF + channel);
      if (GATE == GATE_BEFORE) g = *inner;
      *inner = ACTIVATION == RAW ? u : activation(ACTIVATION, g, u, a.limit, a.alpha);
    };
    Up gemm(memory, tile.count);
    gemm.run(
        [&](int i, Matrix& m) {
          m = BOTH && i % 32 >= 16 ? gate : up;
          return min(channel_of(i), FF - 1);
        },
        [&](int i) -> const u8* { return a.parts + (u64)(tile.list[i] / TOP) * Up::X::ROW; },
        [&](int i, int token, float low, float high) {
          finish(tile.list[token], channel_of(i), low, high);
          if (!BOTH) finish(tile.list[token], row0 + i + 16, high, 0.0f);
        });
  }

  // inner in parts. Grid: units of a pair, choices, rows.
  template <class Block> static DEVICE void split_inner(const GroupedArgs& a, Block block) {
    block.wait_for_inputs();
    if ((int)block.z() >= *a.count) return;
    u64 pair = (u64)block.z() * TOP + block.y();
    Down::X::piece(a.inner + pair * FF, a.inner_parts + pair * Down::X::ROW,
                   block.x() * blockDim.x + threadIdx.x);
  }

  // outer = down inner of the pairs of a tile. Grid as above.
  template <class Block> static DEVICE void down(const GroupedArgs& a, Block block, u8* memory) {
    block.wait_for_inputs();
    const Tile tile(a, block);
    if (!tile.count) return;
    int row0 = block.x() * Down::OUTPUTS;
    const Matrix down = matrix_of<typename Down::F>(a.down.first, tile.expert, HIDDEN, FF);
    const float* bias = a.down.bias ? a.down.bias + (u64)tile.expert * HIDDEN : nullptr;
    Down gemm(memory, tile.count);
    gemm.run(
        [&](int i, Matrix& m) {
          m = down;
          return min(row0 + i, HIDDEN - 1);
        },
        [&](int i) -> const u8* { return a.inner_parts + (u64)tile.list[i] * Down::X::ROW; },
        [&](int i, int token, float low, float high) {
          float* out = a.outer + (u64)tile.list[token] * HIDDEN;
          int row = row0 + i;
          if (row < HIDDEN) out[row] = low + (bias ? constant(bias + row) : 0.0f);
          if (row + 16 < HIDDEN) out[row + 16] = high + (bias ? constant(bias + row + 16) : 0.0f);
        });
  }

  // out = sum over k of weight_k * outer_k, in order. Grid: outputs, rows.
  template <class Block> static DEVICE void combine(const GroupedArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), col = 4 * (block.x() * THREADS + threadIdx.x);
    if (row >= *a.count || col >= HIDDEN) return;
    const float *route = a.route.row(row), *outer = a.outer + (u64)row * TOP * HIDDEN + col;
    float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int k = 0; k < TOP; k++) {
      float4 v = read<float4>(outer + (u64)k * HIDDEN);
      float weight = route[TOP + k];
      y.x = fmaf(weight, v.x, y.x), y.y = fmaf(weight, v.y, y.y), y.z = fmaf(weight, v.z, y.z),
      y.w = fmaf(weight, v.w, y.w);
    }
    write(a.out.row(row) + col, y);
    if (!a.add.x) return;
    float* to = a.add.row(row) + col;
    float4 v = read<float4>(to);
    write(to, make_float4(v.x + a.factor * y.x, v.y + a.factor * y.y, v.z + a.factor * y.z,
                          v.w + a.factor * y.w));
  }
};
