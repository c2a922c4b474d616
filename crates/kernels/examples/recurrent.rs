//! Times one step of each recurrent op on one thread: µs per token and layer, GB/s of state read and written;
//! a state out of memory, as decoding one token finds it, and one that stays in cache, as a prompt's rows do.
//! `cargo run --release -p amoeba-kernels --example recurrent`

use std::time::Instant;

use amoeba_kernels::simd::Isa;
use amoeba_kernels::testing::Rng;
use amoeba_kernels::{conv, delta_net, ssm};

/// Bytes of states that no cache holds.
const COLD: usize = 512 << 20;

fn main() {
    println!("| op | shape | isa | state | µs per token and layer | GB/s |\n|---|---|---|---|---|---|");
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar && isa.lanes() == *isa) {
        delta_rule(isa, "32 heads, 128 × 128", (32, 128), false);
        delta_rule(isa, "32 heads, 128 × 128, a decay per channel", (32, 128), true);
        let of = |heads, head_dim, groups, state| ssm::Shape { heads, head_dim, groups, state };
        state_space(isa, "Mamba-2: 64 heads, 64 × 128", of(64, 64, 8, 128), false);
        state_space(isa, "Mamba-1: 8192 channels × 16", of(8192, 1, 1, 16), true);
        convolution(isa, 8192, 3);
    }
}

/// Times `step(layer, unit)` for each unit of a layer: a layer at a time out of many, then one unit many
/// times.
fn time(op: &str, shape: &str, isa: Isa, (units, len): (usize, usize), mut step: impl FnMut(&mut [f32])) {
    let layer = units * len;
    let layers = (COLD / 4 / layer).max(1);
    let mut states = vec![0.01; layers * layer];
    let report = |kind: &str, rounds: usize, run: &mut dyn FnMut()| {
        run();
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let started = Instant::now();
                run();
                started.elapsed().as_secs_f64() / rounds as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let bytes = (2 * 4 * layer) as f64;
        let [least, median] = [times[0], times[3]];
        println!(
            "| {op} | {shape} | {isa} | {kind} | {:.1} ({:.1}) | {:.1} |",
            median * 1e6,
            least * 1e6,
            bytes / median / 1e9
        );
    };
    report("memory", layers, &mut || states.chunks_exact_mut(len).for_each(&mut step));
    report("cache", 20, &mut || {
        for unit in states[..layer].chunks_exact_mut(len) {
            (0..20).for_each(|_| step(unit));
        }
    });
}

fn delta_rule(isa: Isa, shape: &str, (heads, dim): (usize, usize), per_channel: bool) {
    let mut rng = Rng(1);
    let [q, v] = [dim, dim].map(|n| rng.vector(n));
    let k: Vec<f32> = rng.vector(dim).iter().map(|k| k / (dim as f32).sqrt()).collect();
    let decays = if per_channel { dim } else { 1 };
    let (decay, dt_bias) = (rng.vector(decays), rng.vector(decays));
    let head = delta_net::Head { rate: -0.1, dt_bias: &dt_bias };
    let token = delta_net::Token { q: &q, k: &k, v: &v, decay: &decay, beta: 0.3 };
    let (mut scratch, mut out) = (delta_net::Scratch::new(dim), vec![0.0; dim]);
    // Half a head: what an item of a prompt keeps in cache.
    let part = delta_net::Token { v: &v[..dim / 2], ..token };
    time("delta_net", shape, isa, (2 * heads, delta_net::state_len(dim / 2, dim)), |state| {
        delta_net::step(isa, &head, &part, &mut scratch, state, &mut out[..dim / 2]);
    });
}

fn state_space(isa: Isa, shape_name: &str, shape: ssm::Shape, per_state: bool) {
    let mut rng = Rng(2);
    let channels = shape.width().min(512);
    let heads = if shape.heads_side_by_side() { channels } else { 1 };
    let a_log = rng.vector(shape.heads * if per_state { shape.state } else { 1 });
    let rates = shape.rates(&a_log, per_state);
    let [x, d, dt] = [channels, heads, heads].map(|n| rng.vector(n));
    let [b, c] = [shape.state; 2].map(|n| rng.vector(n));
    let channels_of = ssm::Channels {
        rates: &rates,
        per_state,
        heads_side_by_side: shape.heads_side_by_side(),
        d: &d,
        dt_bias: None,
        dt_limit: (0.0, f32::INFINITY),
    };
    let token = ssm::Token { x: &x, b: &b, c: &c, dt: &dt };
    let mut out = vec![0.0; channels];
    let units = shape.heads * shape.head_dim / channels;
    time("ssm", shape_name, isa, (units, shape.state_len(channels)), |state| {
        ssm::step(isa, &channels_of, &token, state, &mut out);
    });
}

fn convolution(isa: Isa, channels: usize, taps: usize) {
    let mut rng = Rng(3);
    let part = 1024;
    let weights = conv::pack(&rng.vector(part * (taps + 1)), taps);
    let (x, mut out) = (rng.vector(part), vec![0.0; part]);
    let filter = conv::Filter { weights: &weights, bias: None, taps, silu: true };
    let shape = format!("{channels} channels × {}", taps + 1);
    time("conv", &shape, isa, (channels / part, conv::state_len(part, taps)), |state| {
        conv::step(isa, &filter, 1, &x, state, &mut out);
    });
}
