// out = scale * table[token].

struct EmbedArgs {
  const Step* step;
  Matrix table;
  Rows out;
  float scale;
};

// F: format of the table. COLS: its width.
template <class F, int COLS> struct Embed {
  static constexpr int THREADS = 256;

  template <class Block> static DEVICE void run(const EmbedArgs& a, Block block) {
    block.wait_for_inputs();
    int row = block.y(), col = block.x() * THREADS + threadIdx.x;
    if (row >= a.step->rows || col >= COLS) return;
    float w = F::weight(a.table.codes, a.table.scales, a.table.biases, a.step->row[row].token, COLS, col);
    a.out.row(row)[col] = a.scale * w;
  }
};
