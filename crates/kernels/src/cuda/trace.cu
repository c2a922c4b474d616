// What a trace needs in addition to the stamps that kernels leave.

struct ResetArgs {
  Stamp* stamps;
  u64 count;
};

// The first stamp is the time of this launch, the others are cleared.
KERNEL(trace_reset, ResetArgs, 256) {
  begin();
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x, at = now();
  if (i >= a.count) return;
  a.stamps[i].start = i ? ~0ull : at, a.stamps[i].end = i ? 0 : at;
}

struct TickArgs {
  u64* tick;
};

// The least difference between readings of the clock; 0 if it stands still.
KERNEL(trace_tick, TickArgs, 32) {
  begin();
  if (threadIdx.x) return;
  u64 last = now(), least = ~0ull;
  for (int changes = 0, reads = 0; changes < 64 && reads < 1 << 20; reads++) {
    u64 at = now();
    if (at != last) least = min(least, at - last), last = at, changes++;
  }
  *a.tick = least == ~0ull ? 0 : least;
}
