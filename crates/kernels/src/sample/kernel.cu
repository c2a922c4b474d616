// Macros: K_VOCAB, K_RECENT, K_RING, and the host's K_STATE_BYTES and K_WORK_BYTES.

struct Shape {
  static constexpr u32 VOCAB = K_VOCAB, RECENT = K_RECENT, RING = K_RING;
};
typedef Sample<Shape> S;
static_assert(sizeof(S::State) == K_STATE_BYTES && sizeof(S::Work) == K_WORK_BYTES, "the host's layout");

KERNEL(sample_scan, S::Args, S::THREADS) {
  SHARED(S::Shared, s);
  S::scan(a, THIS_BLOCK, s);
}
KERNEL(sample_weigh, S::Args, S::THREADS) {
  SHARED(S::Shared, s);
  S::weigh(a, THIS_BLOCK, s);
}
KERNEL(sample_refine, S::Args, S::THREADS) {
  SHARED(S::Shared, s);
  S::refine(a, THIS_BLOCK, s);
}
KERNEL(sample_draw, S::Args, S::THREADS) {
  SHARED(S::Shared, s);
  S::draw(a, THIS_BLOCK, s);
}
