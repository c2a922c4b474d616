// One launch that runs the bodies of three ops, two of them products of different shapes and formats: a stand-in
// for a kernel that does a whole token. Macros: A_… and B_…, those of linear/kernel.cu for each product.

// The part of a task's grid that a thread block takes at the moment. The barrier between tasks has waited.
struct Task {
  u32 index, blocks;
  DEVICE u32 x() const { return index; }
  DEVICE u32 grid_x() const { return blocks; }
  static DEVICE u32 y() { return 0; }
  static DEVICE void wait_for_inputs() {}
};

struct ShapeA : MatvecDefaults {
  typedef A_FORMAT Weights;
  static constexpr int COLS = A_COLS, ROWS = A_ROWS, LANE_COLS = A_LANE;
  static constexpr int WARPS = A_WARPS, IN_FLIGHT = A_STEP, SLOTS = A_SLOTS;
  static constexpr bool ONE_ROUND = A_ONCE, FULL = A_FULL, NORM = A_NORM;
};
struct ShapeB : MatvecDefaults {
  typedef B_FORMAT Weights;
  static constexpr int COLS = B_COLS, ROWS = B_ROWS, LANE_COLS = B_LANE;
  static constexpr int WARPS = B_WARPS, IN_FLIGHT = B_STEP, SLOTS = B_SLOTS;
  static constexpr bool ONE_ROUND = B_ONCE, FULL = B_FULL, NORM = B_NORM;
};
typedef Linear<ShapeA> A;
typedef Linear<ShapeB> B;
static_assert(A::THREADS == B::THREADS, "tasks of one launch have as many threads");

struct AllArgs {
  NormArgs norm;
  LinearArgs a, b;
  u32 *arrived, blocks[4]; // zero; of the grid of each task
};

// All of a task's grid, by however many thread blocks there are; then all wait for all.
template <class Run> DEVICE void run_task(u32 blocks, u32* arrived, Run run) {
  for (u32 i = blockIdx.x; i < blocks; i += gridDim.x) {
    run(Task{i, blocks});
    __syncthreads(); // shared memory is free again
  }
  grid_barrier(arrived);
}

GRID_KERNEL(persistent, AllArgs, A::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  SHARED(NormShared, norm);
  SHARED(A::Shared, of_a);
  SHARED(B::Shared, of_b);
  begin();
  run_task(a.blocks[0], a.arrived, [&](Task task) { NormRows::run(a.norm, task, norm); });
  run_task(a.blocks[1], a.arrived, [&](Task task) { A::run(a.a, task, memory, of_a); });
  run_task(a.blocks[2], a.arrived, [&](Task task) { B::run(a.b, task, memory, of_b); });
}
