// Depthwise causal convolution: a thread per channel walks over the rows of a sequence. Kept inputs are [slot, tap, channel],
// the oldest first. Macros: K_TAPS.

struct ConvArgs {
  const Step* step;
  Rows x, out;
  const float *weight, *bias; // [channels, K_TAPS + 1]; bias or null
  float* kept;
  u32 channels, silu;
};

// Grid: channels, rows; the block of a row that begins a stretch takes all of it.
KERNEL(conv, ConvArgs, 128) {
  begin();
  int row = blockIdx.y, channel = blockIdx.x * 128 + threadIdx.x;
  if (!begins_stretch(a.step, row) || channel >= (int)a.channels) return;
  StepRow first = a.step->row[row];
  float* kept = a.kept + (u64)first.slot * K_TAPS * a.channels + channel;
  float weight[K_TAPS + 1], x[K_TAPS + 1], bias = a.bias ? constant(a.bias + channel) : 0.0f;
#pragma unroll
  for (int j = 0; j <= K_TAPS; j++) weight[j] = constant(a.weight + (u64)channel * (K_TAPS + 1) + j);
#pragma unroll
  for (int j = 0; j < K_TAPS; j++) x[j] = first.position ? kept[j * a.channels] : 0.0f;
  for (; row < a.step->rows && a.step->row[row].slot == first.slot; row++) {
    x[K_TAPS] = a.x.row(row)[channel];
    float sum = bias;
#pragma unroll
    for (int j = 0; j <= K_TAPS; j++) sum = fmaf(weight[j], x[j], sum);
    a.out.row(row)[channel] = a.silu ? sum / (1.0f + expf(-sum)) : sum;
#pragma unroll
    for (int j = 0; j < K_TAPS; j++) x[j] = x[j + 1];
  }
#pragma unroll
  for (int j = 0; j < K_TAPS; j++) kept[j * a.channels] = x[j];
}
