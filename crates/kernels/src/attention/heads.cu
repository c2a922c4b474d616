// Macros: K_HALF, K_DIM, K_V_DIM.

typedef CacheShape<K_HALF, K_DIM, K_V_DIM> Shape;

KERNEL(kv_append, KvAppend<Shape>::Args, KvAppend<Shape>::THREADS) { KvAppend<Shape>::run(a, THIS_BLOCK); }
KERNEL(heads, PrepareHeads<Shape>::Args, PrepareHeads<Shape>::THREADS) {
  DYNAMIC_SHARED(float, memory);
  PrepareHeads<Shape>::run(a, THIS_BLOCK, memory);
}
