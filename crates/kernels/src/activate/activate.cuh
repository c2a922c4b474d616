// Activations of one element; `limit` and `alpha` as in the plan.

enum Activation { SWIGLU, GEGLU, CLAMPED_SWIGLU, LIMITED_SWIGLU, SIGMOID, PRODUCT, RELU2, GELU, SILU };

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DEVICE float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608f * fmaf(0.044715f * x * x, x, x)));
}
// NaN stays NaN, unlike with fminf and fmaxf.
DEVICE float at_most(float x, float limit) { return x > limit ? limit : x; }
DEVICE float at_least(float x, float limit) { return x < limit ? limit : x; }
DEVICE float within(float x, float limit) { return at_least(at_most(x, limit), -limit); }

DEVICE float activation(int kind, float gate, float up, float limit, float alpha) {
  switch (kind) {
    case SWIGLU: return gate * sigmoid(gate) * up;
    case GEGLU: return gelu_tanh(gate) * up;
    case CLAMPED_SWIGLU: {
      float g = at_most(gate, limit);
      return (within(up, limit) + 1.0f) * g * sigmoid(alpha * g);
    }
    case LIMITED_SWIGLU: return at_most(gate * sigmoid(gate), limit) * within(up, limit);
    case SIGMOID: return sigmoid(gate) * up;
    case PRODUCT: return gate * up;
    case RELU2: up = at_least(up, 0.0f); return up * up;
    case GELU: return gelu_tanh(up);
    default: return up * sigmoid(up);
  }
}
