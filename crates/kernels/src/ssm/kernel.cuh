// Selective state space: some lanes share a channel (a row of the state of a head), columns over them, and
// walk over the rows of a sequence. States are [slot, channel, state].

struct SsmArgs {
  const Step* step;
  Rows x, b, c, dt, out;
  const float *a_log, *d, *dt_bias; // dt_bias: or null
  float* state;
  u32 heads, head_dim, share; // share: heads per group
  float dt_min, dt_max;
  u32 unused;
};

// STATE: columns of the state. LANES: per channel, a power of two. PER_STATE: whether each column has a rate
// of its own, or the head one.
template <int STATE, int LANES, bool PER_STATE> struct Ssm {
  static constexpr int THREADS = 128, PER_LANE = (STATE + LANES - 1) / LANES;

  // Grid: channels, rows; the block of a row that begins a stretch takes all of it.
  template <class Block> static DEVICE void run(SsmArgs a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), channel = (block.x() * THREADS + threadIdx.x) / LANES, part = threadIdx.x % LANES;
    if (!begins_stretch(a.step, row)) return;
    StepRow first = a.step->row[row];
    int channels = a.heads * a.head_dim;
    bool mine = channel < channels;
    if (!mine) channel = channels - 1;
    int head = channel / a.head_dim, group = head / a.share;
    float* state = a.state + ((u64)first.slot * channels + channel) * STATE;
    float s[PER_LANE], rate[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
      int c = i * LANES + part;
      bool in = c < STATE;
      rate[i] = in ? -(float)exp((double)constant(a.a_log + (PER_STATE ? head * STATE + c : head))) : 0.0f;
      s[i] = in && first.position ? state[c] : 0.0f;
    }
    float d = constant(a.d + head), dt_bias = a.dt_bias ? constant(a.dt_bias + head) : 0.0f;
    for (; row < a.step->rows && a.step->row[row].slot == first.slot; row++) {
      float x = a.x.row(row)[channel], y = 0.0f;
      float delta = softplus(a.dt.row(row)[head] + dt_bias);
      delta = delta < a.dt_min ? a.dt_min : delta > a.dt_max ? a.dt_max : delta;
      const float *b = a.b.row(row) + group * STATE, *c = a.c.row(row) + group * STATE;
#pragma unroll
      for (int i = 0; i < PER_LANE; i++) {
        int column = i * LANES + part;
        if (column < STATE) {
          s[i] = fmaf(s[i], expf(rate[i] * delta), delta * x * b[column]);
          y = fmaf(s[i], c[column], y);
        }
      }
#pragma unroll
      for (int o = LANES / 2; o; o >>= 1) y += __shfl_xor_sync(ALL, y, o);
      if (part == 0 && mine) a.out.row(row)[channel] = fmaf(d, x, y);
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
      if (i * LANES + part < STATE && mine) state[i * LANES + part] = s[i];
  }
};
