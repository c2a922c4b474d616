// Routed experts of a few rows: two launches. Macros: K_UP, K_DOWN (formats), K_HIDDEN, K_FF, K_TOP, K_GATE, K_ACTIVATION (RAW: none), K_ROUTE
// (whether the experts are chosen here, see choose.cuh), K_BESIDE (as in linear), and of each product K_UP_LANE, K_UP_WARPS, K_UP_STEP, K_UP_SLOTS, K_UP_ONCE and
// K_DOWN_LANE, …

struct Stack {
  Matrix first;
  const float* bias; // [experts, outputs] or null
};

struct ExpertsArgs {
  const int* count;
  Rows x, route, out, add; // add: null, or what `factor` times the result is added to as well
  Stack gate, up, down;
  float* inner; // [row, k, K_FF]
  float limit, alpha, factor;
  u32 unused;
  Rule rule;
};

// Where the gate comes from: another matrix of the format of up, or inner channels that a launch before has written.
enum Gate { NO_GATE, GATE_BESIDE, GATE_BEFORE };
constexpr int RAW = -1;

constexpr int NM = K_GATE == GATE_BESIDE ? 2 : 1, UP_TILES = (K_FF + 15) / 16;
typedef Matvec<K_UP, K_UP_LANE, K_HIDDEN, 1, K_UP_WARPS, K_UP_STEP, K_UP_SLOTS, K_UP_ONCE, K_FF % 16 == 0, NM> Up;
typedef Matvec<K_DOWN, K_DOWN_LANE, K_FF, 1, K_DOWN_WARPS, K_DOWN_STEP, K_DOWN_SLOTS, K_DOWN_ONCE, K_HIDDEN % 16 == 0, 1, K_TOP, true> Down;

// Experts of a row and their weights, as the router left them or from its logits.
template <bool WEIGHTS> DEVICE void find_experts(const ExpertsArgs& a, int row, Choice& choice) {
#if K_ROUTE
  if (warp() == 0) choose<WEIGHTS>(a.rule, row, choice);
#else
  const float* route = a.route.row(row);
  if (threadIdx.x < K_TOP) {
    choice.index[threadIdx.x] = (int)read_fresh(route + threadIdx.x);
    if (WEIGHTS) choice.weight[threadIdx.x] = read_fresh(route + K_TOP + threadIdx.x);
  }
#endif
  __syncthreads();
}

// inner = act(gate x, up x). Grid: blocks of tiles of sixteen inner channels, rows.
KERNEL_PER_SM(experts_up, ExpertsArgs, 32 * K_UP_WARPS, min_blocks_per_sm(K_BESIDE)) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(Choice, choice);
  int row = blockIdx.y, rows = read_fresh(a.count); // nothing in a step changes its rows
  begin();
  if (row >= rows) return;
  auto x = [&](int, int) -> const float* { return a.x.row(row); };
  Up mv(memory);
  typename Up::Raw raw;
  typename Up::Held held;
  Up::fetch(held, x);
  if (K_ROUTE && warp()) mv.stage(held, x); // while one warp chooses
  find_experts<false>(a, row, choice);
  auto at = [&](int group, int m, int) {
    int expert = choice.index[group / UP_TILES];
    return Tile{matrix_of<K_UP>(m ? a.gate.first : a.up.first, expert, K_FF, K_HIDDEN), group % UP_TILES * 16, K_FF};
  };
  auto factor = [](int) { return 1.0f; };
  mv.ahead(raw, K_TOP * UP_TILES, at);
  if (!K_ROUTE || !warp()) mv.stage(held, x);
  mv.settle();
  mv.run(raw, K_TOP * UP_TILES, at, factor, [&](int group, int i, int, const float* total) {
    int k = group / UP_TILES, channel = group % UP_TILES * 16 + i;
    if (channel >= K_FF) return;
    float u = total[0], g = NM == 2 ? total[NM - 1] : 0.0f, *inner = a.inner + ((u64)row * K_TOP + k) * K_FF + channel;
    u64 bias = (u64)choice.index[k] * K_FF + channel;
    if (a.up.bias) u += constant(a.up.bias + bias);
    if (NM == 2 && a.gate.bias) g += constant(a.gate.bias + bias);
    if (K_GATE == GATE_BEFORE) g = *inner;
    *inner = K_ACTIVATION == RAW ? u : activation(K_ACTIVATION, g, u, a.limit, a.alpha);
  });
}

// out = sum over k of weight_k * (down_k inner_k + bias_k). Grid: blocks of tiles of sixteen outputs, rows.
KERNEL_PER_SM(experts_down, ExpertsArgs, 32 * K_DOWN_WARPS, min_blocks_per_sm(K_BESIDE)) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(Choice, choice);
  constexpr int TILES = (K_HIDDEN + 15) / 16;
  int row = blockIdx.y;
  if (row >= read_fresh(a.count)) return;
  Down mv(memory);
  typename Down::Raw raw;
  typename Down::Held held;
  find_experts<true>(a, row, choice); // the route and the logits are older than the launch before
  auto at = [&](int tile, int, int k) { return Tile{matrix_of<K_DOWN>(a.down.first, choice.index[k], K_HIDDEN, K_FF), tile * 16, K_HIDDEN}; };
  auto factor = [&](int k) { return choice.weight[k]; };
  mv.ahead(raw, TILES, at);
  begin();
  auto x = [&](int k, int) -> const float* { return a.inner + ((u64)row * K_TOP + k) * K_FF; };
  Down::fetch(held, x);
  float before = Down::foresee(TILES, [&](int tile, int i, int) { return a.add.x && tile * 16 + i < K_HIDDEN ? a.add.row(row)[tile * 16 + i] : 0.0f; });
  mv.stage(held, x);
  mv.settle();
  if (K_ROUTE && blockIdx.x == 0 && threadIdx.x < K_TOP) {
    a.route.row(row)[threadIdx.x] = (float)choice.index[threadIdx.x];
    a.route.row(row)[K_TOP + threadIdx.x] = choice.weight[threadIdx.x];
  }
  mv.run(raw, TILES, at, factor, [&](int tile, int i, int, const float* total) {
    int out = tile * 16 + i;
    if (out >= K_HIDDEN) return;
    float y = total[0];
    if (a.down.bias)
      for (int k = 0; k < K_TOP; k++) y = fmaf(choice.weight[k], constant(a.down.bias + (u64)choice.index[k] * K_HIDDEN + out), y);
    a.out.row(row)[out] = y;
    if (!a.add.x) return;
    float& sum = a.add.row(row)[out];
    sum = (Down::ALONE ? before : sum) + a.factor * y;
  });
}
