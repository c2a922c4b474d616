// Macros: K_HALF, K_DIM, K_V_DIM, K_HEADS, K_SPLITS.

typedef CacheShape<K_HALF, K_DIM, K_V_DIM> Shape;
typedef Attention<Shape, K_HEADS, K_SPLITS> A;
typedef AttentionOfOne<Shape, K_HEADS, K_SPLITS> One;

KERNEL(attention, A::Args, A::THREADS) {
  DYNAMIC_SHARED(A::Shared, shared);
  A::run(a, THIS_BLOCK, *shared);
}
#if K_DIM <= 256 && K_V_DIM <= 256 // wider ones take two launches
KERNEL(attention_one, One::Args, One::THREADS) {
  DYNAMIC_SHARED(One::Shared, shared);
  One::run(a, THIS_BLOCK, shared);
}
#endif
