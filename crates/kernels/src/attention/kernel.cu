// Keys and values, and attention over them. Macros: K_HALF (stored as f16), K_DIM, K_V_DIM, K_HEADS (query heads a block serves,
// of one key head), K_WARPS.

struct AppendArgs { const Step* step; Cache cache; Rows k, v; };
KERNEL(kv_append, AppendArgs, 256) {
  begin();
  int row = blockIdx.y, i = blockIdx.x * 256 + threadIdx.x;
  if (row >= a.step->rows || i >= (int)a.cache.kv_heads * (DIM + V_DIM)) return;
  StepRow at = a.step->row[row];
  int head = i / (DIM + V_DIM), d = i % (DIM + V_DIM);
  if (d < DIM) {
    float x = d < K_DIM ? a.k.row(row)[head * K_DIM + d] : 0.0f;
    a.cache.key_block(at.slot, head, at.position)[(d / Q * 32 + at.position % 32) * Q + d % Q] = to_element(x);
  } else {
    d -= DIM;
    float x = d < K_V_DIM ? a.v.row(row)[head * K_V_DIM + d] : 0.0f;
    a.cache.value(at.slot, head, at.position)[d] = to_element(x);
  }
}

// What becomes of the heads of one buffer before attention.
struct Heads {
  Rows x;
  const float* weight; // of the norm, or null
  const double* turns; // per position, of each pair; null: no rotation
  u32 heads, dim, first, half, interleaved;
  u32 norm, append; // append: 0 nowhere, 1 to the keys, 2 to the values
  float eps, scale, amplitude;
};
struct HeadsArgs {
  const Step* step;
  Cache cache;
  Heads of[3];
};

// Norm, rotation and appending of one head per warp, of queries, keys and values.
KERNEL(heads, HeadsArgs, 256) {
  DYNAMIC_SHARED(float, memory);
  begin();
  int row = blockIdx.y, head = blockIdx.x * 8 + warp(), i = 0;
  while (i < 3 && head >= (int)a.of[i].heads) head -= a.of[i++].heads;
  if (row >= a.step->rows || i == 3) return;
  const Heads& h = a.of[i];
  StepRow at = a.step->row[row];
  int dim = h.dim;
  float *x = h.x.row(row) + head * dim, *y = memory + warp() * max(DIM, V_DIM), sum = 0.0f;
  for (int d = lane(); d < dim; d += 32) {
    float v = x[d];
    y[d] = v, sum = fmaf(v, v, sum);
  }
  if (h.norm) {
    float factor = 1.0f / sqrtf(warp_sum(sum) / dim + h.eps);
    for (int d = lane(); d < dim; d += 32) y[d] = y[d] * factor * (h.weight ? constant(h.weight + d) : 1.0f) * h.scale;
  }
  __syncwarp();
  if (h.turns)
    for (int pair = lane(); pair < (int)h.half; pair += 32) {
      float sine, cosine, *low = y + h.first + (h.interleaved ? 2 * pair : pair), *high = low + (h.interleaved ? 1 : h.half);
      turn(at.position, constant(h.turns + pair), h.amplitude, sine, cosine);
      float l = *low, u = *high;
      *low = l * cosine - u * sine, *high = u * cosine + l * sine;
    }
  __syncwarp();
  for (int d = lane(); d < dim && (h.norm || h.turns); d += 32) x[d] = y[d];
  if (h.append == 1)
    for (int d = lane(); d < DIM; d += 32)
      a.cache.key_block(at.slot, head, at.position)[(d / Q * 32 + at.position % 32) * Q + d % Q] = to_element(d < dim ? y[d] : 0.0f);
  if (h.append == 2)
    for (int d = lane(); d < V_DIM; d += 32) a.cache.value(at.slot, head, at.position)[d] = to_element(d < dim ? y[d] : 0.0f);
}

