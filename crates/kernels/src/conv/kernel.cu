// Macros: K_TAPS.

typedef Conv<K_TAPS> Shape;

KERNEL(conv, ConvArgs, Shape::THREADS) { Shape::run(a, THIS_BLOCK); }
