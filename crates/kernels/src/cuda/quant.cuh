// Stored numbers: codes to bf16 without rounding, scales to f32. See quant/mod.rs for what the formats mean.

DEVICE constexpr int max_of(int a, int b) { return a > b ? a : b; }
DEVICE constexpr int min_of(int a, int b) { return a < b ? a : b; }

enum Kind { DENSE_BF16, DENSE_F16, DENSE_F32, AFFINE, MXFP4, MXFP8, NVFP4 };
enum Scale { SCALE_F32, SCALE_F16, SCALE_BF16, SCALE_E8M0, SCALE_E4M3 };

// x = first + second + third, bf16 each, exactly: cutting off is exact, and three times eight bits are all
// there are.
struct Parts {
  u32 bits[3];
};
DEVICE Parts parts_of(float x) {
  Parts p;
  p.bits[0] = __float_as_uint(x) & 0xffff0000u;
  float rest = x - __uint_as_float(p.bits[0]);
  p.bits[1] = __float_as_uint(rest) & 0xffff0000u;
  p.bits[2] = __float_as_uint(rest - __uint_as_float(p.bits[1]));
  return p;
}
// The upper halves of two words side by side.
DEVICE u32 upper_halves(u32 low, u32 high) { return __byte_perm(low, high, 0x7632); }