struct AttentionArgs {
  const Step* step;
  Cache cache;
  Rows q, out;
  const float* sinks; // or null
  float* partial;     // [row, head, split, 2 + V_DIM]: largest score, sum, output
  u32* tickets;       // [row, group of heads], zero
  u32 group;          // query heads per key head
  u32 sliding, chunk; // width of a window, or 0
  float scale, softcap;
  u32 unused;
};

constexpr int H = K_HEADS, LANES_V = (V_DIM / Q + 31) / 32;
struct AttentionShared {
  ALIGNED(16) float q[H][DIM];
  float p[K_WARPS][H][32];
  float most[K_WARPS][H], sum[K_WARPS][H];
  ALIGNED(16) float out[K_WARPS][H][V_DIM];
  u32 ticket;
};

// Online softmax of a warp over 32 positions from `base` on, of which [first, last] are seen.
struct Running { float most[H], sum[H], out[H][LANES_V][Q]; };
DEVICE void attend_tile(const AttentionArgs& a, AttentionShared& s, Running& r, StepRow at, int kv_head, int base, int first, int last) {
  float score[H];
#pragma unroll
  for (int h = 0; h < H; h++) score[h] = 0.0f;
  const Element* keys = a.cache.key_block(at.slot, kv_head, base) + lane() * Q;
#pragma unroll 4
  for (int c = 0; c < DIM / Q; c++) {
    float k[Q];
    from_elements(read<uint4>(keys + c * 32 * Q), k);
#pragma unroll
    for (int h = 0; h < H; h++)
#pragma unroll
      for (int i = 0; i < Q; i += 4) {
        float4 q = read<float4>(&s.q[h][c * Q + i]);
        score[h] = fmaf(q.x, k[i], fmaf(q.y, k[i + 1], fmaf(q.z, k[i + 2], fmaf(q.w, k[i + 3], score[h]))));
      }
  }
  int position = base + lane();
  bool seen = position >= first && position <= last;
#pragma unroll
  for (int h = 0; h < H; h++) {
    float x = score[h] * a.scale;
    if (a.softcap > 0.0f) x = a.softcap * tanhf(x / a.softcap);
    x = seen ? x : lowest();
    float most = warp_max(x);
    most = most < r.most[h] ? r.most[h] : most;
    float keep = share(r.most[h], most), p = seen ? expf(x - most) : 0.0f;
    r.most[h] = most;
    r.sum[h] = r.sum[h] * keep + p;
    s.p[warp()][h][lane()] = p;
#pragma unroll
    for (int i = 0; i < LANES_V * Q; i++) (&r.out[h][0][0])[i] *= keep;
  }
  __syncwarp();
  int begin = max(first - base, 0), end = min(last - base, 31);
#pragma unroll 4
  for (int n = begin; n <= end; n++) {
    const Element* value = a.cache.value(at.slot, kv_head, base + n);
#pragma unroll
    for (int l = 0; l < LANES_V; l++) {
      int d = (l * 32 + lane()) * Q;
      if (d >= V_DIM) continue;
      float v[Q];
      from_elements(read<uint4>(value + d), v);
#pragma unroll
      for (int h = 0; h < H; h++)
#pragma unroll
        for (int i = 0; i < Q; i++) r.out[h][l][i] = fmaf(s.p[warp()][h][n], v[i], r.out[h][l][i]);
    }
  }
  __syncwarp();
}

// Joins what the splits have, in their order.
DEVICE void join(const AttentionArgs& a, const float* partial, float* out, const float* sink, int splits) {
  for (int i = threadIdx.x; i < H * K_V_DIM; i += 32 * K_WARPS) {
    int h = i / K_V_DIM, d = i % K_V_DIM;
    const float* of = partial + (u64)h * splits * (2 + V_DIM);
    float most = sink ? constant(sink + h) : lowest(), sum = 0.0f, y = 0.0f;
    for (int n = 0; n < splits; n++) {
      float m = read_fresh(of + n * (2 + V_DIM));
      most = most < m ? m : most;
    }
    for (int n = 0; n < splits; n++) {
      const float* part = of + n * (2 + V_DIM);
      float weight = share(read_fresh(part), most);
      if (weight == 0.0f) continue;
      sum = fmaf(weight, read_fresh(part + 1), sum), y = fmaf(weight, read_fresh(part + 2 + d), y);
    }
    if (sink) sum += expf(constant(sink + h) - most);
    out[h * K_V_DIM + d] = y / sum;
  }
}

