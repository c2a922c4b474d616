// A draw for some rows of logits, row after row in gridDim.y: the blocks of a row know nothing of other rows. Four launches at
// most; of each, the last block of a row to finish goes on with what all of them left. `sample_scan` penalises, checks,
// finds the largest logit and is all of greedy. The others know the largest logit, and so every weight: `sample_weigh` counts
// tokens or adds weights up by distance, which tells in what narrow band of distances a filter ends; `sample_refine` gathers
// the few tokens that matter and finds the end itself; `sample_draw` draws from the whole vocabulary. With top-k the gathered
// tokens are all that is left, and `sample_refine` draws. Lists are in no particular order: integers add up all the same.

struct SampleShared {
  u64 sums[2][THREADS / 32];
  u32 base, last;
  union {
    u8 recent[CHUNK];
    struct { u64 sums[BANDS]; u32 counts[BANDS]; } bands;
  };
};

// As `sample/mod.rs` says, step by step.
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
DEVICE u64 weight(double distance) {
  if (!(distance < 32.0)) return 0;
  int n = (int)exact_add(exact_mul(distance, 1.4426950408889634), 0.5);
  double r = exact_add(exact_add(exact_mul((double)n, 6.93147180369123816490e-1), -distance), exact_mul((double)n, 1.90821492927058770002e-10));
  const double taylor[12] = {1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0,
                             1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 1.0 / 2.0, 1.0, 1.0};
  double p = 1.0 / 479001600.0;
#pragma unroll
  for (int i = 0; i < 12; i++) p = exact_add(exact_mul(p, r), taylor[i]);
  double scale = __longlong_as_double((long long)(1023 + 44 - n) << 52);
  return (u64)(long long)exact_add(exact_mul(p, scale), 0.5);
}
DEVICE u64 mix(u64 z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}
DEVICE u64 needed_of(double top_p, u64 sum) { return (u64)ceil(exact_mul(top_p, (double)sum)); }
// The weight that counts before a temperature: 0 if min-p drops it.
DEVICE u64 plain_weight(const State* s, float largest, float logit) {
  u64 w = weight(distance(largest, logit));
  return w < s->least ? 0 : w;
}
DEVICE u64 drawn_weight(const State* s, float largest, float logit) {
  return plain_weight(s, largest, logit) ? weight(exact_mul(distance(largest, logit), s->inverse)) : 0;
}
DEVICE u32 band_of(double distance) { return distance < 32.0 ? (u32)(int)exact_mul(distance, BAND_OF_ONE) : BANDS - 1; }

// Sum over the block, for every thread. The results of two calls lie apart, so one barrier each is enough.
DEVICE u64 block_sum(SampleShared& s, u32& turn, u64 v) {
  v = warp_sum(v);
  turn ^= 1;
  if (lane() == 0) s.sums[turn][warp()] = v;
  __syncthreads();
  u64 sum = 0;
  for (u32 w = 0; w < THREADS / 32; w++) sum += s.sums[turn][w];
  return sum;
}
// Sum of the threads before this one; `sum` is that of all.
DEVICE u64 block_before(SampleShared& s, u32& turn, u64 v, u64& sum) {
  u64 upto = v;
#pragma unroll
  for (int o = 1; o < 32; o <<= 1) {
    u64 other = __shfl_sync(ALL, upto, lane() - o);
    if (lane() >= o) upto += other;
  }
  turn ^= 1;
  if (lane() == 31) s.sums[turn][warp()] = upto;
  __syncthreads();
  u64 before = upto - v;
  sum = 0;
  for (u32 w = 0; w < THREADS / 32; w++) {
    if ((int)w < warp()) before += s.sums[turn][w];
    sum += s.sums[turn][w];
  }
  return before;
}

// Whether this block is the last to come here; it then sees what the others wrote before.
DEVICE bool last_block(const Draw& a, SampleShared& s) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    s.last = ticket(a.counter) == gridDim.x - 1;
    if (s.last) *a.counter = 0;
    __threadfence();
  }
  __syncthreads();
  return s.last;
}

