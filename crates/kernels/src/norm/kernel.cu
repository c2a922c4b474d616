// RMS norm and layer norm of chunks of rows.

struct NormArgs {
  const int* count;
  Rows x, out;
  const float *weight, *bias; // null: one, zero
  u32 chunks, dim, layer, per_chunk;
  float eps, scale;
};

struct Sums { float of[2][32]; }; // by turn and warp

// The sum of `v` over the threads that share a chunk.
template <bool BLOCK> DEVICE float chunk_sum(float v, Sums& parts, int turn) {
  v = warp_sum(v);
  if (!BLOCK) return v;
  if (lane() == 0) parts.of[turn][warp()] = v;
  __syncthreads();
  float sum = 0.0f;
  for (int w = 0; w < (int)blockDim.x / 32; w++) sum += parts.of[turn][w];
  return sum;
}

template <bool BLOCK> DEVICE void norm_chunk(const NormArgs& a, int row, int chunk, int thread, int threads, Sums& parts) {
  const float* x = a.x.row(row) + (u64)chunk * a.dim;
  float* out = a.out.row(row) + (u64)chunk * a.dim;
  int dim = a.dim, own = a.per_chunk ? chunk * dim : 0;
  float mean = 0.0f, sum = 0.0f;
  if (a.layer) {
    for (int i = thread; i < dim; i += threads) sum += x[i];
    mean = chunk_sum<BLOCK>(sum, parts, 0) / dim;
    sum = 0.0f;
  }
  for (int i = thread; i < dim; i += threads) sum = fmaf(x[i] - mean, x[i] - mean, sum);
  float factor = 1.0f / sqrtf(chunk_sum<BLOCK>(sum, parts, 1) / dim + a.eps);
  for (int i = thread; i < dim; i += threads) {
    float y = (x[i] - mean) * factor;
    if (a.weight) y *= constant(a.weight + own + i);
    if (a.bias) y += constant(a.bias + own + i);
    out[i] = y * a.scale;
  }
}

// A block per chunk.
KERNEL(norm_rows, NormArgs, 512) {
  SHARED(Sums, parts);
  begin();
  if ((int)blockIdx.y >= *a.count) return;
  norm_chunk<true>(a, blockIdx.y, blockIdx.x, threadIdx.x, blockDim.x, parts);
}

// A warp per chunk, eight to a block.
KERNEL(norm_heads, NormArgs, 256) {
  SHARED(Sums, parts);
  begin();
  int chunk = blockIdx.x * 8 + warp();
  if ((int)blockIdx.y >= *a.count || chunk >= (int)a.chunks) return;
  norm_chunk<false>(a, blockIdx.y, chunk, lane(), 32, parts);
}
