// Depthwise causal convolution: a thread per channel walks over the rows of a sequence. Kept inputs are
// [slot, tap, channel], the oldest first.

struct ConvArgs {
  const Step* step;
  Rows x, out;
  const float *weight, *bias; // [channels, taps + 1]; bias or null
  float* kept;
  u32 channels, silu;
};

// Grid: channels, rows; the block of a row that begins a stretch takes all of it.
template <int TAPS> struct Conv {
  static constexpr int THREADS = 128;

  template <class Block> static DEVICE void run(const ConvArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), channel = block.x() * THREADS + threadIdx.x;
    if (!begins_stretch(a.step, row) | (channel >= (int)a.channels)) return;
    StepRow first = a.step->row[row];
    float* kept = a.kept + (u64)first.slot * TAPS * a.channels + channel;
    float weight[TAPS + 1], x[TAPS + 1], bias = a.bias ? constant(a.bias + channel) : 0.0f;
#pragma unroll
    for (int j = 0; j <= TAPS; j++) weight[j] = constant(a.weight + (u64)channel * (TAPS + 1) + j);
#pragma unroll
    for (int j = 0; j < TAPS; j++) x[j] = first.position ? kept[j * a.channels] : 0.0f;
    for (; row < a.step->rows && a.step->row[row].slot == first.slot; row++) {
      x[TAPS] = a.x.row(row)[channel];
      float sum = bias;
#pragma unroll
      for (int j = 0; j <= TAPS; j++) sum = fmaf(weight[j], x[j], sum);
      a.out.row(row)[channel] = a.silu ? sum / (1.0f + expf(-sum)) : sum;
#pragma unroll
      for (int j = 0; j < TAPS; j++) x[j] = x[j + 1];
    }
#pragma unroll
    for (int j = 0; j < TAPS; j++) kept[j * a.channels] = x[j];
  }
};
