// CUDA C++ as C++17 on a CPU (x86-64, System V). Every GPU thread is a fiber on one OS thread; blocks run one
// after another, except in kernels with grid barriers, whose blocks are all there at once. A fiber runs until
// it waits; with EMU_ORDER other than 0 fibers, warps and blocks take turns in a shuffled order, so a missing
// barrier shows as a changed result. Shared memory starts as 0xff (NaN) and is followed by a guard page.
// Reported, not hung on: barriers that not all threads reach, threads of a block that wait at different
// barriers, unaligned vectors.
//
// Not modelled: weak memory order, bank conflicts, lockstep, speed.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define __device__
#define DEVICE inline
#define ALIGNED(n) alignas(n)
#define EMU_EXPORT extern "C" __attribute__((visibility("default")))

struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace emu {
struct Dim { uint32_t x, y, z; };
struct Barrier { uint32_t count, arrived, generation, passes; int line; };
struct Fiber { void* stack; uint32_t thread, warp_passes, block_passes, shared_used; bool done, began; };
struct Slot { alignas(16) char lanes[32][64]; };

constexpr uint32_t THREADS_MAX = 1024, STACK_BYTES = 64 << 10, SHARED_BYTES = 256 << 10, PAGE = 4096;
constexpr uint32_t NONE = ~0u, BLOCKS_MAX = 16; // that are there at once
struct Block {
  Fiber fibers[THREADS_MAX];
  Barrier warps[THREADS_MAX / 32], barrier;
  Slot slots[THREADS_MAX / 32][2];
  char *stacks, *statics, *dynamics;
  Dim index;
};
static Block blocks[BLOCKS_MAX], *block = blocks;
static Dim grid, block_dim;
static uint32_t current, random_state, order, dynamic_bytes, seed = NONE;
static uint64_t progress;
static bool began; // by any thread of the launch
static void* host;
static const char* kernel_name;

extern "C" void emu_switch(void** save, void* load);
asm(".text\n.weak emu_switch\n.hidden emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");

static inline Fiber& me() { return block->fibers[current]; }
[[noreturn]] static void fail(const char* what) {
  Dim at = block->index;
  fprintf(stderr, "emulation: %s, block (%u,%u,%u), thread %u: %s\n", kernel_name, at.x, at.y, at.z,
          me().thread, what);
  abort();
}
static inline uint32_t random_next() { return (random_state = random_state * 1664525u + 1013904223u) >> 8; }
static inline void yield() { emu_switch(&me().stack, host); }
static inline void open(Barrier& b) {
  if (b.arrived && b.arrived >= b.count) b.arrived = 0, b.generation++, progress++;
}
static void wait(Barrier& b, int line) {
  if (b.arrived && b.line != line) fail("threads wait at different barriers at the same time");
  b.line = line;
  uint32_t generation = b.generation;
  b.arrived++;
  open(b);
  while (b.generation == generation) yield();
}
static void leave(Barrier& b, uint32_t passes) {
  if (b.passes != NONE && b.passes != passes) fail("passed another number of barriers than its fellows");
  b.passes = passes;
  b.count--;
  open(b);
}
static inline Barrier& my_warp() { return block->warps[me().thread / 32]; }
static inline void sync_block(int line) { me().block_passes++, wait(block->barrier, line); }
static inline void sync_warp(int line) { me().warp_passes++, wait(my_warp(), line); }

// Lanes publish, meet, read. The next exchange uses the other slot, so what a slower lane still reads stays.
template <class T, class F> static inline auto exchange(int line, T x, F result) {
  static_assert(sizeof(T) <= 64, "one lane's share");
  char(*lanes)[64] = block->slots[me().thread / 32][me().warp_passes % 2].lanes;
  memcpy(lanes[me().thread % 32], &x, sizeof x);
  sync_warp(line);
  return result([=](uint32_t lane) { T v; memcpy(&v, lanes[lane], sizeof v); return v; }, me().thread % 32);
}

// Copies to shared memory happen when their thread waits for them, so that one that is not waited for shows.
struct Copies {
  struct One { void* to; const void* from; uint32_t bytes, any, group; } all[512];
  uint32_t count, groups;
};
static Copies copies[BLOCKS_MAX][THREADS_MAX];
static void copy_later(void* to, const void* from, uint32_t bytes, bool any) {
  Copies& c = copies[block - blocks][me().thread];
  if (c.count == 512) fail("too many copies under way");
  if ((uintptr_t)to % bytes || (any && (uintptr_t)from % bytes)) fail("copy is not aligned");
  c.all[c.count++] = {to, from, bytes, any, c.groups};
}
static void copies_done(uint32_t left) {
  Copies& c = copies[block - blocks][me().thread];
  uint32_t kept = 0;
  for (uint32_t i = 0; i < c.count; i++) {
    Copies::One& one = c.all[i];
    if (one.group + left >= c.groups) c.all[kept++] = one;
    else if (one.any) memcpy(one.to, one.from, one.bytes);
    else memset(one.to, 0, one.bytes);
  }
  c.count = kept;
}

static char* guarded(size_t bytes) { // readable up to a page that is not
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char* p = (char*)mmap(nullptr, bytes + PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (p == MAP_FAILED || mprotect(p + bytes, PAGE, PROT_NONE)) abort();
  return p;
}
static void* shared(size_t bytes) {
  size_t at = (me().shared_used + 127) / 128 * 128;
  me().shared_used = at + bytes;
  if (at + bytes > 48 << 10) fail("more than 48 KiB of static shared memory");
  return block->statics + at;
}
static char* dynamic_shared() { return block->dynamics + SHARED_BYTES - (dynamic_bytes + 127) / 128 * 128; }

static void (*body)(const void*);
static const void* arguments;
static void entry() {
  body(arguments);
  leave(my_warp(), me().warp_passes);
  leave(block->barrier, me().block_passes);
  me().done = true;
  progress++;
  yield();
  abort();
}
// Block number `b` of the grid with all its threads at the start.
static void begin_block(uint32_t b) {
  uint32_t threads = block_dim.x;
  if (!block->stacks) {
    block->stacks = guarded((size_t)THREADS_MAX * STACK_BYTES);
    block->statics = guarded(48 << 10), block->dynamics = guarded(SHARED_BYTES);
  }
  block->index = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
  memset(block->statics, 0xff, 48 << 10);
  memset(dynamic_shared(), 0xff, (dynamic_bytes + 127) / 128 * 128);
  for (uint32_t w = 0; w < threads / 32; w++) block->warps[w] = {32, 0, 0, NONE, 0};
  block->barrier = {threads, 0, 0, NONE, 0};
  for (uint32_t i = 0; i < threads; i++) {
    void** sp = (void**)(block->stacks + (size_t)(i + 1) * STACK_BYTES) - 1;
    *--sp = (void*)entry;
    for (int k = 0; k < 6; k++) *--sp = nullptr;
    block->fibers[i] = {sp, i, 0, 0, 0, false, false};
    copies[block - blocks][i].count = copies[block - blocks][i].groups = 0;
  }
}
// Runs the first `count` of `blocks` to their ends, side by side.
static void run_blocks(uint32_t count) {
  uint32_t threads = block_dim.x, rank[THREADS_MAX], idle = 0;
  for (uint32_t i = 0; i < threads; i++) rank[i] = i;
  uint64_t seen = progress;
  for (uint32_t left = count * threads; left;) {
    if (order)
      for (uint32_t i = threads; i > 1; i--) {
        uint32_t k = random_next() % i, swap = rank[i - 1];
        rank[i - 1] = rank[k], rank[k] = swap;
      }
    for (uint32_t b = 0, first = order ? random_next() % count : 0; b < count; b++) {
      block = blocks + (b + first) % count;
      for (uint32_t i = 0; i < threads; i++) {
        current = rank[i];
        if (me().done) continue;
        emu_switch(&host, me().stack);
        left -= me().done;
      }
    }
    idle = progress == seen ? idle + 1 : 0;
    seen = progress;
    if (idle > 2) fail("deadlock: a barrier that not all threads reach");
  }
}

struct Kernel {
  const char* name;
  uint32_t args_size, threads;
  bool together;
  void (*body)(const void*);
  Kernel* next;
};
static Kernel* kernels;
struct Register {
  Kernel kernel;
  Register(const char* name, uint32_t args_size, uint32_t threads, bool together, void (*body)(const void*))
      : kernel{name, args_size, threads, together, body, kernels} { kernels = &kernel; }
};
static Kernel* find(const char* name) {
  for (Kernel* k = kernels; k; k = k->next)
    if (!strcmp(k->name, name)) return k;
  return nullptr;
}
template <class T> static inline const T* aligned(const void* p, const char* what) {
  if ((uintptr_t)p % alignof(T)) fail(what);
  return (const T*)p;
}
} // namespace emu

// Bytes of the kernel's parameter; 0 if there is no such kernel.
EMU_EXPORT uint32_t emu_args_size(const char* name) {
  emu::Kernel* k = emu::find(name);
  return k ? k->args_size : 0;
}
// Order of turns from now on, instead of what EMU_ORDER says.
EMU_EXPORT void emu_shuffle(uint32_t seed) { emu::seed = seed; }
// 0: done; 1: no such kernel; 2: a launch that a device would refuse.
EMU_EXPORT int emu_launch(const char* name, const uint32_t grid[3], uint32_t block, uint32_t shared,
                          const void* args) {
  using namespace emu;
  Kernel* k = find(name);
  if (!k) return 1;
  if (!block || block % 32 || block > k->threads || shared > 227 << 10) return 2;
  if (!grid[0] || !grid[1] || !grid[2]) return 2;
  const char* variable = getenv("EMU_ORDER");
  order = random_state = seed != NONE ? seed : variable ? atoi(variable) : 0;
  emu::grid = {grid[0], grid[1], grid[2]};
  block_dim = {block, 1, 1};
  began = false;
  dynamic_bytes = shared, kernel_name = name, body = k->body, arguments = args;
  uint32_t count = grid[0] * grid[1] * grid[2], first = order ? random_next() % count : 0;
  if (k->together && count > BLOCKS_MAX) return 2;
  for (uint32_t i = 0; i < count; i++) {
    emu::block = blocks + (k->together ? i : 0);
    begin_block((i + first) % count);
    if (!k->together) run_blocks(1);
  }
  if (k->together) run_blocks(count);
  // Launches may overlap with the one before: one that waits for nothing lets the next run ahead of that.
  if (!began) fail("no thread called begin()");
  return 0;
}

#define EMU_ENTRY(name, Args, a, threads, together)                                     \
  static void name(const Args& a);                                                      \
  static emu::Register name##_registered(#name, sizeof(Args), threads, together,        \
                                         [](const void* p) { name(*(const Args*)p); }); \
  static void name(const Args& a)
