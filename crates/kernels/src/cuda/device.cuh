// Types, lanes and every instruction that C++ cannot spell. Kernels hold no asm of their own; each primitive
// here has its twin for the CPU in cuda-emulation/emulate.h. NVRTC needs no header for any of it.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef AMOEBA_EMULATE
#include "emulate.h"
#else
#define ENTRY(name, Args, a, threads, min_blocks) \
  extern "C" __global__ void __launch_bounds__(threads, min_blocks) name(const __grid_constant__ Args a)
// One whose blocks are all on the device at once, because it has barriers of the grid: launched
// cooperatively.
#define GRID_ENTRY(name, Args, a, threads) ENTRY(name, Args, a, threads, 1)
// One struct of shared memory at the top of a kernel.
#define SHARED(T, s) __shared__ T s
#define DYNAMIC_SHARED(T, p)                                  \
  extern __shared__ __align__(128) unsigned char p##_bytes[]; \
  T* p = reinterpret_cast<T*>(p##_bytes)
#define DEVICE __device__ __forceinline__
#define ALIGNED(n) __align__(n)

// Loads of weights: each byte is used once, so it need not stay in L1.
DEVICE uint4 stream16(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
DEVICE uint2 stream8(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
DEVICE u32 stream4(const void* p) {
  u32 v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
// The largest and the smallest of what the lanes of a warp have.
DEVICE u32 most_of_warp(u32 x) { return __reduce_max_sync(0xffffffffu, x); }
DEVICE u32 least_of_warp(u32 x) { return __reduce_min_sync(0xffffffffu, x); }
template <class T> DEVICE T constant(const T* p) { return __ldg(p); }
template <class T> DEVICE T read(const void* p) { return *reinterpret_cast<const T*>(p); }
template <class T> DEVICE void write(void* p, T v) { *reinterpret_cast<T*>(p) = v; }
// What other blocks have written in this launch.
DEVICE u32 ticket(u32* counter) { return atomicAdd(counter, 1u); }
template <class T> DEVICE T read_fresh(const T* p) { return __ldcg(p); }
// Loads that stay where they are, such as before begin(), and leave nothing in L1: others may be writing what
// lies next to what they read.
DEVICE void read_early(const void* p, uint4& v) {
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
}
DEVICE void read_early(const void* p, uint2& v) {
  asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
}
// Brings a line into L2.
DEVICE void fetch_line(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
// Adds in shared or global memory; what was there before. Integers only: their sums do not depend on the
// order.
template <class T> DEVICE T add_to(T* p, T x) { return atomicAdd(p, x); }
// One rounding each, never fused: the same bits as on the CPU.
DEVICE double exact_add(double a, double b) { return __dadd_rn(a, b); }
DEVICE double exact_mul(double a, double b) { return __dmul_rn(a, b); }

// Copies of N bytes from memory to shared memory that go on by themselves, or zeros where there is nothing to
// copy. A thread waits for its own; the number is of groups, closed by `copies_close`, that may still be
// under way.
template <int N> DEVICE void copy_async(void* to, const void* from, bool any = true) {
  u32 shared = (u32)__cvta_generic_to_shared(to);
  if (N == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(any ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(N),
                 "r"(any ? N : 0)
                 : "memory");
}
DEVICE void copies_close() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Has L2 fetch what will be read soon: multiples of 16 bytes. Only a hint, and only from Hopper on.
DEVICE void fetch_to_l2(const void* p, u32 bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes));
#endif
}

// Called once by every thread of every kernel before it touches what other kernels write or read: a launch
// may begin while the one before it ends. What is read before may be weights, and what is older than the
// launch before.
DEVICE void begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// ns of a clock that all multiprocessors share.
DEVICE u64 now() {
  u64 ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns)::"memory");
  return ns;
}

// Waits until a counter that others add to has come so far.
DEVICE void wait_until(const u32* counter, u32 target) {
  u32 now;
  do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
  while ((int)(now - target) < 0);
}

DEVICE float f16_to_f32(u16 bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
DEVICE u16 f32_to_f16(float x) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
// x, for what is to be computed no earlier than here: not before a wait, where it would wait for its own.
DEVICE u32 late(u32 x) {
  asm volatile("" : "+r"(x));
  return x;
}
// (x & mask) | offset in one instruction: the compiler makes two of it where both are constants.
DEVICE u32 masked(u32 x, u32 mask, u32 offset) {
  u32 y;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "r"(mask), "r"(offset));
  return y;
}
// a * b + c on two bf16 each, subnormals kept.
DEVICE u32 fma_bf16x2(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
// Two f32 rounded to bf16 (to nearest, ties to even), the first in the lower half.
DEVICE u32 pack_bf16(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
DEVICE u32 pack_f16(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// d += A B, A 16x16 and B 16x8 of bf16. Lane l holds of A rows l/4 (a0, a2) and l/4 + 8 (a1, a3), columns
// 2(l%4) + {0, 1} (a0, a1) and 8 more (a2, a3); of B the same rows as A's columns, column l/4; of D rows l/4
// and l/4 + 8, columns 2(l%4) + {0, 1}.
DEVICE void mma_bf16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// The same of f16.
DEVICE void mma_f16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#endif

// When the first block of a launch had waited for the launch before, and when the last was done.
struct Stamp {
  u64 start, end;
};

// The block that runs a kernel's body, and how it waits. Bodies take it as a template parameter: the kernel
// of one launch passes Launched; a kernel that does several bodies in one launch passes a type of its own.
struct GridBlock {
  static DEVICE u32 x() { return blockIdx.x; }
  static DEVICE u32 y() { return blockIdx.y; }
  static DEVICE u32 z() { return blockIdx.z; }
  // Blocks of the grid.
  static DEVICE u32 grid_x() { return gridDim.x; }
  static DEVICE u32 grid_y() { return gridDim.y; }
  static DEVICE u32 grid_z() { return gridDim.z; }
};
#ifndef AMOEBA_TRACE
struct Launched : GridBlock {
  // Every thread of every body calls this once, before it touches what other kernels write or read: see
  // begin().
  DEVICE void wait_for_inputs() const { begin(); }
};
#define KERNEL_PER_SM(name, Args, threads, min_blocks) ENTRY(name, Args, a, threads, min_blocks)
#define THIS_BLOCK Launched()
#else
template <class Args> struct Traced {
  Args a;
  Stamp* stamp;
};
struct Launched : GridBlock {
  Stamp* stamp;
  DEVICE explicit Launched(Stamp* stamp) : stamp(stamp) {}
  DEVICE void wait_for_inputs() const {
    begin();
    if (threadIdx.x == 0) atomicMin(&stamp->start, now());
  }
};
DEVICE void stamp_end(Stamp* stamp) {
  __syncthreads();
  if (threadIdx.x == 0) atomicMax(&stamp->end, now());
}
#define KERNEL_PER_SM(name, Args, threads, min_blocks)                                                 \
  DEVICE void name##_body(const Args& a, Stamp* stamp);                                                \
  ENTRY(name, Traced<Args>, t, threads, min_blocks) { name##_body(t.a, t.stamp), stamp_end(t.stamp); } \
  DEVICE void name##_body(const Args& a, Stamp* stamp)
#define THIS_BLOCK Launched(stamp)
#define begin() THIS_BLOCK.wait_for_inputs()
#endif
// A kernel `name` of at most that many threads; its code follows and has the arguments as `a`. KERNEL_PER_SM:
// with registers for at least that many blocks on a multiprocessor.
#define KERNEL(name, Args, threads) KERNEL_PER_SM(name, Args, threads, 1)
#define GRID_KERNEL(name, Args, threads) GRID_ENTRY(name, Args, a, threads)

// Blocks per multiprocessor for a kernel of which two fit; the register files of other architectures have no
// room.
DEVICE constexpr int min_blocks_per_sm(bool fits_two) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
  return fits_two ? 2 : 1;
#else
  return 1;
#endif
}

enum : u32 { ALL = 0xffffffffu }; // lanes

DEVICE int lane() { return threadIdx.x & 31; }
DEVICE int warp() { return threadIdx.x >> 5; }
DEVICE double infinite() { return __longlong_as_double(0x7ff0000000000000ll); }
DEVICE float bf16_to_f32(u32 bits) { return __uint_as_float(bits << 16); }

// Every block of a GRID_KERNEL waits for all others. The counter, zero before the launch, counts arrivals.
DEVICE void grid_barrier(u32* arrived) {
  __syncthreads();
  if (threadIdx.x == 0) {
    u32 blocks = gridDim.x * gridDim.y * gridDim.z;
    __threadfence();
    wait_until(arrived, ticket(arrived) / blocks * blocks + blocks);
    __threadfence();
  }
  __syncthreads();
}

template <class T> DEVICE T warp_sum(T v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(ALL, v, o);
  return v;
}
template <class T> DEVICE T warp_max(T v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    T other = __shfl_xor_sync(ALL, v, o);
    v = v < other ? other : v;
  }
  return v;
}

// A row of the step, as the host writes it.
struct StepRow {
  u32 token, slot, position, source;
};
struct Step {
  int rows, wanted, unused[2];
  StepRow row[1];
};

// Whether no row before stands for the same sequence: rows of one stand in one stretch.
DEVICE bool begins_stretch(const Step* step, int row) {
  return row < step->rows && (row == 0 || step->row[row - 1].slot != step->row[row].slot);
}

DEVICE float softplus(float x) { return x > 0.0f ? x + log1pf(expf(-x)) : log1pf(expf(x)); }

// A buffer of f32, one row per token.
struct Rows {
  float* x;
  u64 stride;
  DEVICE float* row(u32 i) const { return x + (u64)i * stride; }
};
