// Sine and cosine of the angle of a pair at a position, in f64, as turns, so that long contexts lose nothing.
DEVICE void turn(u32 position, double turns, float amplitude, float& sine, float& cosine) {
  double angle = position * turns, s, c;
  sincospi(2.0 * (angle - rint(angle)), &s, &c);
  sine = (float)(s * amplitude), cosine = (float)(c * amplitude);
}
