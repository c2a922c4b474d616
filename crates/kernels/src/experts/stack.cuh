// What both ways through the experts share, that for few rows and that for many.

// Matrices of all experts, one after another.
struct Stack {
  Matrix first;
  const float* bias; // [experts, outputs] or null
};

// Where the gate comes from: nowhere, another matrix of the format of up, or inner channels that a launch
// before has written.
enum Gate { NO_GATE, GATE_BESIDE, GATE_BEFORE };
constexpr int RAW = -1; // no activation