#define ENTRY(name, Args, a, threads, min_blocks) EMU_ENTRY(name, Args, a, threads, false)
#define GRID_ENTRY(name, Args, a, threads) EMU_ENTRY(name, Args, a, threads, true)
#define SHARED(T, s) T& s = *(T*)emu::shared(sizeof(T))
#define DYNAMIC_SHARED(T, p) T* p = (T*)emu::dynamic_shared()
#define threadIdx (emu::Dim{emu::me().thread, 0, 0})
#define blockIdx emu::block->index
#define blockDim emu::block_dim
#define gridDim emu::grid
#define __syncthreads() emu::sync_block(__LINE__)
#define __syncwarp() emu::sync_warp(__LINE__)
#define __shfl_xor_sync(mask, x, m) \
  emu::exchange(__LINE__, x, [&](auto of, uint32_t l) { return of(l ^ (m)); })
#define __shfl_sync(mask, x, from) \
  emu::exchange(__LINE__, x, [&](auto of, uint32_t) { return of((from) & 31); })
#define __ballot_sync(mask, x)                                     \
  emu_join(__LINE__, (uint32_t)(bool)(x) << emu::me().thread % 32, \
           [](uint32_t a, uint32_t b) { return a | b; })
inline void __threadfence() {}
inline void wait_until(const uint32_t* counter, uint32_t target) {
  emu::progress++; // it came here
  while ((int32_t)(*counter - target) < 0) emu::yield();
  emu::progress++;
}

