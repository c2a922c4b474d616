// One of the products that share a launch, for few rows and for many: y = W x + bias.
struct Product {
  Matrix matrix;
  const float* bias; // or null
  Rows out, add;     // add: null, or what `factor` times the result is added to as well
  u32 rows, first;   // outputs; number of the first tile
  float factor;
  u32 unused;
};
