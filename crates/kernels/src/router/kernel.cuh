// From logits to chosen experts and their weights, in f64 as everywhere. A block per row, a thread per
// expert: an expert is chosen if fewer than TOP are better.

struct RouterArgs {
  const int* count;
  Rows logits, out, input_gate;         // input_gate: or null
  const float *correction, *per_expert; // or null
  float eps, scale, jitter;
  u32 unused;
};

// Shape:
//   EXPERTS, TOP   all and those of a row
//   SCORE          what becomes of the logits before the choice
//   GROUPS         equal groups of experts, of which KEEP may be chosen from; 0: none
//   BEST_TWO       whether a group counts as much as its two best experts together, or as its best one
//   NORMALISE      whether the weights of the chosen add up to one before they are scaled
template <class Shape> struct Router {
  static constexpr int EXPERTS = Shape::EXPERTS, TOP = Shape::TOP, SCORE = Shape::SCORE;
  static constexpr int GROUPS = Shape::GROUPS, KEEP = Shape::KEEP;
  static constexpr int THREADS = (EXPERTS + 31) / 32 * 32;

  struct Shared {
    double score[EXPERTS], choice[EXPERTS], warp[32], group[64];
    u8 kept[64];
    int index[TOP];
    double weight[TOP];
    u32 picked[32];
  };

  // Whether number i of value a goes before number j of value b: larger first, then lower; NaN last.
  static DEVICE bool before(double a, int i, double b, int j) {
    return a > b || (a == b && i < j) || (a == a ? b != b : b != b && i < j);
  }
  // How many of n go before number i.
  template <class Of> static DEVICE int rank(int n, int i, Of of) {
    int better = 0;
    double own = of(i);
    for (int j = 0; j < n; j++) better += before(of(j), j, own, i);
    return better;
  }
  static DEVICE double block_sum(double v, Shared& s) {
    v = warp_sum(v);
    __syncthreads();
    if (lane() == 0) s.warp[warp()] = v;
    __syncthreads();
    double sum = 0.0;
    for (int w = 0; w < THREADS / 32; w++) sum += s.warp[w];
    return sum;
  }
  static DEVICE double block_max(double v, Shared& s) { // NaN loses
    v = warp_max(v == v ? v : -infinite());
    __syncthreads();
    if (lane() == 0) s.warp[warp()] = v;
    __syncthreads();
    double most = s.warp[0];
    for (int w = 1; w < THREADS / 32; w++) most = s.warp[w] > most ? s.warp[w] : most;
    return most;
  }

  // Experts of groups that are not kept count as zero.
  static DEVICE void limit_groups(Shared& s, int i) {
    if constexpr (GROUPS > 0) {
      constexpr int SIZE = EXPERTS / GROUPS;
      if (i < GROUPS) {
        auto of = [&](int j) { return s.choice[i * SIZE + j]; };
        double best = of(0), second = -infinite();
        for (int j = 1; j < SIZE; j++) {
          double v = of(j);
          if (before(v, j, best, 0)) second = best, best = v;
          else if (before(v, j, second, 0)) second = v;
        }
        s.group[i] = Shape::BEST_TWO && SIZE > 1 ? best + second : best;
      }
      __syncthreads();
      if (i < GROUPS) s.kept[i] = rank(GROUPS, i, [&](int j) { return s.group[j]; }) < KEEP;
      __syncthreads();
      if (i < EXPERTS && !s.kept[i / SIZE]) s.choice[i] = 0.0;
    }
  }

  // Numbers the chosen in order of index.
  static DEVICE int place_of(Shared& s, int i, bool chosen) {
    u32 mask = __ballot_sync(ALL, chosen);
    if (lane() == 0) s.picked[warp()] = mask;
    __syncthreads();
    int place = __popc(mask & ((1u << lane()) - 1));
    for (int w = 0; w < warp(); w++) place += __popc(s.picked[w]);
    return place;
  }

  static DEVICE void choose_best(const RouterArgs& a, Shared& s, int i, double logit) {
    double score = logit;
    if (SCORE == SOFTMAX) {
      double most = block_max(i < EXPERTS ? logit : -infinite(), s);
      double e = i < EXPERTS ? exp(logit - most) : 0.0;
      score = e / block_sum(e, s);
    }
    if (SCORE == SIGMOID_SCORE) score = 1.0 / (1.0 + exp(-logit));
    if (i < EXPERTS) {
      s.score[i] = score;
      s.choice[i] = a.correction ? score + constant(a.correction + i) : score;
    }
    __syncthreads();
    limit_groups(s, i);
    __syncthreads();
    bool chosen = i < EXPERTS && rank(EXPERTS, i, [&](int j) { return s.choice[j]; }) < TOP;
    int place = place_of(s, i, chosen);
    if (chosen) s.index[place] = i, s.weight[place] = score;
    __syncthreads();
    if (SCORE == TOP_K_SOFTMAX && i == 0) {
      double most = s.weight[0], sum = 0.0;
      for (int k = 1; k < TOP; k++) most = s.weight[k] > most ? s.weight[k] : most;
      for (int k = 0; k < TOP; k++) sum += s.weight[k] = exp(s.weight[k] - most);
      for (int k = 0; k < TOP; k++) s.weight[k] /= sum;
    }
  }

  // Pick after pick, each weighed against those left that are close to it.
  static DEVICE void choose_sparse(const RouterArgs& a, Shared& s, int i, double logit) {
    bool taken = false;
    double weight = 0.0;
    for (int k = 0; k < TOP; k++) {
      if (i < EXPERTS) s.choice[i] = taken ? -infinite() : logit;
      __syncthreads();
      bool best = i < EXPERTS && rank(EXPERTS, i, [&](int j) { return s.choice[j]; }) == 0;
      if (best) s.group[0] = s.choice[i];
      __syncthreads();
      double top = s.group[0], size = fabs(logit);
      bool far = (top - logit) / (size > top ? size : top) > 2.0 * a.jitter;
      double e = i >= EXPERTS || far || taken ? 0.0 : exp(logit - top), sum = block_sum(e, s);
      if (best && !taken) taken = true, weight = e / sum;
      __syncthreads();
    }
    int place = place_of(s, i, taken);
    if (taken) s.index[place] = i, s.weight[place] = weight;
  }

  // Grid: rows. `i`: the thread, read in the kernel itself, where the compiler knows how many there are.
  template <class Block> static DEVICE void run(const RouterArgs& a, Block block, Shared& s, int i) {
    block.wait_for_inputs();
    int row = block.x();
    if (row >= *a.count) return;
    double logit = i < EXPERTS ? a.logits.row(row)[i] : 0.0;
    if (SCORE == SPARSE_MIXER) choose_sparse(a, s, i, logit);
    else choose_best(a, s, i, logit);
    __syncthreads();
    double sum = 0.0;
    for (int k = 0; k < TOP; k++) sum += s.weight[k];
    if (i >= TOP) return;
    double factor = (Shape::NORMALISE ? 1.0 / (sum + a.eps) : 1.0) * a.scale;
    float* out = a.out.row(row);
    float weight =
        (float)(s.weight[i] * factor * (a.per_expert ? constant(a.per_expert + s.index[i]) : 1.0f));
    out[i] = (float)s.index[i];
    if (a.input_gate.x && i == 0) *a.input_gate.row(row) = weight, weight = 1.0f;
    out[TOP + i] = weight;
  }
};
