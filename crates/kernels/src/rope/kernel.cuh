// Rotary embedding in place; angles in f64, as turns, so that long contexts lose nothing.

struct RopeArgs {
  const int* count;
  const Step* step;
  Rows x;
  const double* turns; // per position, of each pair
  u32 heads, head_dim, first, half, interleaved;
  float amplitude;
};

struct RotateHeads {
  static constexpr int THREADS = 128;

  template <class Block> static DEVICE void run(const RopeArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if ((row >= *a.count) | (i >= (int)(a.heads * a.half))) return;
    int head = i / a.half, pair = i % a.half;
    float sine, cosine;
    turn(a.step->row[row].position, constant(a.turns + pair), a.amplitude, sine, cosine);
    float* x = a.x.row(row) + head * a.head_dim + a.first;
    float *low = a.interleaved ? x + 2 * pair : x + pair, *high = a.interleaved ? low + 1 : low + a.half;
    float l = *low, h = *high;
    *low = l * cosine - h * sine, *high = h * cosine + l * sine;
  }
};
