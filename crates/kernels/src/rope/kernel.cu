KERNEL(rope, RopeArgs, RotateHeads::THREADS) { RotateHeads::run(a, THIS_BLOCK); }
