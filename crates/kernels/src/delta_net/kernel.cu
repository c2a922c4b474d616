// Macros: K_DIM, K_V_DIM, K_PER_CHANNEL, K_WARPS, K_HELD.

typedef DeltaNet<K_DIM, K_V_DIM, K_PER_CHANNEL, K_WARPS, K_HELD> Shape;

KERNEL(delta_net, DeltaNetArgs, Shape::THREADS) { Shape::run(a, THIS_BLOCK); }
