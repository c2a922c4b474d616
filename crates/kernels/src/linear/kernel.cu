// Macros: K_HEADS (whether it is a product per head), K_NORM, K_TWO_PER_SM (whether two blocks fit a
// multiprocessor), and of the shape K_FORMAT, K_COLS, K_ROWS, K_LANE, K_WARPS, K_STEP, K_SLOTS, K_ONCE,
// K_FULL.

struct Shape : MatvecDefaults {
  typedef K_FORMAT Weights;
  static constexpr int COLS = K_COLS, ROWS = K_ROWS, LANE_COLS = K_LANE;
  static constexpr int WARPS = K_WARPS, IN_FLIGHT = K_STEP, SLOTS = K_SLOTS;
  static constexpr bool ONE_ROUND = K_ONCE, FULL = K_FULL, NORM = K_NORM;
};

#if K_HEADS
KERNEL_PER_SM(head_linear, HeadLinearArgs, HeadLinear<Shape>::THREADS, min_blocks_per_sm(K_TWO_PER_SM)) {
  DYNAMIC_SHARED(u8, memory);
  HeadLinear<Shape>::run(a, THIS_BLOCK, memory);
}
#else
KERNEL_PER_SM(linear, LinearArgs, Linear<Shape>::THREADS, min_blocks_per_sm(K_TWO_PER_SM)) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(Linear<Shape>::Shared, norm);
  Linear<Shape>::run(a, THIS_BLOCK, memory, norm);
}
#endif
