KERNEL(add, AddArgs, Add::THREADS) { Add::run(a, THIS_BLOCK); }
KERNEL(scale, ScaleArgs, Scale::THREADS) { Scale::run(a, THIS_BLOCK); }
KERNEL(head_gate, HeadGateArgs, HeadGate::THREADS) { HeadGate::run(a, THIS_BLOCK); }
KERNEL(temperature, TemperatureArgs, Temperature::THREADS) { Temperature::run(a, THIS_BLOCK); }
KERNEL(copy, CopyArgs, Copy::THREADS) { Copy::run(a, THIS_BLOCK); }
KERNEL(compact, CompactArgs, Compact::THREADS) { Compact::run(a, THIS_BLOCK); }
KERNEL(activate, ActivateArgs, Activate::THREADS) { Activate::run(a, THIS_BLOCK); }
