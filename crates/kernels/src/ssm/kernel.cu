// Selective state space: some lanes share a channel (a row of the state of a head), columns over them, and walk over the rows of
// a sequence. States are [slot, channel, state]. Macros: K_STATE, K_LANES (per channel, a power of two), K_PER_STATE.

struct SsmArgs {
  const Step* step;
  Rows x, b, c, dt, out;
  const float *a_log, *d, *dt_bias; // dt_bias: or null
  float* state;
  u32 heads, head_dim, share; // share: heads per group
  float dt_min, dt_max;
  u32 unused;
};

constexpr int PER_LANE = (K_STATE + K_LANES - 1) / K_LANES;

// Grid: channels, rows; the block of a row that begins a stretch takes all of it.
KERNEL(ssm, SsmArgs, 128) {
  begin();
  int row = blockIdx.y, channel = (blockIdx.x * 128 + threadIdx.x) / K_LANES, part = threadIdx.x % K_LANES;
  if (!begins_stretch(a.step, row)) return;
  StepRow first = a.step->row[row];
  int channels = a.heads * a.head_dim;
  bool mine = channel < channels;
  if (!mine) channel = channels - 1;
  int head = channel / a.head_dim, group = head / a.share;
  float* state = a.state + ((u64)first.slot * channels + channel) * K_STATE;
  float s[PER_LANE], rate[PER_LANE];
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    int c = i * K_LANES + part;
    bool in = c < K_STATE;
    rate[i] = in ? -(float)exp((double)constant(a.a_log + (K_PER_STATE ? head * K_STATE + c : head))) : 0.0f;
    s[i] = in && first.position ? state[c] : 0.0f;
  }
  float d = constant(a.d + head), dt_bias = a.dt_bias ? constant(a.dt_bias + head) : 0.0f;
  for (; row < a.step->rows && a.step->row[row].slot == first.slot; row++) {
    float x = a.x.row(row)[channel], y = 0.0f;
    float delta = softplus(a.dt.row(row)[head] + dt_bias);
    delta = delta < a.dt_min ? a.dt_min : delta > a.dt_max ? a.dt_max : delta;
    const float *b = a.b.row(row) + group * K_STATE, *c = a.c.row(row) + group * K_STATE;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
      int column = i * K_LANES + part;
      if (column < K_STATE) {
        s[i] = fmaf(s[i], expf(rate[i] * delta), delta * x * b[column]);
        y = fmaf(s[i], c[column], y);
      }
    }
#pragma unroll
    for (int o = K_LANES / 2; o; o >>= 1) y += __shfl_xor_sync(ALL, y, o);
    if (part == 0 && mine) a.out.row(row)[channel] = fmaf(d, x, y);
  }
#pragma unroll
  for (int i = 0; i < PER_LANE; i++)
    if (i * K_LANES + part < K_STATE && mine) state[i * K_LANES + part] = s[i];
}
