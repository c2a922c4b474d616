// Force-included into llama.cpp when gcc is older than 12.4 / 13.3 and the CPU has AMX. Those compilers'
// _tile_loadconfig names 8 of the 64 bytes it reads as input, so stores to the rest are dropped and the first
// batch beyond one token crashes. This one names all 64.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#ifdef __AMX_TILE__
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
#endif
