// RMS norm and layer norm of chunks of rows.

struct NormArgs {
  const int* count;
  Rows x, out;
  const float *weight, *bias; // null: one, zero
  u32 chunks, dim, layer, per_chunk;
  float eps, scale;
};

struct NormShared {
  float sums[2][32];
}; // by turn and warp

// The sum of `v` over the threads that share a chunk.
template <bool BLOCK> DEVICE float chunk_sum(float v, NormShared& s, int turn) {
  v = warp_sum(v);
  if (!BLOCK) return v;
  if (lane() == 0) s.sums[turn][warp()] = v;
  __syncthreads();
  float sum = 0.0f;
  for (int w = 0; w < (int)blockDim.x / 32; w++) sum += s.sums[turn][w];
  return sum;
}

template <bool BLOCK>
DEVICE void norm_chunk(const NormArgs& a, int row, int chunk, int thread, int threads, NormShared& s) {
  const float* x = a.x.row(row) + (u64)chunk * a.dim;
  float* out = a.out.row(row) + (u64)chunk * a.dim;
  int dim = a.dim, own = a.per_chunk ? chunk * dim : 0;
  float mean = 0.0f, sum = 0.0f;
  if (a.layer) {
    for (int i = thread; i < dim; i += threads) sum += x[i];
    mean = chunk_sum<BLOCK>(sum, s, 0) / dim;
    sum = 0.0f;
  }
  for (int i = thread; i < dim; i += threads) sum = fmaf(x[i] - mean, x[i] - mean, sum);
  float factor = 1.0f / sqrtf(chunk_sum<BLOCK>(sum, s, 1) / dim + a.eps);
  for (int i = thread; i < dim; i += threads) {
    float y = (x[i] - mean) * factor;
    if (a.weight) y *= constant(a.weight + own + i);
    if (a.bias) y += constant(a.bias + own + i);
    out[i] = y * a.scale;
  }
}

// A block of at most 512 threads per chunk.
struct NormRows {
  static constexpr int THREADS = 512;
  template <class Block> static DEVICE void run(const NormArgs& a, Block block, NormShared& s) {
    block.wait_for_inputs();
    if ((int)block.y() >= *a.count) return;
    norm_chunk<true>(a, block.y(), block.x(), threadIdx.x, blockDim.x, s);
  }
};

// A warp per chunk, eight to a block.
struct NormHeads {
  static constexpr int THREADS = 256;
  template <class Block> static DEVICE void run(const NormArgs& a, Block block, NormShared& s) {
    block.wait_for_inputs();
    int chunk = block.x() * 8 + warp();
    if ((int)block.y() >= *a.count || chunk >= (int)a.chunks) return;
    norm_chunk<false>(a, block.y(), chunk, lane(), 32, s);
  }
};
