// Where keys and values lie. Macros: K_HALF (stored as f16), K_DIM, K_V_DIM; they stand before this text.
//
// Per sequence and key head: keys of 32 positions side by side, [position / 32][dim / Q][32][Q], Q elements making 16 bytes, so
// that a lane reads the key of a position of its own and a warp reads whole lines; values position by position. Widths are
// filled up to multiples of 8.

#if K_HALF
typedef u16 Element;
DEVICE Element to_element(float x) { return f32_to_f16(x); }
DEVICE void from_elements(uint4 v, float (&x)[8]) {
  u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] = f16_to_f32((u16)(w[i / 2] >> 16 * (i % 2)));
}
DEVICE void from_elements(uint2 v, float (&x)[4]) {
  x[0] = f16_to_f32((u16)v.x), x[1] = f16_to_f32((u16)(v.x >> 16)), x[2] = f16_to_f32((u16)v.y), x[3] = f16_to_f32((u16)(v.y >> 16));
}
#else
typedef float Element;
DEVICE Element to_element(float x) { return x; }
DEVICE void from_elements(uint4 v, float (&x)[4]) {
  x[0] = __uint_as_float(v.x), x[1] = __uint_as_float(v.y), x[2] = __uint_as_float(v.z), x[3] = __uint_as_float(v.w);
}
#endif
constexpr int Q = 16 / sizeof(Element), DIM = (K_DIM + 7) / 8 * 8, V_DIM = (K_V_DIM + 7) / 8 * 8;

struct Cache {
  Element *keys, *values;
  u32 kv_heads, context; // a multiple of 32
  DEVICE Element* key_block(u32 slot, u32 head, u32 position) const {
    return keys + ((u64)(slot * kv_heads + head) * context + position / 32 * 32) * DIM;
  }
  DEVICE Element* key_element(u32 slot, u32 head, u32 position, u32 d) const {
    return key_block(slot, head, position) + (d / Q * 32 + position % 32) * Q + d % Q;
  }
  DEVICE Element* value(u32 slot, u32 head, u32 position) const {
    return values + ((u64)(slot * kv_heads + head) * context + position) * V_DIM;
  }
};

DEVICE float lowest() { return -(float)infinite(); }
DEVICE float share(float most, float all) { return most == lowest() ? 0.0f : expf(most - all); }
