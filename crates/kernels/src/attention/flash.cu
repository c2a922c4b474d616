// Macros: K_HALF, K_DIM, K_V_DIM, K_HEADS, K_WARPS, K_WARPS_V.

typedef Flash<CacheShape<K_HALF, K_DIM, K_V_DIM>, K_HEADS, K_WARPS, K_WARPS_V> F;

KERNEL(flash, F::Args, F::THREADS) {
  DYNAMIC_SHARED(F::Shared, shared);
  F::run(a, THIS_BLOCK, *shared);
}