template <class To, class From> inline To emu_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
inline float __uint_as_float(uint32_t u) { return emu_bits<float>(u); }
inline uint32_t __float_as_uint(float f) { return emu_bits<uint32_t>(f); }
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t s) {
  uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; i++) r |= (uint32_t)(bytes >> 8 * (s >> 4 * i & 7) & 255) << 8 * i;
  return r;
}
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
  return (uint32_t)(((uint64_t)high << 32 | low) >> (shift & 31));
}
inline double __longlong_as_double(long long u) { return emu_bits<double>(u); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline void sincospi(double x, double* s, double* c) { *s = sin(M_PI * x), *c = cos(M_PI * x); }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

template <class Join> inline uint32_t emu_join(int line, uint32_t x, Join join) {
  return emu::exchange(line, x, [=](auto of, uint32_t) {
    uint32_t y = of(0);
    for (uint32_t l = 1; l < 32; l++) y = join(y, of(l));
    return y;
  });
}
inline uint32_t most_of_warp(uint32_t x) { return emu_join(__LINE__, x, max<uint32_t>); }
inline uint32_t least_of_warp(uint32_t x) { return emu_join(__LINE__, x, min<uint32_t>); }
inline uint4 stream16(const void* p) { return *emu::aligned<uint4>(p, "16-byte load is not aligned"); }
inline uint2 stream8(const void* p) { return *emu::aligned<uint2>(p, "8-byte load is not aligned"); }
inline uint32_t stream4(const void* p) { return *emu::aligned<uint32_t>(p, "4-byte load is not aligned"); }
template <class T> inline T constant(const T* p) { return *emu::aligned<T>(p, "load is not aligned"); }
template <class T> inline T read(const void* p) { return *emu::aligned<T>(p, "load is not aligned"); }
template <class T> inline void write(void* p, T v) { *(T*)emu::aligned<T>(p, "store is not aligned") = v; }
inline uint32_t ticket(uint32_t* counter) { return (*counter)++; }
template <class T> inline T read_fresh(const T* p) { return *emu::aligned<T>(p, "load is not aligned"); }
template <class T> inline void read_early(const void* p, T& v) { v = read<T>(p); }
inline void fetch_line(const void*) {}
template <class T> inline T add_to(T* p, T x) { T before = *p; *p += x; return before; }
inline double exact_add(double a, double b) { return a + b; }
inline double exact_mul(double a, double b) { return a * b; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned __int128)a * b >> 64;
}
inline void begin() {
  if (emu::me().began) emu::fail("begin() is called twice");
  emu::me().began = emu::began = true;
}
inline unsigned long long now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}
template <class T> inline T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> inline T atomicMax(T* p, T v) { T old = *p; if (old < v) *p = v; return old; }
template <int N> inline void copy_async(void* to, const void* from, bool any = true) {
  emu::copy_later(to, from, N, any);
}
inline void copies_close() { emu::copies[emu::block - emu::blocks][emu::me().thread].groups++; }
template <int N> inline void copies_wait() { emu::copies_done(N); }

