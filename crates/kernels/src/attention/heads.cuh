// What becomes of heads before attention: norm, rotation.

// Of one buffer.
struct Heads {
  Rows x;
  const float* weight; // of the norm, or null
  const double* turns; // per position, of each pair; null: no rotation
  u32 heads, dim, first, half, interleaved;
  u32 norm, append; // append: 0 nowhere, 1 to the keys, 2 to the values
  float eps, scale, amplitude;
};

// A head of at most D elements, over the lanes of a warp; `other` past its end.
template <int D> struct Lanes {
  float x[(D + 31) / 32];
};
template <int D> DEVICE Lanes<D> lanes_of(const float* x, int dim, float other) {
  Lanes<D> lanes;
#pragma unroll
  for (int i = 0; i < (D + 31) / 32; i++) lanes.x[i] = lane() + 32 * i < dim ? x[lane() + 32 * i] : other;
  return lanes;
}
// Weights are none of what begin() waits for.
template <int D> DEVICE Lanes<D> weights_of(const Heads& h) {
  return lanes_of<D>(h.weight, h.weight ? h.dim : 0, 1.0f);
}

// Norm and rotation of a head by a warp, to D floats that its lanes share. `angle` gives sine and cosine of a
// pair.
template <int D, class Angle>
DEVICE void prepare(const Heads& h, const Lanes<D>& x, const Lanes<D>& weight, float* y, Angle angle) {
  float sum = 0.0f, factor = 1.0f;
#pragma unroll
  for (int i = 0; i < (D + 31) / 32; i++) sum = fmaf(x.x[i], x.x[i], sum);
  if (h.norm) factor = 1.0f / sqrtf(warp_sum(sum) / (int)h.dim + h.eps);
#pragma unroll
  for (int i = 0; i < (D + 31) / 32; i++)
    if (D % 32 == 0 || lane() + 32 * i < D)
      y[lane() + 32 * i] = h.norm ? x.x[i] * factor * weight.x[i] * h.scale : x.x[i];
  __syncwarp();
  if (h.turns)
    for (int pair = lane(); pair < (int)h.half; pair += 32) {
      float *low = y + h.first + (h.interleaved ? 2 * pair : pair),
            *high = low + (h.interleaved ? 1 : h.half);
      float2 turned = angle(pair);
      float l = *low, u = *high;
      *low = l * turned.y - u * turned.x, *high = u * turned.y + l * turned.x;
    }
  __syncwarp();
}

DEVICE float2 turned(const Heads& h, u32 position, int pair) {
  float sine, cosine;
  turn(position, constant(h.turns + pair), h.amplitude, sine, cosine);
  return make_float2(sine, cosine);
}
