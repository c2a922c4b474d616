// Routed experts of many rows: pairs of row and choice in a list per expert, tiles of the lists, three products, weighted sum.
// Macros: K_TOP, K_HIDDEN, K_FF, K_EXPERTS, K_UP, K_DOWN (formats), K_GATE, K_ACTIVATION, and how the products are cut
// up: K_UP_PARTS (of x), K_UP_WM, K_UP_WK, K_UP_NT, K_UP_STAGES, K_DOWN_WM and so on.

// Where the gate comes from: another matrix of the format of up, or inner channels that a launch before has written.
enum Gate { NO_GATE, GATE_BESIDE, GATE_BEFORE };
constexpr int RAW = -1;

struct Stack {
  Matrix first;
  const float* bias; // [experts, outputs] or null
};
struct GroupedArgs {
  const int* count;
  Rows x, route, out, add; // add: null, or what `factor` times the result is added to as well
  Stack gate, up, down;
  u8 *parts, *inner_parts;      // x and inner in parts
  float *inner, *outer;         // [pair, K_FF], [pair, K_HIDDEN]; a pair is row * K_TOP + choice
  u32 *lists, *counts, *ticket; // [expert, capacity] of pairs, ascending; [expert]; zero
  uint2* tiles;                 // expert, first of its list; before them their number
  u32 capacity, unused;
  float limit, alpha, factor, unused2;
};

typedef Gemm<K_UP, K_HIDDEN, K_UP_PARTS, K_UP_WM, K_UP_WK, K_UP_NT, K_UP_STAGES> Up;
typedef Gemm<K_DOWN, K_FF, K_DOWN_PARTS, K_DOWN_WM, K_DOWN_WK, K_DOWN_NT, K_DOWN_STAGES> Down;
static_assert(Up::TOKENS == Down::TOKENS, "they share tiles");

constexpr int WARPS = 8;
struct GroupShared { u32 sums[WARPS], last; };

// Sum of `own` over the threads before this one, and over all.
DEVICE u32 before(GroupShared& s, u32 own, u32& all) {
  u32 sum = own, before = 0;
#pragma unroll
  for (int o = 1; o < 32; o *= 2) {
    u32 other = __shfl_sync(ALL, sum, lane() - o);
    if (lane() >= o) sum += other;
  }
  if (lane() == 31) s.sums[warp()] = sum;
  __syncthreads();
  all = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    if (w < warp()) before += s.sums[w];
    all += s.sums[w];
  }
  __syncthreads();
  return before + sum - own;
}

// The list of one expert; the last block to finish cuts all lists into tiles.
DEVICE void group(const GroupedArgs& a, GroupShared& s, int expert) {
  int pairs = *a.count * K_TOP, own = (pairs + 32 * WARPS - 1) / (32 * WARPS), from = min((int)threadIdx.x * own, pairs), to = min(from + own, pairs);
  auto mine = [&](int pair) { return (int)a.route.row(pair / K_TOP)[pair % K_TOP] == expert; };
  u32 found = 0, all;
#pragma unroll 8
  for (int pair = from; pair < to; pair++) found += mine(pair);
  u32 at = before(s, found, all);
  for (int pair = from; pair < to; pair++)
    if (mine(pair) && at < a.capacity) a.lists[(u64)expert * a.capacity + at++] = pair;
  if (threadIdx.x == 0) a.counts[expert] = min(all, a.capacity);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) s.last = ticket(a.ticket) == K_EXPERTS - 1;
  __syncthreads();
  if (!s.last) return;
  __threadfence();
  u32 tiles = 0;
  for (int base = 0; base < K_EXPERTS; base += 32 * WARPS) {
    int e = base + threadIdx.x;
    u32 own = e < K_EXPERTS ? (read_fresh(a.counts + e) + Up::TOKENS - 1) / Up::TOKENS : 0, at = tiles + before(s, own, all);
    for (u32 i = 0; i < own; i++) a.tiles[1 + at + i] = make_uint2(e, i * Up::TOKENS);
    tiles += all;
  }
  if (threadIdx.x == 0) a.tiles[0].x = tiles, *a.ticket = 0;
}

// Lists and tiles, and x in parts. Grid: experts, then blocks of units of each row.
KERNEL(experts_prepare, GroupedArgs, 32 * WARPS) {
  SHARED(GroupShared, s);
  begin();
  if (blockIdx.x < K_EXPERTS) return group(a, s, blockIdx.x);
  constexpr int BLOCKS = (Up::X::UNITS + 32 * WARPS - 1) / (32 * WARPS);
  int block = blockIdx.x - K_EXPERTS, row = block / BLOCKS;
  if (row < *a.count) Up::X::piece(a.x.row(row), a.parts + (u64)row * Up::X::ROW, block % BLOCKS * 32 * WARPS + threadIdx.x);
}

// A tile of pairs of one expert.
struct Tile {
  u32 expert;
  int count;
  const u32* list;
  DEVICE explicit Tile(const GroupedArgs& a) : expert(0), count(0), list(nullptr) {
    if (blockIdx.y >= a.tiles[0].x) return;
    uint2 tile = a.tiles[1 + blockIdx.y];
    expert = tile.x, count = a.counts[expert] - tile.y, list = a.lists + (u64)expert * a.capacity + tile.y;
  }
};

