// Macros: K_FORMAT, K_COLS.

typedef Embed<K_FORMAT, K_COLS> Shape;

KERNEL(embed, EmbedArgs, Shape::THREADS) { Shape::run(a, THIS_BLOCK); }
