// y = W x + b for many rows of x; up to four products of one x in one launch. x is first written in parts.

struct SplitArgs {
  const int* count;
  Rows x;
  u8* parts;                // [row, head, Split::ROW]
  Rows normed;              // of norm_split, as the rest
  const float* norm_weight; // or null
  float eps, scale;
};

struct GemmArgs {
  const int* count;
  const u8* parts;
  Product products[4];
  u32 number, unused;
};

// Shape: as Gemm wants it.
template <class Shape> struct LinearGemm {
  typedef Gemm<Shape> G;
  static constexpr int COLS = Shape::COLS, THREADS = G::THREADS, SPLIT_THREADS = 256;

  // Rows of x in parts, some of a row side by side: heads. Grid: units of a row, rows, heads.
  template <class Block> static DEVICE void split(const SplitArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), head = block.z();
    if (row >= *a.count) return;
    G::X::piece(a.x.row(row) + head * COLS, a.parts + ((u64)row * block.grid_z() + head) * G::X::ROW,
                block.x() * blockDim.x + threadIdx.x);
  }

  struct Shared {
    float parts[8];
  };

  // RMS norm of rows of x, as it is and in parts. Grid: rows.
  template <class Block> static DEVICE void norm_split(const SplitArgs& a, Block block, Shared& s) {
    block.wait_for_inputs();
    int row = block.x();
    if (row >= *a.count) return;
    const float* x = a.x.row(row);
    float *y = a.normed.row(row), sum = 0.0f;
    for (int i = threadIdx.x; i < COLS; i += SPLIT_THREADS) sum = fmaf(x[i], x[i], sum);
    sum = warp_sum(sum);
    if (lane() == 0) s.parts[warp()] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int w = 0; w < 8; w++) sum += s.parts[w];
    float factor = 1.0f / sqrtf(sum / COLS + a.eps);
    for (int i = threadIdx.x; i < COLS; i += SPLIT_THREADS)
      y[i] = x[i] * factor * (a.norm_weight ? constant(a.norm_weight + i) : 1.0f) * a.scale;
    __syncthreads();
    for (int unit = 0; unit < G::X::UNITS; unit += SPLIT_THREADS)
      G::X::piece(y, a.parts + (u64)row * G::X::ROW, unit + threadIdx.x);
  }

  // Grid: tiles of outputs, tiles of rows, heads: each has a matrix and inputs of its own.
  template <class Block> static DEVICE void run(const GemmArgs& a, Block block, u8* memory) {
    block.wait_for_inputs();
    int first = block.y() * G::TOKENS, tokens = *a.count - first, head = block.z(), n = 0;
    if (tokens <= 0) return;
    while (n + 1 < (int)a.number && block.x() >= a.products[n + 1].first) n++;
    const Product& p = a.products[n];
    int row0 = (block.x() - p.first) * G::OUTPUTS, rows = p.rows;
    const Matrix matrix = matrix_of<typename G::F>(p.matrix, head, rows, COLS);
    G gemm(memory, tokens);
    gemm.run(
        [&](int i, Matrix& m) {
          m = matrix;
          return min(row0 + i, rows - 1);
        },
        [&](int i) -> const u8* { return a.parts + ((u64)(first + i) * block.grid_z() + head) * G::X::ROW; },
        [&](int i, int token, float low, float high) {
#pragma unroll
          for (int h = 0; h < 2; h++) {
            int row = row0 + i + 16 * h;
            if (row >= rows) continue;
            float y = (h ? high : low) + (p.bias ? constant(p.bias + row) : 0.0f);
            p.out.row(first + token)[head * rows + row] = y;
            if (p.add.x) p.add.row(first + token)[row] += p.factor * y;
          }
        });
  }
};