// inner = act(gate x, up x) of the pairs of a tile. Grid: tiles of outputs, tiles of pairs.
KERNEL(grouped_up, GroupedArgs, Up::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  begin();
  const Tile tile(a);
  if (!tile.count) return;
  // With a gate, sixteen outputs of up and the same of gate take turns, so that a lane has both.
  constexpr bool BOTH = K_GATE == GATE_BESIDE;
  const Matrix up = matrix_of<K_UP>(a.up.first, tile.expert, K_FF, K_HIDDEN);
  const Matrix gate = BOTH ? matrix_of<K_UP>(a.gate.first, tile.expert, K_FF, K_HIDDEN) : up;
  int row0 = blockIdx.x * (BOTH ? Up::OUTPUTS / 2 : Up::OUTPUTS);
  auto channel_of = [&](int i) { return row0 + (BOTH ? i / 32 * 16 + i % 16 : i); };
  auto finish = [&](u32 pair, int channel, float u, float g) {
    if (channel >= K_FF) return;
    float* inner = a.inner + (u64)pair * K_FF + channel;
    if (a.up.bias) u += constant(a.up.bias + (u64)tile.expert * K_FF + channel);
    if (BOTH && a.gate.bias) g += constant(a.gate.bias + (u64)tile.expert * K_FF + channel);
    if (K_GATE == GATE_BEFORE) g = *inner;
    *inner = K_ACTIVATION == RAW ? u : activation(K_ACTIVATION, g, u, a.limit, a.alpha);
  };
  Up gemm(memory, tile.count);
  gemm.run(
      [&](int i, Matrix& m) {
        m = BOTH && i % 32 >= 16 ? gate : up;
        return min(channel_of(i), K_FF - 1);
      },
      [&](int i) -> const u8* { return a.parts + (u64)(tile.list[i] / K_TOP) * Up::X::ROW; },
      [&](int i, int token, float low, float high) {
        finish(tile.list[token], channel_of(i), low, high);
        if (!BOTH) finish(tile.list[token], row0 + i + 16, high, 0.0f);
      });
}

// inner in parts. Grid: units of a pair, choices, rows.
KERNEL(inner_split, GroupedArgs, 256) {
  begin();
  if ((int)blockIdx.z >= *a.count) return;
  u64 pair = (u64)blockIdx.z * K_TOP + blockIdx.y;
  Down::X::piece(a.inner + pair * K_FF, a.inner_parts + pair * Down::X::ROW, blockIdx.x * blockDim.x + threadIdx.x);
}

// outer = down inner of the pairs of a tile. Grid as above.
KERNEL(grouped_down, GroupedArgs, Down::THREADS) {
  DYNAMIC_SHARED(u8, memory);
  begin();
  const Tile tile(a);
  if (!tile.count) return;
  int row0 = blockIdx.x * Down::OUTPUTS;
  const Matrix down = matrix_of<K_DOWN>(a.down.first, tile.expert, K_HIDDEN, K_FF);
  const float* bias = a.down.bias ? a.down.bias + (u64)tile.expert * K_HIDDEN : nullptr;
  Down gemm(memory, tile.count);
  gemm.run(
      [&](int i, Matrix& m) {
        m = down;
        return min(row0 + i, K_HIDDEN - 1);
      },
      [&](int i) -> const u8* { return a.inner_parts + (u64)tile.list[i] * Down::X::ROW; },
      [&](int i, int token, float low, float high) {
        float* out = a.outer + (u64)tile.list[token] * K_HIDDEN;
        int row = row0 + i;
        if (row < K_HIDDEN) out[row] = low + (bias ? constant(bias + row) : 0.0f);
        if (row + 16 < K_HIDDEN) out[row + 16] = high + (bias ? constant(bias + row + 16) : 0.0f);
      });
}

// out = sum over k of weight_k * outer_k, in order. Grid: outputs, rows.
KERNEL(experts_combine, GroupedArgs, 256) {
  begin();
  int row = blockIdx.y, col = 4 * (blockIdx.x * 256 + threadIdx.x);
  if (row >= *a.count || col >= K_HIDDEN) return;
  const float *route = a.route.row(row), *outer = a.outer + (u64)row * K_TOP * K_HIDDEN + col;
  float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
  for (int k = 0; k < K_TOP; k++) {
    float4 v = read<float4>(outer + (u64)k * K_HIDDEN);
    float weight = route[K_TOP + k];
    y.x = fmaf(weight, v.x, y.x), y.y = fmaf(weight, v.y, y.y), y.z = fmaf(weight, v.z, y.z), y.w = fmaf(weight, v.w, y.w);
  }
  write(a.out.row(row) + col, y);
  if (!a.add.x) return;
  float* to = a.add.row(row) + col;
  float4 v = read<float4>(to);
  write(to, make_float4(v.x + a.factor * y.x, v.y + a.factor * y.y, v.z + a.factor * y.z, v.w + a.factor * y.w));
}
