// Scores of `router`, and the choice of experts by one warp, for kernels that need it before anything else:
// the TOP largest of EXPERTS logits, in order of index, lowest first among equals, NaN last.

enum Score { SOFTMAX, TOP_K_SOFTMAX, SIGMOID_SCORE, SPARSE_MIXER };

struct Rule {
  Rows logits;
  const float* per_expert; // or null
  float eps, scale;
};
template <int TOP> struct Choice {
  int index[TOP];
  float weight[TOP];
};

// SCORE: of the first two. NORMALISE: whether the weights of the chosen add up to one before they are scaled.
template <int EXPERTS, int TOP, int SCORE, bool NORMALISE> struct Chooser {
  static constexpr int OF_LANE = (EXPERTS + 31) / 32; // experts of a lane: every 32nd

  // Larger where x is; NaN below all numbers, and 0 below that.
  static DEVICE u32 order_of(float x) {
    u32 bits = __float_as_uint(x + 0.0f);
    return x != x ? 1 : bits >> 31 ? ~bits : bits | 0x80000000u;
  }

  // The bits of the lane's experts that are chosen, and the largest logit.
  static DEVICE u32 choose_best(const float (&logit)[OF_LANE], float& most) {
    u32 order[OF_LANE], taken = 0;
#pragma unroll
    for (int s = 0; s < OF_LANE; s++) order[s] = s * 32 + lane() < EXPERTS ? order_of(logit[s]) : 0;
#pragma unroll 1
    for (int k = 0; k < TOP; k++) {
      u32 best = 0, hits = 0;
#pragma unroll
      for (int s = 0; s < OF_LANE; s++) best = max(best, order[s]);
      best = most_of_warp(best);
      if (k == 0) most = __uint_as_float(best >> 31 ? best & 0x7fffffffu : ~best);
#pragma unroll
      for (int s = 0; s < OF_LANE; s++) hits |= order[s] == best ? 1u << s : 0;
      hits &= -hits;
      u32 lanes = __ballot_sync(ALL, hits != 0);
      if (lanes & (lanes - 1)) { // equals: the lowest index
        u32 own = hits ? (__popc(hits - 1) * 32 + lane()) : ALL;
        if (least_of_warp(own) != own) hits = 0;
      }
      taken |= hits;
#pragma unroll
      for (int s = 0; s < OF_LANE; s++) order[s] = hits >> s & 1 ? 0 : order[s];
    }
    return taken;
  }

  // Called by one warp, perhaps before begin(). Reads logits past L1, which may hold those of another layer.
  template <bool WEIGHTS> static DEVICE void choose(const Rule& rule, int row, Choice<TOP>& choice) {
    const float* logits = rule.logits.row(row);
    float logit[OF_LANE], most;
#pragma unroll
    for (int s = 0; s < OF_LANE; s++)
      logit[s] = s * 32 + lane() < EXPERTS ? read_fresh(logits + s * 32 + lane()) : 0.0f;
    u32 taken = choose_best(logit, most);
    double e[OF_LANE], factor = 0.0;
    if (WEIGHTS) {
      double all = 0.0, chosen = 0.0;
#pragma unroll
      for (int s = 0; s < OF_LANE; s++) {
        e[s] = s * 32 + lane() < EXPERTS ? exp((double)logit[s] - most) : 0.0;
        if (SCORE == SOFTMAX || taken >> s & 1) all += e[s];
        if (taken >> s & 1) chosen += e[s];
      }
      all = warp_sum(all), chosen = warp_sum(chosen);
      factor = (NORMALISE ? 1.0 / (chosen / all + rule.eps) : 1.0) * rule.scale / all;
    }
    int place = 0;
#pragma unroll
    for (int s = 0; s < OF_LANE; s++) {
      bool mine = taken >> s & 1;
      u32 mask = __ballot_sync(ALL, mine);
      int at = place + __popc(mask & ((1u << lane()) - 1)), expert = s * 32 + lane();
      if (mine) choice.index[at] = expert;
      if (mine && WEIGHTS)
        choice.weight[at] =
            (float)(e[s] * factor * (rule.per_expert ? constant(rule.per_expert + expert) : 1.0f));
      place += __popc(mask);
    }
  }
};
