//! Times the ladder of `experts` on one layer after another, with more weights than any cache holds. `cargo
//! xtask bench-op experts [-- --shape small|a3b --format q4 --rows 1,4,8 --threads 1,2 --mib 1536 --rounds
//! 7]`
//!
//! All steps run in turn in every round, so that what else the machine does falls on all of them. A line
//! gives the round with the lowest median; the floor is the best median of plain reads of the same weights,
//! driven like a step.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use amoeba_checkpoint::{Float, Format};
use amoeba_kernels::experts::ladder::{Batch, Memory, Reader, Shape, Step, Version, drive, steps};
use amoeba_kernels::simd::Isa;
use amoeba_kernels::simd::peak::Order;
use amoeba_kernels::testing::Rng;

const SMALL: Shape = Shape { hidden: 1024, experts: 64, top_k: 8, d_ff: 512 };
const A3B: Shape = Shape { hidden: 2048, experts: 128, top_k: 8, d_ff: 768 };
/// Time a step gets in a round, and the fewest layers it runs whatever they take.
const TURN: Duration = Duration::from_millis(300);
const LAYERS_MIN: usize = 3;
/// Layers run between two looks at the clock.
const BURST: usize = 10;

struct Options {
    shapes: Vec<(&'static str, Shape)>,
    format: Format,
    rows: Vec<usize>,
    threads: Vec<usize>,
    /// Weights in each form they are kept in; there are three.
    mib: usize,
    rounds: usize,
}

fn main() {
    match options(std::env::args().skip(1)) {
        Ok(options) => options.shapes.iter().for_each(|(name, shape)| ladder(name, *shape, &options)),
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    }
}

fn formats() -> Vec<Format> {
    let mut all: Vec<Format> =
        [2, 3, 4, 5, 6, 8].map(|bits| Format::Affine { bits, group: 64, scale: Float::BF16 }).to_vec();
    all.extend([Format::Mxfp4, Format::Mxfp8, Format::Nvfp4, Format::Dense(Float::BF16)]);
    all
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if cores > 1 { vec![1, cores] } else { vec![1] };
    let shapes = vec![("small", SMALL), ("a3b", A3B)];
    let mut options = Options { shapes, format: formats()[2], rows: vec![1], threads, mib: 1536, rounds: 7 };
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} wants a value"))?;
        let numbers = || -> Result<Vec<usize>, String> {
            let all: Result<Vec<usize>, _> = value.split(',').map(str::parse).collect();
            let all = all.map_err(|_| format!("{flag} {value}: whole numbers, separated by commas"))?;
            if all.contains(&0) { Err(format!("{flag} {value}: at least 1")) } else { Ok(all) }
        };
        match flag.as_str() {
            "--shape" => options.shapes.retain(|(name, _)| *name == value),
            "--format" => {
                let known = formats();
                let found = known.iter().find(|format| format.to_string().starts_with(&value));
                let names: Vec<String> = known.iter().map(Format::to_string).collect();
                options.format = *found.ok_or_else(|| format!("--format: one of {}", names.join(", ")))?;
            }
            "--rows" => options.rows = numbers()?,
            "--threads" => options.threads = numbers()?,
            "--mib" => options.mib = numbers()?[0],
            "--rounds" => options.rounds = numbers()?[0],
            _ => return Err(format!("{flag}: not one of --shape --format --rows --threads --mib --rounds")),
        }
    }
    if options.shapes.is_empty() {
        return Err("--shape: small or a3b".to_owned());
    }
    match options.rows.iter().find(|&&rows| rows > 8) {
        Some(rows) => Err(format!("--rows {rows}: the fused steps take 8 at most")),
        None => Ok(options),
    }
}

fn ladder(name: &str, shape: Shape, options: &Options) {
    let mut rng = Rng(1);
    let layer_bytes = shape.experts * shape.expert_bytes(options.format);
    let layers = ((options.mib << 20) / layer_bytes).max(1);
    let memory = Memory::random(shape, options.format, layers, &mut rng);
    for &rows in &options.rows {
        // Twice through all layers with other experts.
        let batches: Vec<Batch> =
            (0..2 * layers.max(BURST)).map(|i| Batch::random(shape, i % layers, rows, &mut rng)).collect();
        for &threads in &options.threads {
            let isa = Isa::best();
            println!(
                "\n{name}: hidden {}, {} experts, top-{}, d_ff {}; {}; {layers} layers, {} MiB; {isa}; \
                 rows {rows}, threads {threads}\n",
                shape.hidden,
                shape.experts,
                shape.top_k,
                shape.d_ff,
                options.format,
                (layers * layer_bytes) >> 20,
            );
            let steps = steps(&memory, isa, rows, threads);
            let all = measure(isa, &steps, &batches, threads, options.rounds);
            table(&all, &steps, shape, options.format, &batches);
        }
    }
}

