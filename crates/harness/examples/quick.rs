//! Scratch bench.
use amoeba_engine::LoadOptions;
use amoeba_harness::bench::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads: usize = args[2].parse().unwrap();
    let floor = if args.get(4).is_some() { measure_floor(threads, &[1 << 30]).memory(threads) } else { None };
    let tests = args[3].split(',').map(|t| match t.split_at(2) {
        ("pp", n) => Test::Prefill(n.parse().unwrap()),
        (_, n) => Test::Decode { tokens: n.parse().unwrap(), depth: 0 },
    }).collect();
    let options = BenchOptions { tests, repeats: 5, load: LoadOptions { threads: Some(threads), ..Default::default() }, bandwidth: floor };
    for row in bench(std::path::Path::new(&args[1]), &options).unwrap() { println!("{row}  load {} ms", row.load_ns / 1000000); }
}
