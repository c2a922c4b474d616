// y = W x + b for rows of x; up to four products of one x in one launch. Macros: K_FORMAT, K_LANE (columns a lane
// reads at a time), K_COLS, K_ROWS, K_WARPS, K_STEP (blocks of K a warp reads at a time),
// K_NORM (whether x is normalised first).

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

typedef Matvec<K_FORMAT, K_LANE, K_COLS, K_ROWS, K_WARPS, K_STEP, 1, 1> M;

DEVICE const Product& product_of(const LinearArgs& a, int tile) {
  int i = 0;
  while (i + 1 < (int)a.number && tile >= (int)a.products[i + 1].first) i++;
  return a.products[i];
}

struct NormShared { float parts[K_ROWS][K_WARPS], factor[K_ROWS]; };

// The factor that RMS norm puts on each row.
template <class X> DEVICE void norm_factors(const LinearArgs& a, NormShared& s, X x) {
#pragma unroll
  for (int r = 0; r < K_ROWS; r++) {
    const float* row = x(0, r);
    float sum = 0.0f;
    for (int i = 4 * threadIdx.x; row && i < K_COLS; i += 128 * K_WARPS) {
      float4 v = read<float4>(row + i);
      sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
    }
    sum = warp_sum(sum);
    if (lane() == 0) s.parts[r][warp()] = sum;
  }
  __syncthreads();
  if (threadIdx.x < K_ROWS) {
    float sum = 0.0f;
    for (int w = 0; w < K_WARPS; w++) sum += s.parts[threadIdx.x][w];
    s.factor[threadIdx.x] = 1.0f / sqrtf(sum / K_COLS + a.eps);
  }
  __syncthreads();
}

KERNEL(linear, LinearArgs, 32 * K_WARPS) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(NormShared, norm);
  M mv(memory);
  typename M::Raw raw[2];
  typename M::Sums sums;
  auto load = [&](typename M::Raw& r, int tile, int step) {
    const Product& p = product_of(a, tile);
    mv.load(r, (tile - p.first) * 16, p.rows, step, [&](int, int) { return p.matrix; }, [](int) { return 1.0f; });
  };
  int tile = blockIdx.x, step = 0, parity = 0;
  if (tile < (int)a.tiles) load(raw[0], tile, 0);
  begin();
  int first = blockIdx.y * K_ROWS, rows = *a.count - first;
  if (rows <= 0) return;
  auto x = [&](int, int r) -> const float* { return r < rows ? a.x.row(first + r) : nullptr; };
  if (K_NORM) norm_factors(a, norm, x);
  mv.stage(x, [&](int r, int col, float (&v)[M::UNIT]) {
    if (K_NORM && r < rows) {
#pragma unroll
      for (int i = 0; i < M::UNIT; i++)
        v[i] = v[i] * norm.factor[r] * (a.norm_weight ? constant(a.norm_weight + col + i) : 1.0f) * a.scale;
      if (blockIdx.x == 0) {
#pragma unroll
        for (int i = 0; i < M::UNIT; i += 4) write(a.normed.row(first + r) + col + i, make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]));
      }
    }
  });
  __syncthreads();
  M::clear(sums);
  // Codes of the next step travel while those of this one are multiplied.
  auto turn = [&](typename M::Raw& now, typename M::Raw& next) {
    int next_step = step + 1, next_tile = tile;
    if (next_step == M::STEPS) next_step = 0, next_tile += gridDim.x;
    if (next_tile < (int)a.tiles) load(next, next_tile, next_step);
    mv.multiply(sums, now, step);
    if (next_step == 0) {
      const Product& p = product_of(a, tile);
      mv.finish(sums, parity, [&](int i, int r, const float* total) {
        int row = (tile - p.first) * 16 + i;
        if (row >= (int)p.rows || r >= rows) return;
        float y = total[0] + (p.bias ? constant(p.bias + row) : 0.0f);
        p.out.row(first + r)[row] = y;
        if (p.add.x) p.add.row(first + r)[row] += p.factor * y;
      });
      M::clear(sums);
      parity ^= 1;
    }
    tile = next_tile, step = next_step;
  };
  while (tile < (int)a.tiles) {
    turn(raw[0], raw[1]);
    if (tile >= (int)a.tiles) break;
    turn(raw[1], raw[0]);
  }
}

// out_h = W_h x_h. Grid: tiles of sixteen outputs, heads, rows.
struct HeadLinearArgs {
  const int* count;
  Matrix first;
  Rows x, out;
  u32 rows, unused;
};
KERNEL(head_linear, HeadLinearArgs, 32 * K_WARPS) {
  DYNAMIC_SHARED(u8, memory);
  int head = blockIdx.y, row0 = blockIdx.x * 16;
  const Matrix matrix = matrix_of<K_FORMAT>(a.first, head, a.rows, K_COLS);
  M mv(memory);
  typename M::Raw raw[2];
  typename M::Sums sums;
  auto load = [&](typename M::Raw& r, int step) {
    mv.load(r, row0, a.rows, step, [&](int, int) { return matrix; }, [](int) { return 1.0f; });
  };
  load(raw[0], 0);
  begin();
  int first = blockIdx.z * K_ROWS, rows = *a.count - first;
  if (rows <= 0) return;
  mv.stage([&](int, int r) -> const float* { return r < rows ? a.x.row(first + r) + head * K_COLS : nullptr; });
  __syncthreads();
  M::clear(sums);
  mv.run(sums, raw, load);
  mv.finish(sums, 0, [&](int i, int r, const float* total) {
    if (row0 + i < (int)a.rows && r < rows) a.out.row(first + r)[head * a.rows + row0 + i] = total[0];
  });
}
