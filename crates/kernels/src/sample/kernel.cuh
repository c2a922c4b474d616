// A draw for some rows of logits, row after row in grid_y(): the blocks of a row know nothing of other rows.
// Four launches at most; in each, the last block of a row to finish goes on with what all of them left.
// `scan` penalises, checks, finds the largest logit and is all of greedy. The others know the largest logit,
// and so every weight: `weigh` counts tokens or adds weights up by distance, which tells in what narrow band
// of distances a filter ends; `refine` gathers the few tokens that matter and finds the end itself; `draw`
// draws from the whole vocabulary. With top-k the gathered tokens are all that is left, and `refine` draws.
// Lists are in no particular order: integers add up all the same.

template <class Shape> struct Sample {
  typedef Drawing<Shape> D;
  typedef typename D::Args Args;
  typedef typename D::State State;
  typedef typename D::Work Work;
  typedef typename D::Draw Draw;
  typedef typename D::Shared Shared;
  static constexpr u32 THREADS = D::THREADS, V = D::V, RECENT = D::RECENT, CHUNK = D::CHUNK, NONE = D::NONE;

  // Marks which of the block's ids are penalised.
  static DEVICE bool mark_recent(const Draw& d, Shared& s, u32 first) {
    const State* state = d.state;
    u32 window = min(min(state->last_n, state->count), RECENT);
    if (state->penalty == 1.0f || !window) return false;
    for (u32 i = threadIdx.x; i < CHUNK; i += THREADS) s.recent[i] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < window; i += THREADS) {
      u32 id = state->recent[(state->count - 1 - i) % RECENT];
      if (id - first < CHUNK) s.recent[id - first] = 1; // threads that meet here write the same
    }
    __syncthreads();
    return true;
  }

  template <class Block> static DEVICE void scan(const Args& a, Block block, Shared& s) {
    Draw d = D::draw_of(a, block);
    block.wait_for_inputs();
    if (!d.wanted()) return;
    u32 t = threadIdx.x, first = block.x() * CHUNK;
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
    for (u32 i = block.x() * THREADS + t; i < BANDS; i += block.grid_x() * THREADS)
      work->sums[i] = 0, work->counts[i] = 0;
    best = warp_max(best);
    bad = ~warp_max(~bad);
    if (lane() == 0) s.sums[0][warp()] = best, s.sums[1][warp()] = bad;
    __syncthreads();
    if (t == 0) {
      for (u32 w = 1; w < THREADS / 32; w++)
        best = max(best, s.sums[0][w]), bad = min(bad, (u32)s.sums[1][w]);
      work->best[block.x()] = best, work->bad[block.x()] = bad;
    }
    if (!D::last_block(d, block, s)) return;
    best = t < block.grid_x() ? read_fresh(&work->best[t]) : 0;
    bad = t < block.grid_x() ? read_fresh(&work->bad[t]) : NONE;
    best = warp_max(best);
    bad = ~warp_max(~bad);
    if (lane() == 0) s.sums[0][warp()] = best, s.sums[1][warp()] = bad;
    __syncthreads();
    if (t) return;
    for (u32 w = 1; w < THREADS / 32; w++) best = max(best, s.sums[0][w]), bad = min(bad, (u32)s.sums[1][w]);
    work->top = best, work->worst = bad;
    work->threshold = 0, work->length = 0;
    if (d.state->inverse == 0.0) D::deliver(d, id_of(best));
  }

  template <class Block> static DEVICE void weigh(const Args& a, Block block, Shared& s) {
    Draw d = D::draw_of(a, block);
    block.wait_for_inputs();
    if (!d.wanted() || !is_filtered(d.state)) return;
    u32 t = threadIdx.x, first = block.x() * CHUNK, turn = 0;
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
    if (!D::last_block(d, block, s)) return;
    u64 mine = 0, sum, each[BANDS / THREADS];
    for (u32 i = 0; i < BANDS / THREADS; i++) {
      u32 band = t * (BANDS / THREADS) + i;
      mine += each[i] = counts ? (u64)read_fresh(&work->counts[band]) : read_fresh(&work->sums[band]);
    }
    u64 before = D::block_before(s, turn, mine, sum);
    u64 needed = counts ? (u64)state->top_k : needed_of(state->top_p, sum);
    // The band in which the filter ends. All that top-k keeps beyond it has no weight, and the last one is
    // never looked into.
    for (u32 i = 0; i < BANDS / THREADS; i++) {
      if (before < needed && before + each[i] >= needed) {
        work->band = t * (BANDS / THREADS) + i;
        work->needed = needed - before;
      }
      before += each[i];
    }
    if (t == 0 && (sum < needed || !needed)) work->band = BANDS - 1;
  }

  // The largest bound that keys, of which only the bits of `mask` count, reach with weights of `needed` in
  // all. One weighs as much as `weigh` says.
  template <class W>
  static DEVICE u64 bound_of(const Work* work, Shared& s, u32& turn, u32 n, u64 mask, u64 needed, W weigh) {
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
      if (D::block_sum(s, turn, sum) >= needed) bound |= bit;
    }
    return bound;
  }

  // What is left of the gathered tokens when top-k is on, and one of them.
  static DEVICE u32 draw_gathered(const Draw& d, Shared& s, u32& turn, u32 n) {
    const State* state = d.state;
    Work* work = d.work;
    u64 top = work->top, threshold = 0;
    float largest = logit_of(top);
    auto weigh = [&](u32 i) { return read_fresh(&work->weights[i]); };
    if (n > state->top_k)
      threshold = bound_of(work, s, turn, n, ~0ull, state->top_k, [](u32) { return 1ull; });
    u64 sum = 0;
    for (u32 i = threadIdx.x; i < n; i += THREADS) {
      if (read_fresh(&work->keys[i]) < threshold) work->weights[i] = 0;
      sum += weigh(i);
    }
    sum = D::block_sum(s, turn, sum); // its barrier also ends the writes
    if (!sum) return id_of(top);
    if (state->top_p < 1.0)
      threshold = bound_of(work, s, turn, n, ~0ull, needed_of(state->top_p, sum), weigh);
    sum = 0;
    for (u32 i = threadIdx.x; i < n; i += THREADS) {
      u64 key = read_fresh(&work->keys[i]);
      work->weights[i] = key < threshold || !weigh(i) ? 0 : drawn_weight(state, largest, logit_of(key));
      sum += weigh(i);
    }
    sum = D::block_sum(s, turn, sum);
    return ~(u32)bound_of(work, s, turn, n, 0xffffffffull, fall_of(state, sum) + 1, weigh);
  }

  template <class Block> static DEVICE void refine(const Args& a, Block block, Shared& s) {
    Draw d = D::draw_of(a, block);
    block.wait_for_inputs();
    if (!d.wanted() || !is_filtered(d.state)) return;
    u32 t = threadIdx.x, first = block.x() * CHUNK, turn = 0;
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
    u32 place = D::block_before(s, turn, mine, sum);
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
    if (!D::last_block(d, block, s)) return;
    u32 n = read_fresh(&work->length);
    if (counts) {
      u32 token = n ? draw_gathered(d, s, turn, n) : id_of(work->top);
      if (t == 0) D::deliver(d, token);
    } else if (n) {
      auto weigh = [&](u32 i) { return read_fresh(&work->weights[i]); };
      u64 bound = bound_of(work, s, turn, n, ~0ull, work->needed, weigh);
      if (t == 0) work->threshold = bound;
    }
  }

  // Whether the sum of weights, thread after thread, first exceeds `fall` in this one; `fall` is then what is
  // left of it.
  static DEVICE bool falls_here(Shared& s, u32& turn, u64 mine, u64& fall) {
    u64 sum, before = D::block_before(s, turn, mine, sum);
    if (fall < before || fall - before >= mine) return false;
    fall -= before;
    return true;
  }

  template <class Block> static DEVICE void draw(const Args& a, Block block, Shared& s) {
    Draw d = D::draw_of(a, block);
    block.wait_for_inputs();
    if (!d.wanted() || !is_drawn_from_all(d.state)) return;
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
    for (u32 i = t; i < CHUNK; i += THREADS) mine += weigh(block.x() * CHUNK + i);
    mine = D::block_sum(s, turn, mine);
    if (t == 0) work->chunk[block.x()] = mine;
    if (!D::last_block(d, block, s)) return;
    mine = t < block.grid_x() ? read_fresh(&work->chunk[t]) : 0;
    u64 sum = D::block_sum(s, turn, mine), fall = fall_of(state, sum);
    if (!sum) {
      if (t == 0) D::deliver(d, id_of(top));
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
    D::deliver(d, id);
  }
};
