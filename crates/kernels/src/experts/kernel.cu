// Macros: K_UP, K_DOWN (formats), K_HIDDEN, K_FF, K_TOP, K_GATE, K_ACTIVATION, K_EXPERTS, K_SCORE,
// K_NORMALISE, K_TWO_PER_SM (whether two blocks fit a multiprocessor), and of each product K_UP_LANE,
// K_UP_WARPS, K_UP_STEP, K_UP_SLOTS, K_UP_ONCE and K_DOWN_LANE, …

struct Shape {
  static constexpr int HIDDEN = K_HIDDEN, FF = K_FF, TOP = K_TOP, GATE = K_GATE, ACTIVATION = K_ACTIVATION;
  static constexpr int EXPERTS = K_EXPERTS, SCORE = K_SCORE;
  static constexpr bool NORMALISE = K_NORMALISE;
  struct Up : MatvecDefaults {
    typedef K_UP Weights;
    static constexpr int COLS = K_HIDDEN, ROWS = 1, LANE_COLS = K_UP_LANE;
    static constexpr int WARPS = K_UP_WARPS, IN_FLIGHT = K_UP_STEP, SLOTS = K_UP_SLOTS;
    static constexpr bool ONE_ROUND = K_UP_ONCE, FULL = K_FF % 16 == 0;
    static constexpr int JOIN = K_GATE == GATE_JOINED ? 2 : 1;
  };
  struct Down : MatvecDefaults {
    typedef K_DOWN Weights;
    static constexpr int COLS = K_FF, ROWS = 1, LANE_COLS = K_DOWN_LANE;
    static constexpr int WARPS = K_DOWN_WARPS, IN_FLIGHT = K_DOWN_STEP, SLOTS = K_DOWN_SLOTS;
    static constexpr bool ONE_ROUND = K_DOWN_ONCE, FULL = K_HIDDEN % 16 == 0, WEIGHTED = true;
    static constexpr int REPEATS = K_TOP;
  };
};
typedef Experts<Shape> E;

KERNEL_PER_SM(experts_up, ExpertsArgs, E::Up::THREADS, min_blocks_per_sm(K_TWO_PER_SM)) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(E::Shared, choice);
  E::run_up(a, THIS_BLOCK, memory, choice);
}
KERNEL_PER_SM(experts_down, ExpertsArgs, E::Down::THREADS, min_blocks_per_sm(K_TWO_PER_SM)) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(E::Shared, choice);
  E::run_down(a, THIS_BLOCK, memory, choice);
}
