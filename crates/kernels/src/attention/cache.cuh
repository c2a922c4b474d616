// Where keys and values lie.
//
// Per sequence and key head: keys of 32 positions side by side, [position / 32][dim / Q][32][Q], Q elements
// making 16 bytes, so that a lane reads the key of a position of its own and a warp reads whole lines; values
// position by position. Widths are filled up to multiples of 8.

// How elements are stored.
template <bool HALF> struct Stored;
template <> struct Stored<true> {
  typedef u16 Element;
  static DEVICE Element to_element(float x) { return f32_to_f16(x); }
  static DEVICE void from_elements(uint4 v, float (&x)[8]) {
    u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = f16_to_f32((u16)(w[i / 2] >> 16 * (i % 2)));
  }
  static DEVICE void from_elements(uint2 v, float (&x)[4]) {
    x[0] = f16_to_f32((u16)v.x), x[1] = f16_to_f32((u16)(v.x >> 16)), x[2] = f16_to_f32((u16)v.y),
    x[3] = f16_to_f32((u16)(v.y >> 16));
  }
};
template <> struct Stored<false> {
  typedef float Element;
  static DEVICE Element to_element(float x) { return x; }
  static DEVICE void from_elements(uint4 v, float (&x)[4]) {
    x[0] = __uint_as_float(v.x), x[1] = __uint_as_float(v.y), x[2] = __uint_as_float(v.z),
    x[3] = __uint_as_float(v.w);
  }
};

// HALF: stored as f16. K_WIDTH, V_WIDTH: of a head's key and value.
template <bool HALF_, int K_WIDTH_, int V_WIDTH_> struct CacheShape : Stored<HALF_> {
  static constexpr bool HALF = HALF_;
  static constexpr int K_WIDTH = K_WIDTH_, V_WIDTH = V_WIDTH_;
  typedef typename Stored<HALF>::Element Element;
  static constexpr int Q = 16 / sizeof(Element), DIM = (K_WIDTH + 7) / 8 * 8, V_DIM = (V_WIDTH + 7) / 8 * 8;
  static constexpr int WIDE = DIM > V_DIM ? DIM : V_DIM;

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
};

DEVICE float lowest() { return -(float)infinite(); }
DEVICE float share(float most, float all) { return most == lowest() ? 0.0f : expf(most - all); }