// A format. A lane reads COLS_PER_LANE consecutive columns of a row at a time, as words, and makes of them
// pairs of bf16; pair i holds columns low(i) and high(i) of those. Dense f16 and f32 do not fit one bf16:
// they have several PARTS.
template <int KIND_, int BITS_, int GROUP_, int SCALE_> struct Format {
  static constexpr int KIND = KIND_, BITS = BITS_, GROUP = GROUP_, SCALE = SCALE_;
  static constexpr bool QUANTISED = KIND >= AFFINE, BIASED = KIND == AFFINE;
  static constexpr int PARTS = KIND == DENSE_F32 ? 3 : KIND == DENSE_F16 ? 2 : 1;
  static constexpr int SCALE_BYTES = SCALE == SCALE_F32 ? 4 : SCALE >= SCALE_E8M0 ? 1 : 2;
  static constexpr bool FLOAT4 = KIND == MXFP4 || KIND == NVFP4;
  static constexpr bool NIBBLES = FLOAT4 || (KIND == AFFINE && BITS == 4);
  static constexpr bool BYTES = KIND == MXFP8;
  static constexpr bool TWOS = KIND == AFFINE && BITS == 2;

  static DEVICE constexpr int low(int i) {
    return NIBBLES ? i / 4 * 8 + i % 4 : BYTES ? i / 2 * 4 + i % 2 : TWOS ? i / 8 * 16 + i % 8 : 2 * i;
  }
  static DEVICE constexpr int high(int i) { return low(i) + (NIBBLES ? 4 : BYTES ? 2 : TWOS ? 8 : 1); }

  static constexpr u32 MASK = BITS < 32 ? (1u << BITS % 32) - 1 : ~0u;

  static DEVICE u32 code(const u32* words, int j) {
    int bit = j * BITS, w = bit / 32, shift = bit % 32;
    u32 v = words[w] >> shift;
    if (shift + BITS > 32) v |= words[w + 1] << (32 - shift);
    return v & MASK;
  }
  static DEVICE float element(const u32* words, int j) { // dense, one of a pair
    return KIND == DENSE_F32 ? __uint_as_float(words[j]) : f16_to_f32((u16)(words[j / 2] >> 16 * (j % 2)));
  }
  // Pair i of the words; i and part are constants where this is inlined.
  static DEVICE u32 pair(const u32* words, int i, int part) {
    constexpr u32 OFFSET = 0x43004300u, MINUS = 0xc300c300u, ONE = 0x3f803f80u,
                  NOTHING = 0x80008000u; // 128, -128, 1, -0
    if (KIND == DENSE_BF16) return words[i];
    if (!QUANTISED) {
      Parts a = parts_of(element(words, 2 * i)), b = parts_of(element(words, 2 * i + 1));
      return upper_halves(a.bits[part], b.bits[part]);
    }
    if (FLOAT4) {
      u32 t = words[i / 4] >> 4 * (i % 4);
      return fma_bf16x2((t & 0x00070007u) << 6 | (t & 0x00080008u) << 12, 0x7e807e80u,
                        NOTHING); // times 2^126
    }
    if (BYTES) {
      u32 t = words[i / 2] >> 8 * (i % 2);
      return fma_bf16x2((t & 0x007f007fu) << 4 | (t & 0x00800080u) << 8, 0x7b807b80u, NOTHING); // times 2^120
    }
    if (NIBBLES) return fma_bf16x2(masked(words[i / 4] >> 4 * (i % 4), 0x000f000fu, OFFSET), ONE, MINUS);
    if (TWOS) return fma_bf16x2(masked(words[i / 8] >> 2 * (i % 8), 0x00030003u, OFFSET), ONE, MINUS);
    if (BITS == 8) { // 256 has no bf16 with an offset: by way of f32, 2^23 + code
      u32 w = words[i / 2];
      float a = __uint_as_float(__byte_perm(w, 0x4b000000u, i % 2 ? 0x7542 : 0x7540)) - 8388608.0f;
      float b = __uint_as_float(__byte_perm(w, 0x4b000000u, i % 2 ? 0x7543 : 0x7541)) - 8388608.0f;
      return upper_halves(__float_as_uint(a), __float_as_uint(b));
    }
    return fma_bf16x2(code(words, 2 * i) | code(words, 2 * i + 1) << 16 | OFFSET, ONE, MINUS);
  }

  // The same of codes as f16, exact as well.
  static DEVICE u32 half_pair(const u32* words, int i) {
    constexpr u32 OFFSET = 0x64006400u, MINUS = 0xe400e400u, ONE = 0x3c003c00u,
                  NOTHING = 0x80008000u; // 1024, -1024, 1, -0
    if (FLOAT4) {
      u32 t = words[i / 4] >> 4 * (i % 4);
      return fma_f16x2((t & 0x00070007u) << 9 | (t & 0x00080008u) << 12, 0x74007400u, NOTHING); // times 2^14
    }
    if (BYTES) {
      u32 t = words[i / 2] >> 8 * (i % 2);
      return fma_f16x2((t & 0x007f007fu) << 7 | (t & 0x00800080u) << 8, 0x5c005c00u, NOTHING); // times 2^8
    }
    // The upper of two nibbles stays where it is, sixteen times its value: 1024 + 16 code, a sixteenth, - 64.
    if (NIBBLES && i % 2)
      return fma_f16x2(masked(words[i / 4] >> i % 4 / 2 * 8, 0x00f000f0u, OFFSET), 0x2c002c00u, 0xd400d400u);
    if (NIBBLES) return fma_f16x2(masked(words[i / 4] >> i % 4 / 2 * 8, 0x000f000fu, OFFSET), ONE, MINUS);
    if (TWOS) return fma_f16x2(masked(words[i / 8] >> 2 * (i % 8), 0x00030003u, OFFSET), ONE, MINUS);
    u32 codes;
    if (BITS == 8) codes = __byte_perm(words[i / 2], 0, i % 2 ? 0x4342 : 0x4140);
    else codes = code(words, 2 * i) | code(words, 2 * i + 1) << 16;
    return fma_f16x2(codes | OFFSET, ONE, MINUS);
  }

  // The same without arithmetic: f16 that are the codes times 2^(lift(i) - DOWN), subnormal ones where codes
  // are integers.
  static constexpr int DOWN = FLOAT4 ? 14 : BYTES ? 8 : 24;
  static DEVICE constexpr int lift(int i) { return FLOAT4 ? 0 : NIBBLES ? i % 2 * 4 : TWOS ? i % 4 * 2 : 0; }
  static DEVICE u32 small_pair(const u32* words, int i) {
    if (FLOAT4) {
      u32 t = words[i / 4] >> 4 * (i % 4);
      return (t & 0x00070007u) << 9 | (t & 0x00080008u) << 12;
    }
    if (BYTES) {
      u32 t = words[i / 2] >> 8 * (i % 2);
      return (t & 0x007f007fu) << 7 | (t & 0x00800080u) << 8;
    }
    if (NIBBLES) return words[i / 4] >> i % 4 / 2 * 8 & 0x000f000fu << lift(i);
    if (TWOS) return words[i / 8] >> i % 8 / 4 * 8 & 0x00030003u << lift(i);
    if (BITS == 8) return __byte_perm(words[i / 2], 0, i % 2 ? 0x4342 : 0x4140);
    return code(words, 2 * i) | code(words, 2 * i + 1) << 16;
  }

  // Scale or bias number `i`, as stored, and its value.
  static DEVICE u32 stored(const void* scales, u64 i) {
    if (SCALE_BYTES == 4) return constant((const u32*)scales + i);
    if (SCALE_BYTES == 2) return constant((const u16*)scales + i);
    return constant((const u8*)scales + i);
  }
  static DEVICE float value(u32 stored) {
    if (SCALE == SCALE_F32) return __uint_as_float(stored);
    if (SCALE == SCALE_F16) return f16_to_f32((u16)stored);
    if (SCALE == SCALE_BF16) return bf16_to_f32(stored);
    if (SCALE == SCALE_E8M0) return __uint_as_float(stored ? stored << 23 : 0x00400000u);
    return __uint_as_float((stored & 0x7f) << 20 | (stored & 0x80) << 24) * 1.329227995784916e36f; // 2^120
  }
  // One weight, for ops that read single rows; the order of columns is the file's.
  static DEVICE float weight(const void* codes, const void* scales, const void* biases, u64 row, int cols,
                             int col) {
    if (KIND == DENSE_BF16) return bf16_to_f32(constant((const u16*)codes + row * cols + col));
    if (KIND == DENSE_F16) return f16_to_f32(constant((const u16*)codes + row * cols + col));
    if (KIND == DENSE_F32) return constant((const float*)codes + row * cols + col);
    const u8* bytes = (const u8*)codes + row * ((u64)cols * BITS / 8);
    int bit = col * BITS;
    u32 v = constant(bytes + bit / 8);
    if (bit % 8 + BITS > 8) v |= (u32)constant(bytes + bit / 8 + 1) << 8;
    v = v >> bit % 8 & MASK;
    u64 group = row * (cols / GROUP) + col / GROUP;
    float scale = value(stored(scales, group));
    if (FLOAT4)
      return __uint_as_float((v & 7) << 22 | (v & 8) << 28) * 8.507059173023462e37f * scale; // 2^126
    if (BYTES) return __uint_as_float((v & 0x7f) << 20 | (v & 0x80) << 24) * 1.329227995784916e36f * scale;
    return fmaf(scale, (float)v, value(stored(biases, group)));
  }
};

// Where a matrix lies.
struct Matrix {
  const u8 *codes, *scales, *biases;
};
// Matrix number i of a stack: they follow each other in memory.
template <class F> DEVICE Matrix matrix_of(const Matrix& first, u64 i, u64 rows, u64 cols) {
  u64 scales = F::QUANTISED ? rows * (cols / F::GROUP) * F::SCALE_BYTES : 0;
  return {first.codes + i * rows * (cols * F::BITS / 8), first.scales + i * scales,
          first.biases + (F::BIASED ? i * scales : 0)};
}
