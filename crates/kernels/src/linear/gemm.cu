// y = W x + b for many rows of x; up to four products of one x in one launch. Macros: K_FORMAT, K_COLS, K_PARTS (of x), and how it is
// cut up: K_WM, K_WK, K_NT, K_STAGES.

typedef Gemm<K_FORMAT, K_COLS, K_PARTS, K_WM, K_WK, K_NT, K_STAGES> G;

struct SplitArgs {
  const int* count;
  Rows x;
  u8* parts; // [row, head, G::X::ROW]
  Rows normed; // of `norm_split`, as the rest
  const float* norm_weight; // or null
  float eps, scale;
};

// Rows of x in parts, some of a row side by side: heads. Grid: units of a row, rows, heads.
KERNEL(split, SplitArgs, 256) {
  begin();
  int row = blockIdx.y, head = blockIdx.z;
  if (row >= *a.count) return;
  G::X::piece(a.x.row(row) + head * K_COLS, a.parts + ((u64)row * gridDim.z + head) * G::X::ROW, blockIdx.x * blockDim.x + threadIdx.x);
}

struct NormShared { float parts[8]; };

// RMS norm of rows of x, as it is and in parts. Grid: rows.
KERNEL(norm_split, SplitArgs, 256) {
  SHARED(NormShared, s);
  begin();
  int row = blockIdx.x;
  if (row >= *a.count) return;
  const float* x = a.x.row(row);
  float *y = a.normed.row(row), sum = 0.0f;
  for (int i = threadIdx.x; i < K_COLS; i += 256) sum = fmaf(x[i], x[i], sum);
  sum = warp_sum(sum);
  if (lane() == 0) s.parts[warp()] = sum;
  __syncthreads();
  sum = 0.0f;
  for (int w = 0; w < 8; w++) sum += s.parts[w];
  float factor = 1.0f / sqrtf(sum / K_COLS + a.eps);
  for (int i = threadIdx.x; i < K_COLS; i += 256) y[i] = x[i] * factor * (a.norm_weight ? constant(a.norm_weight + i) : 1.0f) * a.scale;
  __syncthreads();
  for (int unit = 0; unit < G::X::UNITS; unit += 256) G::X::piece(y, a.parts + (u64)row * G::X::ROW, unit + threadIdx.x);
}

struct Product {
  Matrix matrix;
  const float* bias;
  Rows out, add;   // add: null, or what `factor` times the result is added to as well
  u32 rows, first; // outputs; number of the first tile
  float factor;
  u32 unused;
};
struct GemmArgs {
  const int* count;
  const u8* parts;
  Product products[4];
  u32 number, unused;
};

// Grid: tiles of outputs, tiles of rows, heads: each has a matrix and inputs of its own.
KERNEL(gemm, GemmArgs, G::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  begin();
  int first = blockIdx.y * G::TOKENS, tokens = *a.count - first, head = blockIdx.z, n = 0;
  if (tokens <= 0) return;
  while (n + 1 < (int)a.number && blockIdx.x >= a.products[n + 1].first) n++;
  const Product& p = a.products[n];
  int row0 = (blockIdx.x - p.first) * G::OUTPUTS, rows = p.rows;
  const Matrix matrix = matrix_of<K_FORMAT>(p.matrix, head, rows, K_COLS);
  G gemm(memory, tokens);
  gemm.run(
      [&](int i, Matrix& m) {
        m = matrix;
        return min(row0 + i, rows - 1);
      },
      [&](int i) -> const u8* { return a.parts + ((u64)(first + i) * gridDim.z + head) * G::X::ROW; },
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