/// Layers that take longer than this are interrupted on a busy machine; then the time on the core counts.
const SLICE: f64 = 2e-3;

/// A turn of a step.
#[derive(Clone)]
struct Turn {
    /// Seconds of each layer, ascending.
    layers: Vec<f64>,
    /// Seconds that the thread had the core, per layer; known for one thread on Linux.
    on_core: f64,
}

impl Turn {
    const NONE: Turn = Turn { layers: Vec::new(), on_core: f64::INFINITY };

    fn percentile(&self, share: f64) -> f64 {
        self.layers.get((self.layers.len() as f64 * share) as usize).copied().unwrap_or(f64::INFINITY)
    }

    /// Seconds of a layer: the median, or what it took on the core.
    fn seconds(&self) -> f64 {
        let median = self.percentile(0.5);
        if median > SLICE { median.min(self.on_core) } else { median }
    }

    fn range(&self) -> String {
        if self.seconds() < self.percentile(0.5) {
            return "on core".to_owned();
        }
        let [low, high] = [0.1, 0.9].map(|share| self.percentile(share) * 1e6);
        format!("{low:.0}–{high:.0}")
    }
}

/// The best turn of a step, and seconds of the fastest plain read of the same weights.
#[derive(Clone)]
struct Outcome {
    best: Turn,
    read: f64,
}

/// Seconds that this thread has had a core; none where the system does not tell.
fn on_core() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse::<f64>().ok().map(|ns| ns * 1e-9)
}

fn measure(isa: Isa, steps: &[Step<'_>], batches: &[Batch], threads: usize, rounds: usize) -> Vec<Outcome> {
    let mut all = vec![Outcome { best: Turn::NONE, read: f64::INFINITY }; steps.len()];
    let mut next = batches.iter().cycle();
    let mut turn = |version: &dyn Version, time: Duration| -> Turn {
        let mut run = |n: usize| -> Vec<f64> {
            let some: Vec<&Batch> = next.by_ref().take(n).collect();
            drive(version, &some, threads).iter().map(Duration::as_secs_f64).collect()
        };
        // The first layer tells how many fit between two looks at the clock, and warms up.
        let slow = run(1)[0] > TURN.as_secs_f64() / 4.0;
        let (mut layers, started, before) = (Vec::new(), Instant::now(), on_core());
        while layers.len() < LAYERS_MIN || started.elapsed() < time {
            layers.extend(run(if slow { 1 } else { BURST }));
        }
        let on_core = match (before, on_core()) {
            (Some(before), Some(after)) if threads == 1 => (after - before) / layers.len() as f64,
            _ => f64::INFINITY,
        };
        layers.sort_by(f64::total_cmp);
        Turn { layers, on_core }
    };
    for _ in 0..rounds {
        for (step, outcome) in steps.iter().zip(&mut all) {
            let Some(version) = step.version.as_deref() else { continue };
            for order in Order::ALL {
                let reader = Reader { isa, form: step.form, order, sum: AtomicU64::new(0) };
                outcome.read = outcome.read.min(turn(&reader, TURN / 3).seconds());
            }
            let now = turn(version, TURN);
            if now.seconds() < outcome.best.seconds() {
                outcome.best = now;
            }
        }
    }
    all
}

fn table(all: &[Outcome], steps: &[Step<'_>], shape: Shape, format: Format, batches: &[Batch]) {
    let experts: usize = batches.iter().map(|batch| batch.groups.len()).sum();
    let bytes = experts as f64 / batches.len() as f64 * shape.expert_bytes(format) as f64;
    let floor = all.iter().map(|outcome| outcome.read).fold(f64::INFINITY, f64::min);
    println!(
        "Floor: {:.2} MB a layer at {:.1} GB/s = {:.0} µs.\n",
        bytes / 1e6,
        bytes / floor / 1e9,
        floor * 1e6
    );
    println!("| step | µs per layer (p10–p90) | GB/s | % of read | × step before |\n|---|---|---|---|---|");
    let mut before = f64::NAN;
    for (step, outcome) in steps.iter().zip(all) {
        if step.version.is_none() {
            println!("| {} | – | – | – | – |", step.name);
            continue;
        }
        let (micros, range) = (outcome.best.seconds() * 1e6, outcome.best.range());
        let gain = if before.is_nan() { "–".to_owned() } else { format!("{:.2}", before / micros) };
        println!(
            "| {} | {micros:.0} ({range}) | {:.1} | {:.0} | {gain} |",
            step.name,
            bytes / micros / 1e3,
            outcome.read / micros * 1e8
        );
        before = micros;
    }
}
