// Routed experts of a few rows: two launches. Macros: K_UP, K_DOWN (formats), K_HIDDEN, K_FF, K_TOP, K_GATE, K_ACTIVATION (RAW: none), and of
// each product K_UP_LANE, K_UP_WARPS, K_UP_STEP, K_DOWN_LANE, K_DOWN_WARPS, K_DOWN_STEP.

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
};

// Where the gate comes from: another matrix of the format of up, or inner channels that a launch before has written.
enum Gate { NO_GATE, GATE_BESIDE, GATE_BEFORE };
constexpr int RAW = -1;

constexpr int NM = K_GATE == GATE_BESIDE ? 2 : 1;
typedef Matvec<K_UP, K_UP_LANE, K_HIDDEN, 1, K_UP_WARPS, K_UP_STEP, NM, 1> Up;
typedef Matvec<K_DOWN, K_DOWN_LANE, K_FF, 1, K_DOWN_WARPS, K_DOWN_STEP, 1, K_TOP, true> Down;

// inner = act(gate x, up x). Grid: tiles of sixteen inner channels, pairs of row and choice.
KERNEL(experts_up, ExpertsArgs, 32 * K_UP_WARPS) {
  DYNAMIC_SHARED(u8, memory);
  begin();
  int row = blockIdx.y / K_TOP, k = blockIdx.y % K_TOP, row0 = blockIdx.x * 16;
  if (row >= *a.count) return;
  u32 expert = (u32)a.route.row(row)[k];
  const Matrix up = matrix_of<K_UP>(a.up.first, expert, K_FF, K_HIDDEN), gate = NM == 2 ? matrix_of<K_UP>(a.gate.first, expert, K_FF, K_HIDDEN) : up;
  Up mv(memory);
  typename Up::Raw raw[2];
  typename Up::Sums sums;
  auto load = [&](typename Up::Raw& r, int step) {
    mv.load(r, row0, K_FF, step, [&](int m, int) { return m ? gate : up; }, [](int) { return 1.0f; });
  };
  load(raw[0], 0);
  mv.stage([&](int, int) -> const float* { return a.x.row(row); });
  __syncthreads();
  Up::clear(sums);
  mv.run(sums, raw, load);
  mv.finish(sums, 0, [&](int i, int, const float* total) {
    int channel = row0 + i;
    if (channel >= K_FF) return;
    float u = total[0], g = NM == 2 ? total[NM - 1] : 0.0f, *inner = a.inner + (u64)blockIdx.y * K_FF + channel;
    if (a.up.bias) u += constant(a.up.bias + (u64)expert * K_FF + channel);
    if (NM == 2 && a.gate.bias) g += constant(a.gate.bias + (u64)expert * K_FF + channel);
    if (K_GATE == GATE_BEFORE) g = *inner;
    *inner = K_ACTIVATION == RAW ? u : activation(K_ACTIVATION, g, u, a.limit, a.alpha);
  });
}

// out = sum over k of weight_k * (down_k inner_k + bias_k). Grid: tiles of sixteen outputs, rows.
KERNEL(experts_down, ExpertsArgs, 32 * K_DOWN_WARPS) {
  DYNAMIC_SHARED(u8, memory);
  int row = blockIdx.y, row0 = blockIdx.x * 16;
  if (row >= *a.count) return;
  const float* route = a.route.row(row);
  Down mv(memory);
  typename Down::Raw raw[2];
  typename Down::Sums sums;
  auto load = [&](typename Down::Raw& r, int step) {
    mv.load(r, row0, K_HIDDEN, step, [&](int, int k) { return matrix_of<K_DOWN>(a.down.first, (u32)read_fresh(route + k), K_HIDDEN, K_FF); },
            [&](int k) { return read_fresh(route + K_TOP + k); });
  };
  load(raw[0], 0); // the route is older than the launch before
  begin();
  mv.stage([&](int k, int) -> const float* { return a.inner + ((u64)row * K_TOP + k) * K_FF; });
  __syncthreads();
  Down::clear(sums);
  mv.run(sums, raw, load);
  mv.finish(sums, 0, [&](int i, int, const float* total) {
    int out = row0 + i;
    if (out >= K_HIDDEN) return;
    float y = total[0];
    if (a.down.bias)
      for (int k = 0; k < K_TOP; k++) y = fmaf(route[K_TOP + k], constant(a.down.bias + (u64)(u32)route[k] * K_HIDDEN + out), y);
    a.out.row(row)[out] = y;
    if (a.add.x) a.add.row(row)[out] += a.factor * y;
  });
}