// Grid: groups of heads, splits of the positions, rows.
KERNEL(attention, AttentionArgs, 32 * K_WARPS) {
  DYNAMIC_SHARED(AttentionShared, shared);
  begin();
  AttentionShared& s = *shared;
  int row = blockIdx.z, splits = gridDim.y, split = blockIdx.y;
  if (row >= a.step->rows) return;
  StepRow at = a.step->row[row];
  int head = blockIdx.x * H, kv_head = head / a.group, last = at.position, first = 0;
  if (a.sliding) first = max(0, last + 1 - (int)a.sliding);
  if (a.chunk) first = last / (int)a.chunk * (int)a.chunk;
  int tile0 = first / 32, tiles = last / 32 + 1 - tile0, per = (tiles + splits - 1) / splits;
  int from = tile0 + split * per, to = min(from + per, tile0 + tiles);
  for (int i = threadIdx.x; i < H * DIM; i += 32 * K_WARPS)
    s.q[i / DIM][i % DIM] = i % DIM < K_DIM ? a.q.row(row)[(head + i / DIM) * K_DIM + i % DIM] : 0.0f;
  __syncthreads();
  Running r;
#pragma unroll
  for (int h = 0; h < H; h++) {
    r.most[h] = lowest(), r.sum[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < LANES_V * Q; i++) (&r.out[h][0][0])[i] = 0.0f;
  }
  for (int tile = from + warp(); tile < to; tile += K_WARPS) attend_tile(a, s, r, at, kv_head, tile * 32, first, last);
#pragma unroll
  for (int h = 0; h < H; h++) {
    float sum = warp_sum(r.sum[h]);
    if (lane() == 0) s.most[warp()][h] = r.most[h], s.sum[warp()][h] = sum;
#pragma unroll
    for (int l = 0; l < LANES_V; l++) {
      int d = (l * 32 + lane()) * Q;
      if (d >= V_DIM) continue;
#pragma unroll
      for (int i = 0; i < Q; i++) s.out[warp()][h][d + i] = r.out[h][l][i];
    }
  }
  __syncthreads();
  u64 first_part = ((u64)row * a.cache.kv_heads * a.group + head) * splits;
  const float* sink = a.sinks ? a.sinks + head : nullptr;
  for (int i = threadIdx.x; i < H * V_DIM; i += 32 * K_WARPS) {
    int h = i / V_DIM, d = i % V_DIM;
    float most = splits == 1 && sink ? constant(sink + h) : lowest(), sum = 0.0f, y = 0.0f;
    for (int w = 0; w < K_WARPS; w++) most = most < s.most[w][h] ? s.most[w][h] : most;
    for (int w = 0; w < K_WARPS; w++) {
      float weight = share(s.most[w][h], most);
      sum = fmaf(weight, s.sum[w][h], sum), y = fmaf(weight, s.out[w][h][d], y);
    }
    if (splits == 1) {
      if (sink) sum += expf(constant(sink + h) - most);
      if (d < K_V_DIM) a.out.row(row)[(head + h) * K_V_DIM + d] = y / sum;
    } else {
      float* part = a.partial + (first_part + (u64)h * splits + split) * (2 + V_DIM);
      if (d == 0) part[0] = most, part[1] = sum;
      part[2 + d] = y;
    }
  }
  if (splits == 1) return;
  // The block that comes last joins.
  __threadfence();
  __syncthreads();
  u32* tickets = a.tickets + (u64)row * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) s.ticket = ticket(tickets);
  __syncthreads();
  if (s.ticket != (u32)splits - 1) return;
  __threadfence();
  join(a, a.partial + first_part * (2 + V_DIM), a.out.row(row) + head * K_V_DIM, sink, splits);
  if (threadIdx.x == 0) *tickets = 0;
}
