// What a device does at best: memory read as weights are read, and launches that do nothing.

struct ReadArgs {
  const u8* memory;
  u64 units; // of 16 bytes
  u32* sum;
};

// Four loads of a thread are under way at a time. The sum is kept only where it has a value that it never has in practice:
// without that the compiler would leave the loads out.
KERNEL(floor_read, ReadArgs, 256) {
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
