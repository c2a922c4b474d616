// Macros: K_TOP, K_HIDDEN, K_FF, K_EXPERTS, K_UP, K_DOWN (formats), K_GATE, K_ACTIVATION, and of each product
// K_UP_PARTS, K_UP_WM, K_UP_WK, K_UP_NT, K_UP_STAGES and K_DOWN_PARTS, …

struct Shape {
  static constexpr int HIDDEN = K_HIDDEN, FF = K_FF, EXPERTS = K_EXPERTS, TOP = K_TOP;
  static constexpr int GATE = K_GATE, ACTIVATION = K_ACTIVATION;
  struct Up {
    typedef K_UP Weights;
    static constexpr int COLS = K_HIDDEN, X_PARTS = K_UP_PARTS;
    static constexpr int WARPS_OUT = K_UP_WM, WARPS_K = K_UP_WK, EIGHTS = K_UP_NT, STAGES = K_UP_STAGES;
  };
  struct Down {
    typedef K_DOWN Weights;
    static constexpr int COLS = K_FF, X_PARTS = K_DOWN_PARTS;
    static constexpr int WARPS_OUT = K_DOWN_WM, WARPS_K = K_DOWN_WK, EIGHTS = K_DOWN_NT,
                         STAGES = K_DOWN_STAGES;
  };
};
typedef GroupedExperts<Shape> E;

KERNEL(experts_prepare, GroupedArgs, E::THREADS) {
  SHARED(E::Shared, s);
  E::prepare(a, THIS_BLOCK, s);
}
KERNEL(grouped_up, GroupedArgs, E::Up::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  E::up(a, THIS_BLOCK, memory);
}
KERNEL(inner_split, GroupedArgs, E::THREADS) { E::split_inner(a, THIS_BLOCK); }
KERNEL(grouped_down, GroupedArgs, E::Down::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  E::down(a, THIS_BLOCK, memory);
}
KERNEL(experts_combine, GroupedArgs, E::THREADS) { E::combine(a, THIS_BLOCK); }
