// From logits to chosen experts and their weights, in f64 as everywhere. A block per row, a thread per expert: an expert is
// chosen if fewer than K_TOP are better. Macros: K_EXPERTS, K_TOP, K_SCORE, K_GROUPS (0: none), K_KEEP, K_BEST_TWO, K_NORMALISE.

enum Score { SOFTMAX, TOP_K_SOFTMAX, SIGMOID_SCORE, SPARSE_MIXER };

struct RouterArgs {
  const int* count;
  Rows logits, out, input_gate; // input_gate: or null
  const float *correction, *per_expert; // or null
  float eps, scale, jitter;
  u32 unused;
};

constexpr int E = K_EXPERTS, THREADS = (E + 31) / 32 * 32;
struct RouterShared {
  double score[E], choice[E], warp[32], group[64];
  u8 kept[64];
  int index[K_TOP];
  double weight[K_TOP];
  u32 picked[32];
};

// Whether number i of value a goes before number j of value b: larger first, then lower; NaN last.
DEVICE bool before(double a, int i, double b, int j) { return a > b || (a == b && i < j) || (a == a ? b != b : b != b && i < j); }

template <class Of> DEVICE int rank(int n, int i, Of of) {
  int better = 0;
  double own = of(i);
  for (int j = 0; j < n; j++) better += before(of(j), j, own, i);
  return better;
}
DEVICE double block_sum(double v, RouterShared& s) {
  v = warp_sum(v);
  __syncthreads();
  if (lane() == 0) s.warp[warp()] = v;
  __syncthreads();
  double sum = 0.0;
  for (int w = 0; w < THREADS / 32; w++) sum += s.warp[w];
  return sum;
}
DEVICE double block_max(double v, RouterShared& s) { // NaN loses
  v = warp_max(v == v ? v : -infinite());
  __syncthreads();
  if (lane() == 0) s.warp[warp()] = v;
  __syncthreads();
  double most = s.warp[0];
  for (int w = 1; w < THREADS / 32; w++) most = s.warp[w] > most ? s.warp[w] : most;
  return most;
}

DEVICE void limit_groups(RouterShared& s, int i) {
#if K_GROUPS
  constexpr int SIZE = E / K_GROUPS;
  if (i < K_GROUPS) {
    auto of = [&](int j) { return s.choice[i * SIZE + j]; };
    double best = of(0), second = -infinite();
    for (int j = 1; j < SIZE; j++) {
      double v = of(j);
      if (before(v, j, best, 0)) second = best, best = v;
      else if (before(v, j, second, 0)) second = v;
    }
    s.group[i] = K_BEST_TWO && SIZE > 1 ? best + second : best;
  }
  __syncthreads();
  if (i < K_GROUPS) s.kept[i] = rank(K_GROUPS, i, [&](int j) { return s.group[j]; }) < K_KEEP;
  __syncthreads();
  if (i < E && !s.kept[i / SIZE]) s.choice[i] = 0.0;
#endif
}

// Numbers the chosen in order of index.
DEVICE int place_of(RouterShared& s, int i, bool chosen) {
  u32 mask = __ballot_sync(ALL, chosen);
  if (lane() == 0) s.picked[warp()] = mask;
  __syncthreads();
  int place = __popc(mask & ((1u << lane()) - 1));
  for (int w = 0; w < warp(); w++) place += __popc(s.picked[w]);
  return place;
}

DEVICE void choose_best(const RouterArgs& a, RouterShared& s, int i, double logit) {
  double score = logit;
  if (K_SCORE == SOFTMAX) {
    double most = block_max(i < E ? logit : -infinite(), s), e = i < E ? exp(logit - most) : 0.0;
    score = e / block_sum(e, s);
  }
  if (K_SCORE == SIGMOID_SCORE) score = 1.0 / (1.0 + exp(-logit));
  if (i < E) {
    s.score[i] = score;
    s.choice[i] = a.correction ? score + constant(a.correction + i) : score;
  }
  __syncthreads();
  limit_groups(s, i);
  __syncthreads();
  bool chosen = i < E && rank(E, i, [&](int j) { return s.choice[j]; }) < K_TOP;
  int place = place_of(s, i, chosen);
  if (chosen) s.index[place] = i, s.weight[place] = score;
  __syncthreads();
  if (K_SCORE == TOP_K_SOFTMAX && i == 0) {
    double most = s.weight[0], sum = 0.0;
    for (int k = 1; k < K_TOP; k++) most = s.weight[k] > most ? s.weight[k] : most;
    for (int k = 0; k < K_TOP; k++) sum += s.weight[k] = exp(s.weight[k] - most);
    for (int k = 0; k < K_TOP; k++) s.weight[k] /= sum;
  }
}

// Pick after pick, each weighed against those left that are close to it.
DEVICE void choose_sparse(const RouterArgs& a, RouterShared& s, int i, double logit) {
  bool taken = false;
  double weight = 0.0;
  for (int k = 0; k < K_TOP; k++) {
    if (i < E) s.choice[i] = taken ? -infinite() : logit;
    __syncthreads();
    bool best = i < E && rank(E, i, [&](int j) { return s.choice[j]; }) == 0;
    if (best) s.group[0] = s.choice[i];
    __syncthreads();
    double top = s.group[0], size = fabs(logit);
    bool far = (top - logit) / (size > top ? size : top) > 2.0 * a.jitter;
    double e = i >= E || far || taken ? 0.0 : exp(logit - top), sum = block_sum(e, s);
    if (best && !taken) taken = true, weight = e / sum;
    __syncthreads();
  }
  int place = place_of(s, i, taken);
  if (taken) s.index[place] = i, s.weight[place] = weight;
}

KERNEL(router, RouterArgs, THREADS) {
  SHARED(RouterShared, s);
  begin();
  int row = blockIdx.x, i = threadIdx.x;
  if (row >= *a.count) return;
  double logit = i < E ? a.logits.row(row)[i] : 0.0;
  if (K_SCORE == SPARSE_MIXER) choose_sparse(a, s, i, logit);
  else choose_best(a, s, i, logit);
  __syncthreads();
  double sum = 0.0;
  for (int k = 0; k < K_TOP; k++) sum += s.weight[k];
  if (i >= K_TOP) return;
  double factor = (K_NORMALISE ? 1.0 / (sum + a.eps) : 1.0) * a.scale;
  float* out = a.out.row(row);
  float weight = (float)(s.weight[i] * factor * (a.per_expert ? constant(a.per_expert + s.index[i]) : 1.0f));
  out[i] = (float)s.index[i];
  if (a.input_gate.x && i == 0) *a.input_gate.row(row) = weight, weight = 1.0f;
  out[K_TOP + i] = weight;
}
