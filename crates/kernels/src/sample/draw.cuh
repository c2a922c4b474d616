// What draws work on, which row of a batch a block draws for, and where the token goes.

// Which sequence each row draws for, and the number of its last entry in the ring.
struct BatchRow {
  u32 slot, number;
};
struct Batch {
  u32 rows, unused;
  BatchRow row[1];
};
// An entry of the ring.
struct SampleResult {
  u32 number, token, bad, bits;
};

// Shape:
//   VOCAB    tokens
//   RECENT   last tokens of a sequence that are kept for the repeat penalty
//   RING     entries of the ring
template <class Shape> struct Drawing {
  static constexpr u32 THREADS = 256, V = Shape::VOCAB, RECENT = Shape::RECENT, NONE = ~0u;
  // Ids of a block: a multiple of THREADS, and enough that a row has at most THREADS blocks.
  static constexpr u32 SHARE = (V + THREADS * THREADS - 1) / (THREADS * THREADS) * THREADS;
  static constexpr u32 CHUNK = SHARE < 1024 ? 1024 : SHARE;

  struct State : SampleState {
    u32 recent[RECENT];
  };
  struct Work {
    u64 best[THREADS]; // by block
    u64 sums[BANDS];   // of weights, by distance
    u64 chunk[THREADS];
    u64 top, threshold, needed;
    u32 bad[THREADS];
    u32 counts[BANDS];
    u32 band, length, worst, unused;
    u64 keys[V], weights[V]; // what was gathered
  };

  struct Args {
    float* logits;
    State* states;
    Batch* batch;
    Work* work;
    Step* step;
    SampleResult* ring;
    u32* counters;
    u32 stride, ring_rows;
  };

  // What a row's blocks work on.
  struct Draw {
    float* logits;
    State* state;
    Work* work;
    u32* counter;
    const Args& all;
    u32 row, rows;
    DEVICE bool wanted() const { return row < rows; }
  };
  // That of this block. Read before begin(): only the host writes rows and slots, and its copies are older
  // than the launch before.
  template <class Block> static DEVICE Draw draw_of(const Args& a, Block block) {
    u32 row = block.y();
    uint2 head, mine;
    read_early(a.batch, head);
    read_early(&a.batch->row[row], mine);
    return {
        a.logits + (u64)row * a.stride, a.states + mine.x, a.work + row, a.counters + row, a, row, head.x};
  }

  struct Shared {
    u64 sums[2][THREADS / 32];
    u32 base, last;
    union {
      u8 recent[CHUNK];
      struct {
        u64 sums[BANDS];
        u32 counts[BANDS];
      } bands;
    };
  };

  // Sum over the block, for every thread. The results of two calls lie apart, so one barrier each is enough.
  static DEVICE u64 block_sum(Shared& s, u32& turn, u64 v) {
    v = warp_sum(v);
    turn ^= 1;
    if (lane() == 0) s.sums[turn][warp()] = v;
    __syncthreads();
    u64 sum = 0;
    for (u32 w = 0; w < THREADS / 32; w++) sum += s.sums[turn][w];
    return sum;
  }
  // Sum of the threads before this one; `sum` is that of all.
  static DEVICE u64 block_before(Shared& s, u32& turn, u64 v, u64& sum) {
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

  // Whether this block is the last of its row to come here; it then sees what the others wrote before.
  template <class Block> static DEVICE bool last_block(const Draw& d, Block block, Shared& s) {
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      s.last = ticket(d.counter) == block.grid_x() - 1;
      if (s.last) *d.counter = 0;
      __threadfence();
    }
    __syncthreads();
    return s.last;
  }

  // The token is known: it goes to the host, into the window of the penalty and into the next step. One
  // thread of a row.
  static DEVICE void deliver(const Draw& d, u32 token) {
    const Args& all = d.all;
    State* s = d.state;
    BatchRow* batch = &all.batch->row[d.row];
    u32 bad = read_fresh(&d.work->worst), number = read_fresh(&batch->number) + 1;
    uint4 words = make_uint4(number, token, bad, bad == NONE ? 0 : __float_as_uint(d.logits[bad]));
    write(all.ring + number % Shape::RING * all.ring_rows + d.row, words);
    batch->number = number;
    s->recent[s->count++ % RECENT] = token;
    s->draws++;
    if (d.row == 0) all.step->rows = all.step->wanted = d.rows;
    StepRow row = {token, read_fresh(&batch->slot), s->position++, d.row};
    all.step->row[d.row] = row;
  }
};
