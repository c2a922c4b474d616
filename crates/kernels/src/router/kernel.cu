// Macros: K_EXPERTS, K_TOP, K_SCORE, K_GROUPS, K_KEEP, K_BEST_TWO, K_NORMALISE.

struct Shape {
  static constexpr int EXPERTS = K_EXPERTS, TOP = K_TOP, SCORE = K_SCORE, GROUPS = K_GROUPS, KEEP = K_KEEP;
  static constexpr bool BEST_TWO = K_BEST_TWO, NORMALISE = K_NORMALISE;
};
typedef Router<Shape> R;

KERNEL(router, RouterArgs, R::THREADS) {
  SHARED(R::Shared, s);
  R::run(a, THIS_BLOCK, s, threadIdx.x);
}
