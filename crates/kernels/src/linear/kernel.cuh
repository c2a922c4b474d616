// y = W x + b for few rows of x; up to four products of one x in one launch.

struct LinearArgs {
  const int* count; // rows of the step
  Rows x;
  Product products[4];
  u32 tiles, number;
  // With Shape::NORM: RMS norm of x, which is written, too.
  Rows normed;
  const float* norm_weight; // or null
  float eps, scale;
};

// Shape: as Matvec wants it, and NORM: whether x is normalised first.
template <class Shape> struct Linear {
  typedef MatvecLayout<Shape> L;
  typedef MatvecX<Shape> X;
  static constexpr int THREADS = L::THREADS, ROWS = L::ROWS, WARPS = L::WARPS, UNIT = L::UNIT;
  static constexpr bool NORM = Shape::NORM;
  // Whether weights of the norm wait in registers for x.
  static constexpr bool EARLY_WEIGHTS = ROWS == 1 && L::TURNS == L::HELD;

  // Sums of squares of each row, by warp.
  struct Shared {
    float squares[ROWS][WARPS];
  };

  static DEVICE const Product& product_of(const LinearArgs& a, int tile) {
    int i = 0;
    while (i + 1 < (int)a.number && tile >= (int)a.products[i + 1].first) i++;
    return a.products[i];
  }

  // The factor that RMS norm puts on a row: products of x with the weights of the norm alone get it in the
  // end.
  static DEVICE float norm_factor(const LinearArgs& a, const Shared& s, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += s.squares[row][w];
    return a.scale / sqrtf(sum / L::COLS + a.eps);
  }

  // Weights of the norm for the units of a turn.
  static DEVICE void norm_weights(const LinearArgs& a, int turn, float (&w)[UNIT]) {
    int unit = X::unit_of(turn);
#pragma unroll
    for (int i = 0; i < UNIT; i++)
      w[i] = a.norm_weight && X::in_row(unit) ? constant(a.norm_weight + X::col_of(unit) + i) : 1.0f;
  }

  // Adds squares up and puts the weights on.
  static DEVICE void weigh(const LinearArgs& a, Shared& s, int turn, float (&v)[UNIT],
                           const float (&w)[UNIT]) {
    float sum = 0.0f, *at = &s.squares[X::row_of(turn)][warp()];
#pragma unroll
    for (int i = 0; i < UNIT; i++) sum = fmaf(v[i], v[i], sum), v[i] *= w[i];
    sum = warp_sum(sum);
    if (lane() == 0) *at = turn % L::TURNS ? *at + sum : sum;
  }

  // The normalised rows: every block its share.
  template <class Block>
  static DEVICE void write_normed(const LinearArgs& a, Block block, const Shared& s, const X& x, int first,
                                  int rows) {
    for (int turn = 0; turn < L::ALL_TURNS; turn++) {
      int unit = X::unit_of(turn), row = X::row_of(turn);
      if (row >= rows || !X::in_row(unit) || unit % block.grid_x() != block.x()) continue;
      float v[UNIT], factor = norm_factor(a, s, row), *to = a.normed.row(first + row) + X::col_of(unit);
      x.stored(turn, v);
#pragma unroll
      for (int i = 0; i < UNIT; i += 4)
        write(to + i, make_float4(v[i] * factor, v[i + 1] * factor, v[i + 2] * factor, v[i + 3] * factor));
    }
  }

  // Grid: blocks that share the tiles, rows by ROWS. `memory`: L::SHARED_BYTES.
  template <class Block> static DEVICE void run(const LinearArgs& a, Block block, u8* memory, Shared& s) {
    typedef Matvec<Shape, Block> M;
    M mv(block, memory);
    typename M::Raw raw;
    typename X::Held held, weights;
    auto at = [&](int tile, int, int) {
      const Product& p = product_of(a, tile);
      return WeightTile{p.matrix, (tile - (int)p.first) * 16, (int)p.rows};
    };
    auto factor = [](int) { return 1.0f; };
    mv.issue_weights(raw, a.tiles, at);
    if (NORM && EARLY_WEIGHTS) {
#pragma unroll
      for (int n = 0; n < L::HELD; n++) norm_weights(a, n, weights.v[n]);
    }
    int first = block.y() * ROWS, rows = read_fresh(a.count) - first; // nothing in a step changes its rows
    block.wait_for_inputs();
    if (rows <= 0) return;
    auto x = [&](int, int r) -> const float* { return r < rows ? a.x.row(first + r) : nullptr; };
    X::load(held, x);
    float addend = mv.prefetch_addend(a.tiles, [&](int tile, int i, int r) {
      const Product& p = product_of(a, tile);
      int row = (tile - p.first) * 16 + i;
      return p.add.x && row < (int)p.rows && r < rows ? p.add.row(first + r)[row] : 0.0f;
    });
    mv.x.store(held, x, [&](int turn, float (&v)[UNIT]) {
      if (NORM && EARLY_WEIGHTS) {
        weigh(a, s, turn, v, weights.v[turn]);
      } else if (NORM) {
        float w[UNIT];
        norm_weights(a, turn, w);
        weigh(a, s, turn, v, w);
      }
    });
    mv.barrier_x();
    if (NORM) write_normed(a, block, s, mv.x, first, rows);
    mv.run(raw, a.tiles, at, factor, [&](int tile, int i, int r, const float* total) {
      const Product& p = product_of(a, tile);
      int row = (tile - p.first) * 16 + i;
      if (row >= (int)p.rows || r >= rows) return;
      float y =
          (NORM ? total[0] * norm_factor(a, s, r) : total[0]) + (p.bias ? constant(p.bias + row) : 0.0f);
      p.out.row(first + r)[row] = y;
      if (!p.add.x) return;
      float& sum = p.add.row(first + r)[row];
      sum = (M::THREAD_PER_OUTPUT ? addend : sum) + p.factor * y;
    });
  }
};

// y_h = W_h x_h: a product per head.
struct HeadLinearArgs {
  const int* count;
  Matrix first;
  Rows x, out;
  u32 rows, unused;
};

template <class Shape> struct HeadLinear {
  typedef MatvecLayout<Shape> L;
  typedef MatvecX<Shape> X;
  static constexpr int THREADS = L::THREADS, ROWS = L::ROWS, COLS = L::COLS;

  // Grid: tiles of sixteen outputs, heads, rows by ROWS. `memory`: L::SHARED_BYTES.
  template <class Block> static DEVICE void run(const HeadLinearArgs& a, Block block, u8* memory) {
    typedef Matvec<Shape, Block> M;
    int head = block.y();
    const Matrix matrix = matrix_of<typename L::F>(a.first, head, a.rows, COLS);
    M mv(block, memory);
    typename M::Raw raw;
    typename X::Held held;
    auto at = [&](int tile, int, int) { return WeightTile{matrix, tile * 16, (int)a.rows}; };
    auto factor = [](int) { return 1.0f; };
    int first = block.z() * ROWS, rows = read_fresh(a.count) - first;
    mv.issue_weights(raw, block.grid_x(), at);
    block.wait_for_inputs();
    if (rows <= 0) return;
    auto x = [&](int, int r) -> const float* {
      return r < rows ? a.x.row(first + r) + head * COLS : nullptr;
    };
    X::load(held, x);
    mv.x.store(held, x);
    mv.barrier_x();
    mv.run(raw, block.grid_x(), at, factor, [&](int tile, int i, int r, const float* total) {
      if (tile * 16 + i < (int)a.rows && r < rows)
        a.out.row(first + r)[head * a.rows + tile * 16 + i] = total[0];
    });
  }
};