// The token is known: it goes to the host, into the window of the penalty and into the next step. One thread of a row.
DEVICE void deliver(const Draw& a, u32 token) {
  const SampleArgs& all = a.all;
  State* s = a.state;
  BatchRow* batch = &all.batch->row[a.row];
  u32 bad = read_fresh(&a.work->worst), number = read_fresh(&batch->number) + 1;
  uint4 words = make_uint4(number, token, bad, bad == NONE ? 0 : __float_as_uint(a.logits[bad]));
  write(all.ring + number % RING * all.ring_rows + a.row, words);
  batch->number = number;
  s->recent[s->count++ % RECENT] = token;
  s->draws++;
  if (a.row == 0) all.step->rows = all.step->wanted = a.rows;
  StepRow row = {token, read_fresh(&batch->slot), s->position++, a.row};
  all.step->row[a.row] = row;
}

// Marks which of the block's ids are penalised.
DEVICE bool mark_recent(const Draw& a, SampleShared& s, u32 first) {
  const State* state = a.state;
  u32 window = min(min(state->last_n, state->count), (u32)RECENT);
  if (state->penalty == 1.0f || !window) return false;
  for (u32 i = threadIdx.x; i < CHUNK; i += THREADS) s.recent[i] = 0;
  __syncthreads();
  for (u32 i = threadIdx.x; i < window; i += THREADS) {
    u32 id = state->recent[(state->count - 1 - i) % RECENT];
    if (id - first < CHUNK) s.recent[id - first] = 1; // whoever else writes here writes the same
  }
  __syncthreads();
  return true;
}

KERNEL(sample_scan, SampleArgs, THREADS) {
  SHARED(SampleShared, s);
  Draw d = draw_of(a);
  begin();
  if (!drawn_for(d)) return;
  u32 t = threadIdx.x, first = blockIdx.x * CHUNK;
  Work* work = d.work;
  bool penalised = mark_recent(d, s, first);
  u64 best = 0;
  u32 bad = NONE;
  for (u32 i = t; i < CHUNK && first + i < V; i += THREADS) {
    float logit = d.logits[first + i];
    if (!(fabsf(logit) < __uint_as_float(0x7f800000u))) bad = min(bad, first + i);
    else if (penalised && s.recent[i]) {
      logit = logit > 0.0f ? logit / d.state->penalty : logit * d.state->penalty;
      d.logits[first + i] = logit;
    }
    best = max(best, key_of(logit, first + i));
  }
  // What the launches after this one add to.
  for (u32 i = blockIdx.x * THREADS + t; i < BANDS; i += gridDim.x * THREADS) work->sums[i] = 0, work->counts[i] = 0;
  best = warp_max(best);
  bad = ~warp_max(~bad);
  if (lane() == 0) s.sums[0][warp()] = best, s.sums[1][warp()] = bad;
  __syncthreads();
  if (t == 0) {
    for (u32 w = 1; w < THREADS / 32; w++) best = max(best, s.sums[0][w]), bad = min(bad, (u32)s.sums[1][w]);
    work->best[blockIdx.x] = best, work->bad[blockIdx.x] = bad;
  }
  if (!last_block(d, s)) return;
  best = t < gridDim.x ? read_fresh(&work->best[t]) : 0;
  bad = t < gridDim.x ? read_fresh(&work->bad[t]) : NONE;
  best = warp_max(best);
  bad = ~warp_max(~bad);
  if (lane() == 0) s.sums[0][warp()] = best, s.sums[1][warp()] = bad;
  __syncthreads();
  if (t) return;
  for (u32 w = 1; w < THREADS / 32; w++) best = max(best, s.sums[0][w]), bad = min(bad, (u32)s.sums[1][w]);
  work->top = best, work->worst = bad;
  work->threshold = 0, work->length = 0;
  if (d.state->inverse == 0.0) deliver(d, id_of(best));
}

