// What a device does at best: memory read as weights are read, launches that do nothing, barriers of the
// whole grid.

struct ReadArgs {
  const u8* memory;
  u64 units; // of 16 bytes
  u32* sum;
};

// Four loads of a thread are under way at a time. The sum is kept only if it has a value that it never has in
// practice: without that the compiler would leave the loads out.
KERNEL(floor_read, ReadArgs, 256) {
  begin();
  u64 stride = (u64)gridDim.x * blockDim.x, i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  u32 sum = 0;
  for (; i + 3 * stride < a.units; i += 4 * stride) {
    uint4 v[4];
#pragma unroll
    for (int k = 0; k < 4; k++) v[k] = stream16(a.memory + (i + k * stride) * 16);
#pragma unroll
    for (int k = 0; k < 4; k++) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  for (; i < a.units; i += stride) {
    uint4 v = stream16(a.memory + i * 16);
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x9e3779b9u) *a.sum = sum;
}

struct NothingArgs {
  u64 unused;
};

KERNEL(floor_nothing, NothingArgs, 32) { begin(); }

struct BarrierArgs {
  u32* arrived; // zero before
  u32* passed;  // per block: barriers, and at how many of them its neighbour was there, too
  u32 barriers, unused;
};

// Between barriers every block writes how far it is; after each it looks at its neighbour.
GRID_KERNEL(floor_barrier, BarrierArgs, 256) {
  begin();
  u32 seen = 0, *own = a.passed + 2 * blockIdx.x, *next = a.passed + 2 * ((blockIdx.x + 1) % gridDim.x);
  for (u32 i = 1; i <= a.barriers; i++) {
    if (threadIdx.x == 0) *own = i;
    grid_barrier(a.arrived);
    if (threadIdx.x == 0) seen += read_fresh(next) >= i;
  }
  if (threadIdx.x == 0) own[1] = seen;
}
