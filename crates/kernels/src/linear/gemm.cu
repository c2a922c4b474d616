// Macros: K_FORMAT, K_COLS, K_PARTS, K_WM, K_WK, K_NT, K_STAGES.

struct Shape {
  typedef K_FORMAT Weights;
  static constexpr int COLS = K_COLS, X_PARTS = K_PARTS;
  static constexpr int WARPS_OUT = K_WM, WARPS_K = K_WK, EIGHTS = K_NT, STAGES = K_STAGES;
};
typedef LinearGemm<Shape> L;

KERNEL(split, SplitArgs, L::SPLIT_THREADS) { L::split(a, THIS_BLOCK); }
KERNEL(norm_split, SplitArgs, L::SPLIT_THREADS) {
  SHARED(L::Shared, s);
  L::norm_split(a, THIS_BLOCK, s);
}
KERNEL(gemm, GemmArgs, L::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  L::run(a, THIS_BLOCK, memory);
}
