//! Every operation of every instruction set against [`Scalar`], bit by bit, on odd values too.

use super::*;
use crate::testing::Rng;

/// Values at which instruction sets differ: zeros, ties, subnormals, extremes, what is not finite.
const ODD: [f32; 22] = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.499_999_97,
    8_388_607.5,
    -8_388_607.5,
    16_777_216.0,
    3.0e9,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE / 2.0,
    1.0e-45,
    f32::MAX,
    f32::MIN,
    f32::EPSILON,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -f32::NAN,
];

/// Shifts and masks of the formats, and some that are odd.
const FIELDS: [(u32, u32); 8] =
    [(0, 15), (4, 15), (28, 15), (3, 0x1f), (0, 0xff), (24, 0xff), (31, 1), (8, 0xff_ffff)];

fn floats(rng: &mut Rng) -> [f32; LANES] {
    std::array::from_fn(|_| match rng.below(3) {
        0 => ODD[rng.below(ODD.len())],
        1 => rng.uniform() * 100.0,
        _ => f32::from_bits(rng.next_u64() as u32),
    })
}

fn noise<const N: usize>(rng: &mut Rng) -> [u8; N] {
    // One time in eight all bits of a byte are set: the largest codes.
    std::array::from_fn(|_| if rng.below(8) == 0 { 0xff } else { rng.next_u64() as u8 })
}

/// Two sets side by side.
struct Pair<S: Simd> {
    simd: S,
    name: &'static str,
}

impl<S: Simd> Pair<S> {
    fn floats(&self, what: &str, v: S::F, expected: [f32; LANES]) {
        let mut found = [0.0; LANES];
        self.simd.store(v, &mut found);
        // Which NaN comes out is the machine's choice.
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let all = found.iter().zip(&expected).all(same);
        assert!(all, "{} {what}:\n{found:?}\n{expected:?}", self.name);
    }

    fn words(&self, what: &str, v: S::U, expected: [u32; LANES]) {
        let (mut found, mut bytes) = ([0; 64], [0; 64]);
        self.simd.store_u(v, &mut found);
        Scalar.store_u(expected, &mut bytes);
        assert_eq!(found, bytes, "{} {what}", self.name);
    }

    fn arithmetic(&self, rng: &mut Rng) {
        let (s, [a, b, c]) = (self.simd, std::array::from_fn(|_| floats(rng)));
        let [x, y, z] = [a, b, c].map(|v| s.load(&v));
        self.floats("splat", s.splat(a[0]), Scalar.splat(a[0]));
        self.floats("add", s.add(x, y), Scalar.add(a, b));
        self.floats("sub", s.sub(x, y), Scalar.sub(a, b));
        self.floats("mul", s.mul(x, y), Scalar.mul(a, b));
        self.floats("div", s.div(x, y), Scalar.div(a, b));
        self.floats("fma", s.fma(x, y, z), Scalar.fma(a, b, c));
        self.floats("min", s.min(x, y), Scalar.min(a, b));
        self.floats("max", s.max(x, y), Scalar.max(a, b));
        self.floats("round", s.round(x), Scalar.round(a));
        let n = std::array::from_fn(|_| rng.below(254) as f32 - 126.0);
        self.floats("exp2_integer", s.exp2_integer(s.load(&n)), Scalar.exp2_integer(n));
    }

    fn codes(&self, rng: &mut Rng) {
        let (s, a, b) = (self.simd, noise(rng), noise(rng));
        let (x, y) = (s.words(&a), s.words(&b));
        let (a, b) = (Scalar.words(&a), Scalar.words(&b));
        self.words("words", x, a);
        for (shift, mask) in FIELDS {
            self.floats("field", s.field(x, shift, mask), Scalar.field(a, shift, mask));
        }
        let low = (5, 7);
        let (u, v) = (s.field2((x, 28, 15), (y, low.0, low.1), 4), Scalar.field2((a, 28, 15), (b, 5, 7), 4));
        self.floats("field2", u, v);
        for (shift, mask) in [(0, 15), (4, 15), (0, 3), (6, 3), (7, 1), (0, 0xff)] {
            let (u, v) = (s.bytes_field(x, shift, mask), Scalar.bytes_field(a, shift, mask));
            self.words("bytes_field", u, v);
        }
        let (low, high) = (s.bytes_field(x, 4, 15), s.bytes_field(y, 6, 3));
        let (l, h) = (Scalar.bytes_field(a, 4, 15), Scalar.bytes_field(b, 6, 3));
        self.words("bytes_join", s.bytes_join(low, high, 4), Scalar.bytes_join(l, h, 4));
        self.words("bytes_e2m1", s.bytes_e2m1(low), Scalar.bytes_e2m1(l));
        for shift in 0..8 {
            self.floats("e2m1", s.e2m1(x, 4 * shift), Scalar.e2m1(a, 4 * shift));
            self.floats("e4m3", s.e4m3(x, 8 * (shift % 4)), Scalar.e4m3(a, 8 * (shift % 4)));
        }
    }

