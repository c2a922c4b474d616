//! The bodies of a decode layer in one unit and one launch: the bits of a launch each.

use amoeba_kernels::gpu::{Args, Call, StepRow, Unit};
use amoeba_kernels::testing::Rng;

use crate::bench::Bench;
use crate::memory::Memory;
use crate::{fused, module};

/// From here on entries are functions, which are given the block that they run.
const ENTRIES: &str = "
#undef KERNEL_PER_SM
#define KERNEL_PER_SM(name, Args, threads, min_blocks) \\
  typedef Args name##_args;                            \\
  template <class Block> DEVICE void name(const name##_args& a, Block block)
#undef THIS_BLOCK
#define THIS_BLOCK block";

/// The entries of all calls, each with its macros in a namespace of its own, and the kernel that calls them.
fn unit(calls: &[Call]) -> Unit {
    let mut headers = Vec::new();
    for header in calls.iter().flat_map(|call| call.unit.headers) {
        if !headers.contains(header) {
            headers.push(*header);
        }
    }
    headers.push(("entries", ENTRIES));
    let mut ops = String::new();
    for (i, Call { unit, kernel, .. }) in calls.iter().enumerate() {
        let mut text = format!("namespace op{i} {{\n");
        text.extend(unit.defines.iter().map(|(name, value)| format!("#define {name} {value}\n")));
        text.push_str(unit.op.1);
        text.extend(unit.defines.iter().map(|(name, _)| format!("#undef {name}\n")));
        headers.push((unit.op.0, (text + "}").leak()));
        ops += &format!("F({i}, {kernel}) ");
    }
    let (count, threads) = (calls.len().to_string(), calls[0].block.to_string());
    let defines = vec![("OPS(F)", ops), ("COUNT", count), ("THREADS", threads)];
    Unit { headers: headers.leak(), op: ("persistent.cu", include_str!("persistent.cu")), defines }
}

#[test]
fn all_bodies_of_a_layer_share_a_launch() {
    let (mut rng, Some(mut bench)) = (Rng(41), Bench::new()) else { return };
    bench.rows(&[StepRow { slot: 1, position: 70, ..StepRow::default() }]);
    bench.share_launches(true);
    let layer = fused::layer(&mut bench, &mut rng, 512, 4);
    let x = rng.vector(512);
    let bytes = bench.cache_bytes(layer.cache).len();
    let past: Vec<u8> = rng.vector(bytes / 4).iter().flat_map(|x| x.to_le_bytes()).collect();
    let begin = |bench: &mut Bench| {
        bench.forget_buffers();
        bench.write(layer.residual, &x);
        bench.set_cache(layer.cache, &past);
    };
    let left = |bench: &Bench| {
        let rows =
            layer.buffers.iter().map(|(_, id)| bench.row(*id, 0).into_iter().map(f32::to_bits).collect());
        (rows.collect::<Vec<Vec<u32>>>(), bench.cache_bytes(layer.cache).to_vec())
    };
    begin(&mut bench);
    bench.run_all(layer.ops.clone(), 1);
    let apart = left(&bench);
    let calls = bench.calls(1);
    let kernels = calls.iter().map(|call| call.kernel).collect::<Vec<_>>();
    assert_eq!(kernels, ["linear", "attention_one", "linear", "linear", "experts_up", "experts_down"]);
    assert!(calls.iter().all(|call| call.block == calls[0].block), "{calls:?}");

    let mut arrived = Memory::new(4);
    let args = calls.iter().flat_map(|call| call.args.words());
    let args = args.fold(Args::new(), |args, word| args.address(*word)).address(arrived.address());
    let grid = calls.iter().flat_map(|call| &call.grid[..2]);
    let args = grid.fold(args, |args, blocks| args.size(*blocks as usize));
    let shared = calls.iter().map(|call| call.shared).max().unwrap();
    let call = Call { unit: unit(&calls), kernel: "persistent", shared, args, ..calls[0].clone() };
    for (blocks, seed) in [(1, 0), (2, 0), (3, 977)] {
        begin(&mut bench);
        arrived.bytes_mut().fill(0);
        module::launch(&Call { grid: [blocks, 1, 1], ..call.clone() }, seed);
        assert!(apart == left(&bench), "{blocks} blocks");
    }
}