// By table: without F16C the compiler calls a function for each.
struct Halves {
  float of[65536];
  Halves() {
    for (uint32_t bits = 0; bits < 65536; bits++) of[bits] = (float)emu_bits<_Float16>((uint16_t)bits);
  }
};
static const Halves halves;
inline float f16_to_f32(uint16_t bits) { return halves.of[bits]; }
inline uint16_t f32_to_f16(float x) { return emu_bits<uint16_t>((_Float16)x); }
inline float emu_half(uint32_t w, int high) { return __uint_as_float(high ? w & 0xffff0000u : w << 16); }
inline uint32_t emu_to_bf16(float x) { // to nearest, ties to even
  uint32_t u = __float_as_uint(x);
  return x != x ? u >> 16 | 64 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) { return emu_to_bf16(low) | emu_to_bf16(high) << 16; }
inline void fetch_to_l2(const void* p, uint32_t bytes) {
  if ((uintptr_t)p % 16 || bytes % 16) emu::fail("prefetch is not aligned");
}
inline uint32_t late(uint32_t x) { return x; }
inline uint32_t masked(uint32_t x, uint32_t mask, uint32_t offset) { return (x & mask) | offset; }
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  auto one = [&](int h) { return emu_to_bf16(fmaf(emu_half(a, h), emu_half(b, h), emu_half(c, h))); };
  return one(0) | one(1) << 16;
}
inline float emu_f16(uint32_t w, int high) { return f16_to_f32((uint16_t)(w >> 16 * high)); }
inline uint32_t pack_f16(float low, float high) { return f32_to_f16(low) | (uint32_t)f32_to_f16(high) << 16; }
// A product of two f16 is exact in f64, and so are the sums that are taken here.
inline uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
  auto one = [&](int h) {
    return (uint32_t)emu_bits<uint16_t>((_Float16)((double)emu_f16(a, h) * emu_f16(b, h) + emu_f16(c, h)));
  };
  return one(0) | one(1) << 16;
}
struct EmuPart { uint32_t a[4], b[2]; };
template <class Half> inline void emu_mma(float (&d)[4], EmuPart part, Half half) {
  emu::exchange(__LINE__, part, [&](auto of, uint32_t l) {
    for (uint32_t q = 0; q < 4; q++) { // lanes of the quad that hold columns 2q, 2q + 1 (and 8 more) of A
      EmuPart row = of(l / 4 * 4 + q);
      for (int odd = 0; odd < 2; odd++) {
        EmuPart column = of((2 * (l % 4) + odd) * 4 + q);
        for (int h = 0; h < 2; h++)
          for (int high = 0; high < 2; high++) {
            float b = half(column.b[high], h);
            d[odd] += half(row.a[2 * high], h) * b;
            d[2 + odd] += half(row.a[2 * high + 1], h) * b;
          }
      }
    }
  });
}
// Words: a0 to a3, b0, b1.
template <class... U> inline void mma_bf16(float (&d)[4], U... words) { emu_mma(d, {words...}, emu_half); }
template <class... U> inline void mma_f16(float (&d)[4], U... words) { emu_mma(d, {words...}, emu_f16); }
