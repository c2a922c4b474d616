KERNEL(norm_rows, NormArgs, NormRows::THREADS) {
  SHARED(NormShared, s);
  NormRows::run(a, THIS_BLOCK, s);
}
KERNEL(norm_heads, NormArgs, NormHeads::THREADS) {
  SHARED(NormShared, s);
  NormHeads::run(a, THIS_BLOCK, s);
}
