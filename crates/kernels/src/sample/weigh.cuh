// Keys and weights of logits, as `sample/mod.rs` says, step by step.

enum : u32 { BANDS = 1024, BAND_OF_ONE = 32 }; // bands of distances; how many of them a distance of one spans

// Keys are in order of the logits; of equal ones, the lowest id is the largest.
DEVICE u64 key_of(float logit, u32 id) {
  u32 bits = logit == 0.0f ? 0 : __float_as_uint(logit);
  return (u64)(bits >> 31 ? ~bits : bits | 1u << 31) << 32 | (u32)~id;
}
DEVICE u32 id_of(u64 key) { return ~(u32)key; }
DEVICE float logit_of(u64 key) {
  u32 ordered = key >> 32;
  return __uint_as_float(ordered >> 31 ? ordered & ~(1u << 31) : ~ordered);
}

DEVICE double distance(float largest, float logit) { return exact_add((double)largest, -(double)logit); }
// e^-distance in units of 2^-44.
DEVICE u64 weight(double distance) {
  if (!(distance < 32.0)) return 0;
  int n = (int)exact_add(exact_mul(distance, 1.4426950408889634), 0.5);
  double high = exact_add(exact_mul((double)n, 6.93147180369123816490e-1), -distance);
  double r = exact_add(high, exact_mul((double)n, 1.90821492927058770002e-10));
  const double taylor[12] = {
      1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0,
      1.0 / 120.0,      1.0 / 24.0,      1.0 / 6.0,      1.0 / 2.0,     1.0,          1.0};
  double p = 1.0 / 479001600.0;
#pragma unroll
  for (int i = 0; i < 12; i++) p = exact_add(exact_mul(p, r), taylor[i]);
  double scale = __longlong_as_double((long long)(1023 + 44 - n) << 52);
  return (u64)(long long)exact_add(exact_mul(p, scale), 0.5);
}
DEVICE u32 band_of(double distance) {
  return distance < 32.0 ? (u32)(int)exact_mul(distance, BAND_OF_ONE) : BANDS - 1;
}

// What top-p keeps of a sum.
DEVICE u64 needed_of(double top_p, u64 sum) { return (u64)ceil(exact_mul(top_p, (double)sum)); }

// What a sequence draws with. The host sets it, every draw advances it; `sample/cuda.rs` writes the same
// layout.
struct SampleState {
  double inverse, top_p; // inverse: of the temperature, 0 if greedy
  u64 least, stream, draws;
  u32 top_k, last_n;
  float penalty;
  u32 count;               // tokens before this draw, of which the last ones are kept
  u32 position, unused[3]; // of the next token
};

// Which kernels are for a row.
DEVICE bool is_filtered(const SampleState* s) {
  return s->inverse != 0.0 && (s->top_k > 0 || s->top_p < 1.0);
}
DEVICE bool is_drawn_from_all(const SampleState* s) { return s->inverse != 0.0 && s->top_k == 0; }

// The weight that counts before a temperature: 0 if min-p drops it.
DEVICE u64 plain_weight(const SampleState* s, float largest, float logit) {
  u64 w = weight(distance(largest, logit));
  return w < s->least ? 0 : w;
}
DEVICE u64 drawn_weight(const SampleState* s, float largest, float logit) {
  return plain_weight(s, largest, logit) ? weight(exact_mul(distance(largest, logit), s->inverse)) : 0;
}

// SplitMix64's output function.
DEVICE u64 mix(u64 z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}
// Where the next draw falls in a sum.
DEVICE u64 fall_of(const SampleState* s, u64 sum) {
  constexpr u64 GOLDEN = 0x9e3779b97f4a7c15ull;
  return __umul64hi(mix(s->stream + (s->draws + 1) * GOLDEN), sum);
}
