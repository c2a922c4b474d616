// What both ways through the experts share, that for few rows and that for many.

// Matrices of all experts, one after another.
struct Stack {
  Matrix first;
  const float* bias; // [experts, outputs] or null
};

// Where the gate comes from: nowhere; a product in the launch of up, its matrix in the same format; inner
// channels that an earlier launch has written.
enum Gate { NO_GATE, GATE_JOINED, GATE_BEFORE };
constexpr int RAW = -1; // no activation
