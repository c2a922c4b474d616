// Gated delta rule: a warp keeps some rows of the state of a head in registers, columns over lanes, and walks
// over the rows of a sequence. States are [slot, head, v_dim, k_dim].

struct DeltaNetArgs {
  const Step* step;
  Rows q, k, v, decay, beta, out;
  const float *a_log, *dt_bias;
  float* state;
  u32 v_heads, share; // share: value heads per key head
};

// PER_CHANNEL: whether each column decays at a rate of its own. WARPS: of a block. HELD: rows of the state
// that a warp keeps.
template <int DIM, int V_DIM, bool PER_CHANNEL, int WARPS, int HELD> struct DeltaNet {
  static constexpr int THREADS = 32 * WARPS, PER_LANE = (DIM + 31) / 32;

  // Grid: parts of the rows of a head, heads, rows of the step; the block of a row that begins a stretch
  // takes all of it.
  template <class Block> static DEVICE void run(const DeltaNetArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.z(), head = block.y(), first_v = (block.x() * WARPS + warp()) * HELD;
    if (!begins_stretch(a.step, row) || first_v >= V_DIM) return;
    StepRow first = a.step->row[row];
    float* state = a.state + (((u64)first.slot * a.v_heads + head) * V_DIM + first_v) * DIM;
    float s[HELD][PER_LANE], dt_bias[PER_LANE], rate = -(float)exp((double)constant(a.a_log + head));
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
      int c = i * 32 + lane();
      dt_bias[i] =
          PER_CHANNEL ? c < DIM ? constant(a.dt_bias + head * DIM + c) : 0.0f : constant(a.dt_bias + head);
#pragma unroll
      for (int r = 0; r < HELD; r++)
        s[r][i] = first.position && c < DIM && first_v + r < V_DIM ? state[r * DIM + c] : 0.0f;
    }
    for (; row < a.step->rows && a.step->row[row].slot == first.slot; row++) {
      const float *q = a.q.row(row) + head / a.share * DIM, *k = a.k.row(row) + head / a.share * DIM;
      const float* decay = a.decay.row(row) + head * (PER_CHANNEL ? DIM : 1);
      float beta = 1.0f / (1.0f + expf(-a.beta.row(row)[head])), keys[PER_LANE], queries[PER_LANE],
            product[HELD];
#pragma unroll
      for (int r = 0; r < HELD; r++) product[r] = 0.0f;
#pragma unroll
      for (int i = 0; i < PER_LANE; i++) {
        int c = i * 32 + lane();
        bool in = c < DIM;
        keys[i] = in ? k[c] : 0.0f, queries[i] = in ? q[c] : 0.0f;
        float g = in || !PER_CHANNEL ? expf(rate * softplus(decay[PER_CHANNEL ? c : 0] + dt_bias[i])) : 0.0f;
#pragma unroll
        for (int r = 0; r < HELD; r++) s[r][i] *= g, product[r] = fmaf(s[r][i], keys[i], product[r]);
      }
#pragma unroll
      for (int r = 0; r < HELD; r++) {
        float v = first_v + r < V_DIM ? a.v.row(row)[head * V_DIM + first_v + r] : 0.0f;
        float delta = beta * (v - warp_sum(product[r]));
        product[r] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
          s[r][i] = fmaf(delta, keys[i], s[r][i]);
          product[r] = fmaf(s[r][i], queries[i], product[r]);
        }
        float y = warp_sum(product[r]);
        if (lane() == 0 && first_v + r < V_DIM) a.out.row(row)[head * V_DIM + first_v + r] = y;
      }
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
#pragma unroll
      for (int r = 0; r < HELD; r++)
        if (i * 32 + lane() < DIM && first_v + r < V_DIM) state[r * DIM + i * 32 + lane()] = s[r][i];
  }
};
