// One launch that runs all bodies of a decode layer: a stand-in for a kernel that does a whole token. The
// entries of the ops come before it as functions, each in a namespace of its own, so bodies of several shapes
// meet here. Macros: OPS(F), which is F(number, entry) for each op in order, COUNT of them, and THREADS of a
// block.

// The block of an op's grid that a thread block runs at the moment. The barrier between ops has waited.
struct Task {
  u32 index, grid[2];
  DEVICE u32 x() const { return index % grid[0]; }
  DEVICE u32 y() const { return index / grid[0]; }
  DEVICE u32 grid_x() const { return grid[0]; }
  DEVICE u32 grid_y() const { return grid[1]; }
  static DEVICE void wait_for_inputs() {}
};

#define FIELD(i, entry) op##i::entry##_args op##i;
struct AllArgs {
  OPS(FIELD)
  u32 *arrived, grid[COUNT][2]; // arrived: zero
};

// All of an op's grid, by however many thread blocks there are; then all wait for all.
template <class Run> DEVICE void run_op(const u32 (&grid)[2], u32* arrived, Run run) {
  for (u32 i = blockIdx.x; i < grid[0] * grid[1]; i += gridDim.x) {
    run(Task{i, {grid[0], grid[1]}});
    __syncthreads(); // shared memory is free again
  }
  grid_barrier(arrived);
}

#define RUN(i, entry) run_op(a.grid[i], a.arrived, [&](Task task) { op##i::entry(a.op##i, task); });
GRID_KERNEL(persistent, AllArgs, THREADS) {
  begin();
  OPS(RUN)
}
