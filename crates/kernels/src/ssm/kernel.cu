// Macros: K_STATE, K_LANES, K_PER_STATE.

typedef Ssm<K_STATE, K_LANES, K_PER_STATE> Shape;

KERNEL(ssm, SsmArgs, Shape::THREADS) { Shape::run(a, THIS_BLOCK); }