    fn stored(&self, rng: &mut Rng) {
        let s = self.simd;
        let (bytes, halves) = (noise(rng), noise(rng));
        let exponents = bytes.map(|x: u8| x.min(254));
        self.words("bytes", s.bytes(&bytes), Scalar.bytes(&bytes));
        self.floats("e8m0", s.e8m0(s.bytes(&exponents)), Scalar.e8m0(Scalar.bytes(&exponents)));
        self.floats("bf16", s.bf16(&halves), Scalar.bf16(&halves));
        self.floats("f16", s.f16(&halves), Scalar.f16(&halves));
        s.prefetch(&halves, 4096);
    }

    fn ints(&self, what: &str, v: S::I, expected: [i32; LANES]) {
        // As f32 by halves, which together hold every bit.
        self.floats(what, self.simd.float(v), Scalar.float(expected));
        let (low, l) = (self.simd.shift_left::<16>(v), expected.map(|e| e << 16));
        self.floats(what, self.simd.float(low), Scalar.float(l));
    }

    fn digits(&self, rng: &mut Rng) {
        let s = self.simd;
        let whole = std::array::from_fn(|_| rng.uniform() * [0.99, 100.0, 16_777_215.0][rng.below(3)]);
        let ties = whole.map(|x: f32| (x / 2.0).round() + 0.5);
        self.ints("to_int", s.to_int(s.load(&whole)), Scalar.to_int(whole));
        self.ints("to_int of ties", s.to_int(s.load(&ties)), Scalar.to_int(ties));
        let a = std::array::from_fn(|_| rng.next_u64() as i32 >> rng.below(32));
        let x = s.load_i(&a);
        self.ints("load_i", x, a);
        let (low, l) = (s.low_digit(x), Scalar.low_digit(a));
        self.ints("low_digit", low, l);
        self.ints("next_digits", s.next_digits(x, low), Scalar.next_digits(a, l));
        assert_eq!(s.narrow(x), Scalar.narrow(a), "{} narrow", self.name);
        assert_eq!(s.sum_i(x), Scalar.sum_i(a), "{} sum_i", self.name);
    }

    fn products(&self, rng: &mut Rng) {
        let (s, codes) = (self.simd, noise(rng));
        let (u, a) = (s.words(&codes), Scalar.words(&codes));
        let start = rng.next_u64() as i32 / 2;
        let edge = i32::from_le_bytes([0x80, 0x7f, 0xff, 0x80]);
        for x in [rng.next_u64() as i32, edge, i32::from_le_bytes([0x80; 4]), i32::from_le_bytes([0x7f; 4])] {
            let (dot, d) = (s.dot4(s.splat_i(start), u, x), Scalar.dot4(Scalar.splat_i(start), a, x));
            self.ints("dot4", dot, d);
            let (dot, d) = (s.dot4(s.splat_i(0), u, x), Scalar.dot4(Scalar.splat_i(0), a, x));
            self.ints("dot4 of zero", dot, d);
            let wide: [i32; LANES] = std::array::from_fn(|_| rng.next_u64() as i32);
            self.floats("load_i", s.float(s.load_i(&wide)), Scalar.float(wide));
            self.ints("add_i", s.add_i(dot, dot), Scalar.add_i(d, d));
            let (left, l) = (s.shift_left::<8>(dot), Scalar.shift_left::<8>(d));
            self.floats("shift_left", s.float(left), Scalar.float(l));
        }
        let wide = s.add_i(s.splat_i(i32::MAX), s.splat_i(start));
        self.floats("wrap", s.float(wide), Scalar.float([i32::MAX.wrapping_add(start); LANES]));
    }
}

fn check<S: Simd>(simd: Option<S>, name: &'static str) {
    let Some(simd) = simd else { return println!("{name}: not on this machine") };
    let (pair, mut rng) = (Pair { simd, name }, Rng(1));
    for _ in 0..2000 {
        pair.arithmetic(&mut rng);
        pair.codes(&mut rng);
        pair.stored(&mut rng);
        pair.products(&mut rng);
        pair.digits(&mut rng);
    }
}

#[test]
fn every_operation_gives_the_bits_of_plain_rust() {
    check(Some(Scalar), "scalar");
    #[cfg(target_arch = "x86_64")]
    {
        check(Avx2::detect(), "avx2");
        check(Avx512::detect(), "avx512");
    }
    #[cfg(target_arch = "aarch64")]
    {
        check(Neon::<Pairs>::detect(), "neon");
        check(Neon::<Sdot>::detect(), "neon sdot");
        check(Neon::<Usdot>::detect(), "neon usdot");
    }
}
