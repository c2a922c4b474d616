// Keys and values into the cache, and what becomes of heads before. Macros as in cache.cuh.

struct AppendArgs { const Step* step; Cache cache; Rows k, v; };
KERNEL(kv_append, AppendArgs, 256) {
  begin();
  int row = blockIdx.y, i = blockIdx.x * 256 + threadIdx.x;
  if (row >= a.step->rows || i >= (int)a.cache.kv_heads * (DIM + V_DIM)) return;
  StepRow at = a.step->row[row];
  int head = i / (DIM + V_DIM), d = i % (DIM + V_DIM);
  if (d < DIM) {
    float x = d < K_DIM ? a.k.row(row)[head * K_DIM + d] : 0.0f;
    a.cache.key_block(at.slot, head, at.position)[(d / Q * 32 + at.position % 32) * Q + d % Q] = to_element(x);
  } else {
    d -= DIM;
    float x = d < K_V_DIM ? a.v.row(row)[head * K_V_DIM + d] : 0.0f;
    a.cache.value(at.slot, head, at.position)[d] = to_element(x);
  }
}

// What becomes of the heads of one buffer before attention.
struct Heads {
  Rows x;
  const float* weight; // of the norm, or null
  const double* turns; // per position, of each pair; null: no rotation
  u32 heads, dim, first, half, interleaved;
  u32 norm, append; // append: 0 nowhere, 1 to the keys, 2 to the values
  float eps, scale, amplitude;
};
struct HeadsArgs {
  const Step* step;
  Cache cache;
  Heads of[3];
};

// Norm, rotation and appending of one head per warp, of queries, keys and values.
KERNEL(heads, HeadsArgs, 256) {
  DYNAMIC_SHARED(float, memory);
  begin();
  int row = blockIdx.y, head = blockIdx.x * 8 + warp(), i = 0;
  while (i < 3 && head >= (int)a.of[i].heads) head -= a.of[i++].heads;
  if (row >= a.step->rows || i == 3) return;
  const Heads& h = a.of[i];
  StepRow at = a.step->row[row];
  int dim = h.dim;
  float *x = h.x.row(row) + head * dim, *y = memory + warp() * max(DIM, V_DIM), sum = 0.0f;
  for (int d = lane(); d < dim; d += 32) {
    float v = x[d];
    y[d] = v, sum = fmaf(v, v, sum);
  }
  if (h.norm) {
    float factor = 1.0f / sqrtf(warp_sum(sum) / dim + h.eps);
    for (int d = lane(); d < dim; d += 32) y[d] = y[d] * factor * (h.weight ? constant(h.weight + d) : 1.0f) * h.scale;
  }
  __syncwarp();
  if (h.turns)
    for (int pair = lane(); pair < (int)h.half; pair += 32) {
      float sine, cosine, *low = y + h.first + (h.interleaved ? 2 * pair : pair), *high = low + (h.interleaved ? 1 : h.half);
      turn(at.position, constant(h.turns + pair), h.amplitude, sine, cosine);
      float l = *low, u = *high;
      *low = l * cosine - u * sine, *high = u * cosine + l * sine;
    }
  __syncwarp();
  for (int d = lane(); d < dim && (h.norm || h.turns); d += 32) x[d] = y[d];
  if (h.append == 1)
    for (int d = lane(); d < DIM; d += 32)
      a.cache.key_block(at.slot, head, at.position)[(d / Q * 32 + at.position % 32) * Q + d % Q] = to_element(d < dim ? y[d] : 0.0f);
  if (h.append == 2)
    for (int d = lane(); d < V_DIM; d += 32) a.cache.value(at.slot, head, at.position)[d] = to_element(d < dim ? y[d] : 0.0f);
}
