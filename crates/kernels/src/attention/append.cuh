// Keys and values into the cache, and heads before attention.

// S: CacheShape.
template <class S> struct KvAppend {
  typedef typename S::Element Element;
  typedef typename S::Cache Cache;
  static constexpr int K_WIDTH = S::K_WIDTH, V_WIDTH = S::V_WIDTH, DIM = S::DIM, V_DIM = S::V_DIM;
  static constexpr int THREADS = 256;

  struct Args {
    const Step* step;
    Cache cache;
    Rows k, v;
  };

  // Grid: elements of a row, rows.
  template <class Block> static DEVICE void run(const Args& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if ((row >= a.step->rows) | (i >= (int)a.cache.kv_heads * (DIM + V_DIM))) return;
    StepRow at = a.step->row[row];
    int head = i / (DIM + V_DIM), d = i % (DIM + V_DIM);
    if (d < DIM) {
      float x = d < K_WIDTH ? a.k.row(row)[head * K_WIDTH + d] : 0.0f;
      *a.cache.key_element(at.slot, head, at.position, d) = S::to_element(x);
    } else {
      d -= DIM;
      float x = d < V_WIDTH ? a.v.row(row)[head * V_WIDTH + d] : 0.0f;
      a.cache.value(at.slot, head, at.position)[d] = S::to_element(x);
    }
  }
};

template <class S> struct PrepareHeads {
  typedef typename S::Element Element;
  typedef typename S::Cache Cache;
  static constexpr int DIM = S::DIM, V_DIM = S::V_DIM;
  static constexpr int THREADS = 256, WIDE = S::WIDE;

  struct Args {
    const Step* step;
    Cache cache;
    Heads of[3];
  };

  // Norm, rotation and appending of one head per warp, of queries, keys and values. Grid: heads by eight,
  // rows. `memory`: WIDE for each warp.
  template <class Block> static DEVICE void run(const Args& a, Block block, float* memory) {
    block.wait_for_inputs();
    int row = block.y(), head = block.x() * 8 + warp(), i = 0;
    while (i < 3 && head >= (int)a.of[i].heads) head -= a.of[i++].heads;
    if (row >= a.step->rows || i == 3) return;
    const Heads& h = a.of[i];
    StepRow at = a.step->row[row];
    float *x = h.x.row(row) + head * h.dim, *y = memory + warp() * WIDE;
    prepare(h, lanes_of<WIDE>(x, h.dim, 0.0f), weights_of<WIDE>(h), y,
            [&](int pair) { return turned(h, at.position, pair); });
    for (int d = lane(); d < (int)h.dim && (h.norm || h.turns); d += 32) x[d] = y[d];
    if (h.append == 1)
      for (int d = lane(); d < DIM; d += 32)
        *a.cache.key_element(at.slot, head, at.position, d) = S::to_element(y[d]);
    if (h.append == 2)
      for (int d = lane(); d < V_DIM; d += 32)
        a.cache.value(at.slot, head, at.position)[d] = S::to_element(y[d]);
  }
};
