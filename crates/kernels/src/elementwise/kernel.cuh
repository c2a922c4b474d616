// The elementwise ops, copies among them: a thread per element, a line of blocks per row.
struct Elementwise {
  static constexpr int THREADS = 256;
};

struct AddArgs {
  const int* count;
  Rows x, y;
  u32 width;
  float scale;
};
struct Add : Elementwise {
  template <class Block> static DEVICE void run(const AddArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if (row < *a.count && i < (int)a.width) a.x.row(row)[i] = fmaf(a.scale, a.y.row(row)[i], a.x.row(row)[i]);
  }
};

struct ScaleArgs {
  const int* count;
  Rows x;
  const float* by;
  u32 width;
  float factor, softcap;
};
struct Scale : Elementwise {
  template <class Block> static DEVICE void run(const ScaleArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if (row >= *a.count || i >= (int)a.width) return;
    float* x = a.x.row(row) + i;
    float y = *x * (a.by ? (float)((double)a.factor * *a.by) : a.factor);
    *x = a.softcap > 0.0f ? a.softcap * tanhf(y / a.softcap) : y;
  }
};

struct HeadGateArgs {
  const int* count;
  Rows gate, x;
  u32 kind, heads, width;
};
struct HeadGate : Elementwise {
  template <class Block> static DEVICE void run(const HeadGateArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if ((row >= *a.count) | (i >= (int)(a.heads * a.width))) return;
    double g = a.gate.row(row)[i / a.width];
    if (a.kind == 1) g = 1.0 / (1.0 + exp(-g));
    if (a.kind == 2) g = g > 0.0 ? g + log1p(exp(-g)) : log1p(exp(g));
    a.x.row(row)[i] *= (float)g;
  }
};

struct TemperatureArgs {
  const int* count;
  const Step* step;
  Rows x;
  u32 width;
  float scale, period, shift;
};
struct Temperature : Elementwise {
  template <class Block> static DEVICE void run(const TemperatureArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if (row >= *a.count || i >= (int)a.width) return;
    double periods = floor(((double)a.step->row[row].position + a.shift) / a.period);
    a.x.row(row)[i] *= (float)(1.0 + a.scale * log1p(periods));
  }
};

// Of head h, `len` elements from first + h * stride on.
struct CopyArgs {
  const int* count;
  Rows x, out;
  u32 x_first, x_stride, out_first, out_stride, heads, len;
};
struct Copy : Elementwise {
  template <class Block> static DEVICE void run(const CopyArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if ((row >= *a.count) | (i >= (int)(a.heads * a.len))) return;
    int h = i / a.len, e = i % a.len;
    a.out.row(row)[a.out_first + h * a.out_stride + e] = a.x.row(row)[a.x_first + h * a.x_stride + e];
  }
};

// Row n becomes the row whose logits are the n-th asked for, which never stands before it.
struct CompactArgs {
  const Step* step;
  Rows x;
  u32 width, unused;
};
struct Compact : Elementwise {
  template <class Block> static DEVICE void run(const CompactArgs& a, Block block) {
    block.wait_for_inputs();
    int i = block.x() * THREADS + threadIdx.x;
    if (i >= (int)a.width) return;
    for (int n = 0; n < a.step->wanted; n++) a.x.row(n)[i] = a.x.row(a.step->row[n].source)[i];
  }
};

struct ActivateArgs {
  const int* count;
  Rows gate, up, out;
  u32 kind, width;
  float limit, alpha;
};
struct Activate : Elementwise {
  template <class Block> static DEVICE void run(const ActivateArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), i = block.x() * THREADS + threadIdx.x;
    if (row >= *a.count || i >= (int)a.width) return;
    float gate = a.gate.x ? a.gate.row(row)[i] : 0.0f;
    a.out.row(row)[i] = activation(a.kind, gate, a.up.row(row)[i], a.limit, a.alpha);
  }
};
