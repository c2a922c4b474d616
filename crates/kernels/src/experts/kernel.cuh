// Routed experts of a few rows: two launches, of gate and up with the activation, and of down.

struct ExpertsArgs {
  const int* count;
  Rows x, route, out, add; // add: null, or what `factor` times the result is added to as well
  Stack gate, up, down;
  float* inner; // [row, k, FF]
  float limit, alpha, factor;
  u32 unused;
  Rule rule;
};

// Shape:
//   HIDDEN, FF       widths
//   TOP              experts of a row
//   GATE             where the gate comes from
//   ACTIVATION       or RAW
//   Up, Down         shapes of the products, as Matvec wants them
//   EXPERTS          of which the kernels choose themselves, by SCORE and NORMALISE; 0: the router has chosen
template <class Shape> struct Experts {
  static constexpr int HIDDEN = Shape::HIDDEN, FF = Shape::FF, TOP = Shape::TOP;
  static constexpr int GATE = Shape::GATE, ACTIVATION = Shape::ACTIVATION, UP_TILES = (FF + 15) / 16;
  static constexpr bool CHOOSES = Shape::EXPERTS > 0, JOINED = GATE == GATE_JOINED;
  typedef Choice<TOP> Shared;
  typedef MatvecLayout<typename Shape::Up> Up;
  typedef MatvecLayout<typename Shape::Down> Down;

  // Experts of a row and their weights, as the router left them or from its logits.
  template <bool WEIGHTS>
  static DEVICE void find_experts(const ExpertsArgs& a, int row, Choice<TOP>& choice) {
    if constexpr (CHOOSES) {
      if (warp() == 0)
        Chooser<Shape::EXPERTS, TOP, Shape::SCORE, Shape::NORMALISE>::template choose<WEIGHTS>(a.rule, row,
                                                                                               choice);
    } else {
      const float* route = a.route.row(row);
      if (threadIdx.x < TOP) {
        choice.index[threadIdx.x] = (int)read_fresh(route + threadIdx.x);
        if (WEIGHTS) choice.weight[threadIdx.x] = read_fresh(route + TOP + threadIdx.x);
      }
    }
    __syncthreads();
  }

  // inner = act(gate x, up x). Grid: blocks of tiles of sixteen inner channels, rows.
  template <class Block>
  static DEVICE void run_up(const ExpertsArgs& a, Block block, u8* memory, Choice<TOP>& choice) {
    typedef Matvec<typename Shape::Up, Block> M;
    typedef typename M::X X;
    int row = block.y(), rows = read_fresh(a.count); // nothing in a step changes its rows
    block.wait_for_inputs();
    if (row >= rows) return;
    auto x = [&](int, int) -> const float* { return a.x.row(row); };
    M mv(block, memory);
    typename M::Raw raw;
    typename X::Held held;
    X::load(held, x);
    if (CHOOSES && warp()) mv.x.store(held, x); // while one warp chooses
    find_experts<false>(a, row, choice);
    auto at = [&](int group, int m, int) {
      int expert = choice.index[group / UP_TILES];
      return WeightTile{
          matrix_of<typename Shape::Up::Weights>(m ? a.gate.first : a.up.first, expert, FF, HIDDEN),
          group % UP_TILES * 16, FF};
    };
    auto factor = [](int) { return 1.0f; };
    mv.issue_weights(raw, TOP * UP_TILES, at);
    if (!CHOOSES || !warp()) mv.x.store(held, x);
    mv.barrier_x();
    mv.run(raw, TOP * UP_TILES, at, factor, [&](int group, int i, int, const float* total) {
      int k = group / UP_TILES, channel = group % UP_TILES * 16 + i;
      if (channel >= FF) return;
      float u = total[0], g = JOINED ? total[M::JOIN - 1] : 0.0f,
            *inner = a.inner + ((u64)row * TOP + k) * FF + channel;
      u64 bias = (u64)choice.index[k] * FF + channel;
      if (a.up.bias) u += constant(a.up.bias + bias);
      if (JOINED && a.gate.bias) g += constant(a.gate.bias + bias);
      if (GATE == GATE_BEFORE) g = *inner;
      *inner = ACTIVATION == RAW ? u : activation(ACTIVATION, g, u, a.limit, a.alpha);
    });
  }

  // out = sum over k of weight_k * (down_k inner_k + bias_k). Grid: blocks of tiles of sixteen outputs, rows.
  template <class Block>
  static DEVICE void run_down(const ExpertsArgs& a, Block block, u8* memory, Choice<TOP>& choice) {
    typedef Matvec<typename Shape::Down, Block> M;
    typedef typename M::X X;
    constexpr int TILES = (HIDDEN + 15) / 16;
    int row = block.y();
    if (row >= read_fresh(a.count)) return;
    M mv(block, memory);
    typename M::Raw raw;
    typename X::Held held;
    find_experts<true>(a, row, choice); // the route and the logits are older than the launch before
    auto at = [&](int tile, int, int k) {
      return WeightTile{matrix_of<typename Shape::Down::Weights>(a.down.first, choice.index[k], HIDDEN, FF),
                        tile * 16, HIDDEN};
    };
    auto factor = [&](int k) { return choice.weight[k]; };
    mv.issue_weights(raw, TILES, at);
    block.wait_for_inputs();
    auto x = [&](int k, int) -> const float* { return a.inner + ((u64)row * TOP + k) * FF; };
    X::load(held, x);
    float addend = mv.prefetch_addend(TILES, [&](int tile, int i, int) {
      return a.add.x && tile * 16 + i < HIDDEN ? a.add.row(row)[tile * 16 + i] : 0.0f;
    });
    mv.x.store(held, x);
    mv.barrier_x();
    if (CHOOSES && block.x() == 0 && threadIdx.x < TOP) {
      a.route.row(row)[threadIdx.x] = (float)choice.index[threadIdx.x];
      a.route.row(row)[TOP + threadIdx.x] = choice.weight[threadIdx.x];
    }
    mv.run(raw, TILES, at, factor, [&](int tile, int i, int, const float* total) {
      int out = tile * 16 + i;
      if (out >= HIDDEN) return;
      float y = total[0];
      if (a.down.bias)
        for (int k = 0; k < TOP; k++)
          y = fmaf(choice.weight[k], constant(a.down.bias + (u64)choice.index[k] * HIDDEN + out), y);
      a.out.row(row)[out] = y;
      if (!a.add.x) return;
      float& sum = a.add.row(row)[out];
      sum = (M::THREAD_PER_OUTPUT ? addend : sum) + a.factor * y;
    });
  }
};