KERNEL(sample_weigh, SampleArgs, THREADS) {
  SHARED(SampleShared, s);
  Draw d = draw_of(a);
  begin();
  if (!drawn_for(d) || !is_filtered(d.state)) return;
  u32 t = threadIdx.x, first = blockIdx.x * CHUNK, turn = 0;
  const State* state = d.state;
  Work* work = d.work;
  float largest = logit_of(work->top);
  bool counts = state->top_k > 0;
  for (u32 i = t; i < BANDS; i += THREADS) s.bands.sums[i] = 0, s.bands.counts[i] = 0;
  __syncthreads();
  for (u32 i = t; i < CHUNK && first + i < V; i += THREADS) {
    float logit = d.logits[first + i];
    u32 band = band_of(distance(largest, logit));
    if (counts) add_to(&s.bands.counts[band], 1u);
    else if (u64 w = plain_weight(state, largest, logit)) add_to(&s.bands.sums[band], w);
  }
  __syncthreads();
  for (u32 i = t; i < BANDS; i += THREADS) {
    if (s.bands.counts[i]) add_to(&work->counts[i], s.bands.counts[i]);
    if (s.bands.sums[i]) add_to(&work->sums[i], s.bands.sums[i]);
  }
  if (!last_block(d, s)) return;
  u64 mine = 0, sum, each[BANDS / THREADS];
  for (u32 i = 0; i < BANDS / THREADS; i++) {
    u32 band = t * (BANDS / THREADS) + i;
    mine += each[i] = counts ? (u64)read_fresh(&work->counts[band]) : read_fresh(&work->sums[band]);
  }
  u64 before = block_before(s, turn, mine, sum), needed = counts ? (u64)state->top_k : needed_of(state->top_p, sum);
  // The band in which the filter ends. All that top-k keeps beyond it has no weight, and nobody looks into the last one.
  for (u32 i = 0; i < BANDS / THREADS; i++) {
    if (before < needed && before + each[i] >= needed) work->band = t * (BANDS / THREADS) + i, work->needed = needed - before;
    before += each[i];
  }
  if (t == 0 && (sum < needed || !needed)) work->band = BANDS - 1;
}

// The largest bound that keys, of which only the bits of `mask` count, reach with weights of `needed` in all. One weighs as
// much as `weigh` says.
template <class W> DEVICE u64 bound_of(const Draw& a, SampleShared& s, u32& turn, u32 n, u64 mask, u64 needed, W weigh) {
  const Work* work = a.work;
  // Bits in which keys differ; the others are as in any of them.
  u64 any = read_fresh(&work->keys[0]) & mask, differ = 0;
  for (u32 i = threadIdx.x; i < n; i += THREADS) differ |= (read_fresh(&work->keys[i]) & mask) ^ any;
#pragma unroll
  for (int o = 16; o; o >>= 1) differ |= __shfl_xor_sync(ALL, differ, o);
  turn ^= 1;
  if (lane() == 0) s.sums[turn][warp()] = differ;
  __syncthreads();
  for (u32 w = 0; w < THREADS / 32; w++) differ |= s.sums[turn][w];
  u64 bound = any & ~differ;
  for (u64 bit = 1ull << 63; bit; bit >>= 1) {
    if (!(differ & bit)) continue;
    u64 sum = 0;
    for (u32 i = threadIdx.x; i < n; i += THREADS)
      if ((read_fresh(&work->keys[i]) & mask) >= (bound | bit)) sum += weigh(i);
    if (block_sum(s, turn, sum) >= needed) bound |= bit;
  }
  return bound;
}

// Where a draw falls in a sum.
DEVICE u64 fall_of(const State* s, u64 sum) { return __umul64hi(mix(s->stream + (s->draws + 1) * GOLDEN), sum); }

// What is left of the gathered tokens when top-k is on, and one of them.
DEVICE u32 draw_gathered(const Draw& a, SampleShared& s, u32& turn, u32 n) {
  const State* state = a.state;
  Work* work = a.work;
  u64 top = work->top, threshold = 0;
  float largest = logit_of(top);
  auto weigh = [&](u32 i) { return read_fresh(&work->weights[i]); };
  if (n > state->top_k) threshold = bound_of(a, s, turn, n, ~0ull, state->top_k, [](u32) { return 1ull; });
  u64 sum = 0;
  for (u32 i = threadIdx.x; i < n; i += THREADS) {
    if (read_fresh(&work->keys[i]) < threshold) work->weights[i] = 0;
    sum += weigh(i);
  }
  sum = block_sum(s, turn, sum); // and a barrier behind the writes
  if (!sum) return id_of(top);
  if (state->top_p < 1.0) threshold = bound_of(a, s, turn, n, ~0ull, needed_of(state->top_p, sum), weigh);
  sum = 0;
  for (u32 i = threadIdx.x; i < n; i += THREADS) {
    u64 key = read_fresh(&work->keys[i]);
    work->weights[i] = key < threshold || !weigh(i) ? 0 : drawn_weight(state, largest, logit_of(key));
    sum += weigh(i);
  }
  sum = block_sum(s, turn, sum);
  return ~(u32)bound_of(a, s, turn, n, 0xffffffffull, fall_of(state, sum) + 1, weigh);
}

