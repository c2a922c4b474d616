// y = W x + b for rows of x; up to four products of one x in one launch. Macros: K_FORMAT, K_LANE (columns a lane
// reads at a time), K_COLS, K_ROWS, K_WARPS, K_STEP (blocks of K a warp has on their way), K_SLOTS (tiles a block takes at once),
// K_ONCE (whether those are all), K_FULL (whether all have sixteen outputs), K_NORM (whether x is normalised first), K_BESIDE (whether a
// block of the next launch, which reads its codes ahead, is to fit beside), K_HEADS (whether it is a product per head).

#if !K_HEADS
struct Product {
  Matrix matrix;
  const float* bias;
  Rows out, add;   // add: null, or what `factor` times the result is added to as well
  u32 rows, first; // outputs; number of the first tile
  float factor;
  u32 unused;
};
struct LinearArgs {
  const int* count; // rows of the step
  Rows x;
  Product products[4];
  u32 tiles, number;
  // With K_NORM: RMS norm of x, which is written, too.
  Rows normed;
  const float* norm_weight; // or null
  float eps, scale;
};

#endif
typedef Matvec<K_FORMAT, K_LANE, K_COLS, K_ROWS, K_WARPS, K_STEP, K_SLOTS, K_ONCE, K_FULL> M;
#if !K_HEADS
// Whether weights of the norm wait in registers for x.
constexpr bool AHEAD = K_ROWS == 1 && M::TURNS == M::HELD;

DEVICE const Product& product_of(const LinearArgs& a, int tile) {
  int i = 0;
  while (i + 1 < (int)a.number && tile >= (int)a.products[i + 1].first) i++;
  return a.products[i];
}

// Sums of squares of each row, by warp.
struct NormShared { float squares[K_ROWS][K_WARPS]; };

// The factor that RMS norm puts on a row: products of x with the weights of the norm alone get it in the end.
DEVICE float norm_factor(const LinearArgs& a, const NormShared& s, int row) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < K_WARPS; w++) sum += s.squares[row][w];
  return a.scale / sqrtf(sum / K_COLS + a.eps);
}

// Weights of the norm for the units of a turn.
DEVICE void norm_weights(const LinearArgs& a, int turn, float (&w)[M::UNIT]) {
  int unit = M::unit_of(turn);
#pragma unroll
  for (int i = 0; i < M::UNIT; i++) w[i] = a.norm_weight && M::in_row(unit) ? constant(a.norm_weight + M::col_of(unit) + i) : 1.0f;
}

// Adds squares up and puts the weights on.
DEVICE void weigh(const LinearArgs& a, NormShared& s, int turn, float (&v)[M::UNIT], const float (&w)[M::UNIT]) {
  float sum = 0.0f, *at = &s.squares[M::row_of(turn)][warp()];
#pragma unroll
  for (int i = 0; i < M::UNIT; i++) sum = fmaf(v[i], v[i], sum), v[i] *= w[i];
  sum = warp_sum(sum);
  if (lane() == 0) *at = turn % M::TURNS ? *at + sum : sum;
}

// The normalised rows: every block its share.
DEVICE void write_normed(const LinearArgs& a, const NormShared& s, const M& mv, int first, int rows) {
  for (int turn = 0; turn < M::ALL_TURNS; turn++) {
    int unit = M::unit_of(turn), row = M::row_of(turn);
    if (row >= rows || !M::in_row(unit) || unit % gridDim.x != blockIdx.x) continue;
    float v[M::UNIT], factor = norm_factor(a, s, row), *to = a.normed.row(first + row) + M::col_of(unit);
    mv.staged(turn, v);
#pragma unroll
    for (int i = 0; i < M::UNIT; i += 4) write(to + i, make_float4(v[i] * factor, v[i + 1] * factor, v[i + 2] * factor, v[i + 3] * factor));
  }
}

KERNEL_PER_SM(linear, LinearArgs, 32 * K_WARPS, min_blocks_per_sm(K_BESIDE)) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(NormShared, norm);
  M mv(memory);
  typename M::Raw raw;
  typename M::Held held, weights;
  auto at = [&](int tile, int, int) {
    const Product& p = product_of(a, tile);
    return Tile{p.matrix, (tile - (int)p.first) * 16, (int)p.rows};
  };
  auto factor = [](int) { return 1.0f; };
  mv.ahead(raw, a.tiles, at);
  if (K_NORM && AHEAD) {
#pragma unroll
    for (int n = 0; n < M::HELD; n++) norm_weights(a, n, weights.v[n]);
  }
  int first = blockIdx.y * K_ROWS, rows = read_fresh(a.count) - first; // nothing in a step changes its rows
  begin();
  if (rows <= 0) return;
  auto x = [&](int, int r) -> const float* { return r < rows ? a.x.row(first + r) : nullptr; };
  M::fetch(held, x);
  float before = M::foresee(a.tiles, [&](int tile, int i, int r) {
    const Product& p = product_of(a, tile);
    int row = (tile - p.first) * 16 + i;
    return p.add.x && row < (int)p.rows && r < rows ? p.add.row(first + r)[row] : 0.0f;
  });
  mv.stage(held, x, [&](int turn, float (&v)[M::UNIT]) {
    if (K_NORM && AHEAD) {
      weigh(a, norm, turn, v, weights.v[turn]);
    } else if (K_NORM) {
      float w[M::UNIT];
      norm_weights(a, turn, w);
      weigh(a, norm, turn, v, w);
    }
  });
  mv.settle();
  if (K_NORM) write_normed(a, norm, mv, first, rows);
  mv.run(raw, a.tiles, at, factor, [&](int tile, int i, int r, const float* total) {
    const Product& p = product_of(a, tile);
    int row = (tile - p.first) * 16 + i;
    if (row >= (int)p.rows || r >= rows) return;
    float y = (K_NORM ? total[0] * norm_factor(a, norm, r) : total[0]) + (p.bias ? constant(p.bias + row) : 0.0f);
    p.out.row(first + r)[row] = y;
    if (!p.add.x) return;
    float& sum = p.add.row(first + r)[row];
    sum = (M::ALONE ? before : sum) + p.factor * y;
  });
}

#else
// out_h = W_h x_h. Grid: tiles of sixteen outputs, heads, rows.
struct HeadLinearArgs {
  const int* count;
  Matrix first;
  Rows x, out;
  u32 rows, unused;
};
KERNEL_PER_SM(head_linear, HeadLinearArgs, 32 * K_WARPS, min_blocks_per_sm(K_BESIDE)) {
  DYNAMIC_SHARED(u8, memory);
  int head = blockIdx.y;
  const Matrix matrix = matrix_of<K_FORMAT>(a.first, head, a.rows, K_COLS);
  M mv(memory);
  typename M::Raw raw;
  typename M::Held held;
  auto at = [&](int tile, int, int) { return Tile{matrix, tile * 16, (int)a.rows}; };
  auto factor = [](int) { return 1.0f; };
  int first = blockIdx.z * K_ROWS, rows = read_fresh(a.count) - first;
  mv.ahead(raw, gridDim.x, at);
  begin();
  if (rows <= 0) return;
  auto x = [&](int, int r) -> const float* { return r < rows ? a.x.row(first + r) + head * K_COLS : nullptr; };
  M::fetch(held, x);
  mv.stage(held, x);
  mv.settle();
  mv.run(raw, gridDim.x, at, factor, [&](int tile, int i, int r, const float* total) {
    if (tile * 16 + i < (int)a.rows && r < rows) a.out.row(first + r)[head * a.rows + tile * 16 + i] = total[0];
  });
}
#endif
