// What draws work on, and which row of a batch a block draws for. Macros: K_VOCAB, K_RECENT, K_RING, K_STATE_BYTES, K_WORK_BYTES.

enum : u32 { THREADS = 256, V = K_VOCAB, NONE = ~0u, RECENT = K_RECENT, BANDS = 1024, BAND_OF_ONE = 32, RING = K_RING };
// Ids of a block; a multiple of THREADS so that there is a block for each thread of the last one at most.
enum : u32 { CHUNK = (V + THREADS * THREADS - 1) / (THREADS * THREADS) * THREADS < 1024 ? 1024
                         : (V + THREADS * THREADS - 1) / (THREADS * THREADS) * THREADS };
enum : u64 { ONE = 1ull << 44, GOLDEN = 0x9e3779b97f4a7c15ull };

// What the host sets and every draw takes on; `sample/cuda.rs` has its twin.
struct State {
  double inverse, top_p;
  u64 least, stream, draws;
  u32 top_k, last_n;
  float penalty;
  u32 count; // tokens so far, of which the last RECENT are kept
  u32 position, unused[3]; // of the next token
  u32 recent[RECENT];
};

// Which sequence each row draws for, and the number of its last entry in the ring.
struct BatchRow { u32 slot, number; };
struct Batch { u32 rows, unused; BatchRow row[1]; };

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

static_assert(sizeof(State) == K_STATE_BYTES && sizeof(Work) == K_WORK_BYTES, "as the host lays them out");

struct Result { u32 number, token, bad, bits; };

struct SampleArgs {
  float* logits;
  State* states;
  Batch* batch;
  Work* work;
  Step* step;
  Result* ring;
  u32* counters;
  u32 stride, ring_rows;
};

// What a row's blocks work on.
struct Draw {
  float* logits;
  State* state;
  Work* work;
  u32* counter;
  const SampleArgs& all;
  u32 row, rows;
};

// That of this block. Read before begin(): only the host writes rows and slots, and its copies are older than the launch before.
DEVICE Draw draw_of(const SampleArgs& a) {
  u32 row = blockIdx.y;
  uint2 head, mine;
  read_early(a.batch, head);
  read_early(&a.batch->row[row], mine);
  return {a.logits + (u64)row * a.stride, a.states + mine.x, a.work + row, a.counters + row, a, row, head.x};
}
DEVICE bool drawn_for(const Draw& a) { return a.row < a.rows; }
// Which kernels are for a row.
DEVICE bool is_filtered(const State* s) { return s->inverse != 0.0 && (s->top_k > 0 || s->top_p < 1.0); }
DEVICE bool is_drawn_from_all(const State* s) { return s->inverse != 0.0 && s->top_k == 0; }
