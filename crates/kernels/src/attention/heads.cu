// Keys and values into the cache, and heads before attention. Macros as in cache.cuh.

struct AppendArgs { const Step* step; Cache cache; Rows k, v; };
KERNEL(kv_append, AppendArgs, 256) {
  begin();
  int row = blockIdx.y, i = blockIdx.x * 256 + threadIdx.x;
  if (row >= a.step->rows || i >= (int)a.cache.kv_heads * (DIM + V_DIM)) return;
  StepRow at = a.step->row[row];
  int head = i / (DIM + V_DIM), d = i % (DIM + V_DIM);
  if (d < DIM) {
    float x = d < K_DIM ? a.k.row(row)[head * K_DIM + d] : 0.0f;
    *a.cache.key_element(at.slot, head, at.position, d) = to_element(x);
  } else {
    d -= DIM;
    float x = d < K_V_DIM ? a.v.row(row)[head * K_V_DIM + d] : 0.0f;
    a.cache.value(at.slot, head, at.position)[d] = to_element(x);
  }
}

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
  float *x = h.x.row(row) + head * h.dim, *y = memory + warp() * WIDE;
  prepare(h, lanes_of<WIDE>(x, h.dim, 0.0f), weights_of<WIDE>(h), y, [&](int pair) { return turned(h, at.position, pair); });
  for (int d = lane(); d < (int)h.dim && (h.norm || h.turns); d += 32) x[d] = y[d];
  if (h.append == 1)
    for (int d = lane(); d < DIM; d += 32) *a.cache.key_element(at.slot, head, at.position, d) = to_element(y[d]);
  if (h.append == 2)
    for (int d = lane(); d < V_DIM; d += 32) a.cache.value(at.slot, head, at.position)[d] = to_element(y[d]);
}
