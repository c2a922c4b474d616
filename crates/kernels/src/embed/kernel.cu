// out = scale * table[token]. Macros: K_FORMAT, K_COLS.

struct EmbedArgs {
  const Step* step;
  Matrix table;
  Rows out;
  float scale;
};

KERNEL(embed, EmbedArgs, 256) {
  begin();
  int row = blockIdx.y, col = blockIdx.x * 256 + threadIdx.x;
  if (row >= a.step->rows || col >= K_COLS) return;
  float w = K_FORMAT::weight(a.table.codes, a.table.scales, a.table.biases, a.step->row[row].token, K_COLS, col);
  a.out.row(row)[col] = a.scale * w;
}