KERNEL(sample_refine, SampleArgs, THREADS) {
  SHARED(SampleShared, s);
  Draw d = draw_of(a);
  begin();
  if (!drawn_for(d) || !is_filtered(d.state)) return;
  u32 t = threadIdx.x, first = blockIdx.x * CHUNK, turn = 0;
  const State* state = d.state;
  Work* work = d.work;
  float largest = logit_of(work->top);
  bool counts = state->top_k > 0;
  u32 end = work->band, from = counts ? 0 : end;
  // Places in the list: counted in the block, then reserved at once.
  u32 mine = 0;
  for (u32 i = t; i < CHUNK && first + i < V; i += THREADS) {
    u32 band = band_of(distance(largest, d.logits[first + i]));
    mine += band >= from && band <= end && band < BANDS - 1;
  }
  u64 sum;
  u32 place = block_before(s, turn, mine, sum);
  if (t == 0) s.base = sum ? add_to(&work->length, (u32)sum) : 0;
  __syncthreads();
  place += s.base;
  for (u32 i = t; i < CHUNK && first + i < V; i += THREADS) {
    float logit = d.logits[first + i];
    u32 band = band_of(distance(largest, logit));
    if (band < from || band > end || band == BANDS - 1) continue;
    work->keys[place] = key_of(logit, first + i);
    work->weights[place++] = plain_weight(state, largest, logit);
  }
  if (!last_block(d, s)) return;
  u32 n = read_fresh(&work->length);
  if (counts) {
    u32 token = n ? draw_gathered(d, s, turn, n) : id_of(work->top);
    if (t == 0) deliver(d, token);
  } else if (n) {
    u64 bound = bound_of(d, s, turn, n, ~0ull, work->needed, [&](u32 i) { return read_fresh(&work->weights[i]); });
    if (t == 0) work->threshold = bound;
  }
}

// Whether the sum of weights, thread after thread, first exceeds `fall` in this one; `fall` is then what is left of it.
DEVICE bool falls_here(SampleShared& s, u32& turn, u64 mine, u64& fall) {
  u64 sum, before = block_before(s, turn, mine, sum);
  if (fall < before || fall - before >= mine) return false;
  fall -= before;
  return true;
}

KERNEL(sample_draw, SampleArgs, THREADS) {
  SHARED(SampleShared, s);
  Draw d = draw_of(a);
  begin();
  if (!drawn_for(d) || !is_drawn_from_all(d.state)) return;
  u32 t = threadIdx.x, turn = 0;
  const State* state = d.state;
  Work* work = d.work;
  u64 top = work->top, threshold = work->threshold;
  float largest = logit_of(top);
  auto weigh = [&](u32 id) {
    if (id >= V) return 0ull;
    float logit = d.logits[id];
    return key_of(logit, id) < threshold ? 0ull : drawn_weight(state, largest, logit);
  };
  u64 mine = 0;
  for (u32 i = t; i < CHUNK; i += THREADS) mine += weigh(blockIdx.x * CHUNK + i);
  mine = block_sum(s, turn, mine);
  if (t == 0) work->chunk[blockIdx.x] = mine;
  if (!last_block(d, s)) return;
  mine = t < gridDim.x ? read_fresh(&work->chunk[t]) : 0;
  u64 sum = block_sum(s, turn, mine), fall = fall_of(state, sum);
  if (!sum) {
    if (t == 0) deliver(d, id_of(top));
    return;
  }
  if (falls_here(s, turn, mine, fall)) work->band = t, work->needed = fall;
  __syncthreads();
  fall = work->needed;
  u32 first = work->band * CHUNK + t * (CHUNK / THREADS);
  mine = 0;
  for (u32 i = 0; i < CHUNK / THREADS; i++) mine += weigh(first + i);
  if (!falls_here(s, turn, mine, fall)) return;
  u32 id = first;
  for (u64 w = weigh(id); fall >= w; w = weigh(++id)) fall -= w;
  deliver(d, id);
}
