//! A plan of one op on an emulated device.

use amoeba_checkpoint::{Config, Matrix};
use amoeba_kernels::gpu::{self, Place, Places, Setting, StepRow, WeightPlace};
use amoeba_plan::{
    Buffer, BufferId, BufferKind, Cache, CacheId, CacheKind, LinearOp, Op, Part, PathChoice, Plan, Rope,
    RopeId, Step, Weight, WeightId, WeightShape, groups,
};

use crate::memory::Memory;
use crate::{device, module};

/// Orders of turns that every op runs in; the first is plain.
const SEEDS: [u32; 3] = [0, 1, 977];

/// Buffers, weights and caches for one op at a time.
pub struct Bench {
    plan: Plan,
    places: Places,
    memory: Vec<Memory>,
    buffers: Vec<usize>,
    caches: Vec<usize>,
    step: usize,
}

impl Bench {
    /// None if there is no compiler.
    pub fn new() -> Option<Bench> {
        Bench::of(Setting {
            slots: 3,
            context: 200,
            kv_f16: false,
            multiprocessors: 3,
            arch: 90,
            fused: false,
            x_terms: 2,
        })
    }

    pub fn of(setting: Setting) -> Option<Bench> {
        if !module::available() {
            return None;
        }
        // Any model will do: what it computes is replaced op by op.
        let config = include_str!("../../../../fixtures/qwen3_moe-q4g64/config.json");
        let config = Config::parse("config.json", config).unwrap();
        let mut plan = Plan::new(&config).unwrap();
        plan.weights.clear();
        plan.buffers.clear();
        plan.caches.clear();
        plan.ropes.clear();
        plan.program.clear();
        plan.head = 1;
        let (scratch, zeroed) = (8 << 20, gpu::ZEROED_BYTES);
        let mut memory = vec![Memory::new(16), Memory::new(scratch), Memory::new(zeroed)];
        memory[2].bytes_mut().fill(0);
        let places = Places {
            step: 0,
            buffers: Vec::new(),
            weights: Vec::new(),
            caches: Vec::new(),
            ropes: Vec::new(),
            scratch: memory[1].address(),
            zeroed: memory[2].address(),
            setting,
        };
        Some(Bench { plan, places, memory, buffers: Vec::new(), caches: Vec::new(), step: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        let mut memory = Memory::new(bytes.len());
        memory.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let address = memory.address();
        self.memory.push(memory);
        address
    }

    /// A buffer of that width with some rows of values; rows without values are NaN.
    pub fn buffer(&mut self, width: usize, rows: usize, values: &[f32]) -> BufferId {
        let stride = width.next_multiple_of(16);
        self.memory.push(Memory::new(rows * stride * 4));
        self.buffers.push(self.memory.len() - 1);
        let place = Place { address: self.memory[self.memory.len() - 1].address(), stride };
        self.places.buffers.push(place);
        self.plan.buffers.push(Buffer { name: "buffer", width, kind: BufferKind::Values });
        let id = BufferId(self.places.buffers.len() - 1);
        self.write(id, values);
        id
    }

    /// Overwrites rows from the first on; what is left is NaN.
    pub fn write(&mut self, id: BufferId, values: &[f32]) {
        let (width, stride) = (self.plan.buffers[id.0].width, self.places.buffers[id.0].stride);
        let bytes = self.memory[self.buffers[id.0]].bytes_mut();
        bytes.fill(0xff);
        for (row, values) in values.chunks(width).enumerate() {
            for (i, value) in values.iter().enumerate() {
                bytes[(row * stride + i) * 4..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// One row of a buffer.
    pub fn row(&self, id: BufferId, row: usize) -> Vec<f32> {
        let (width, stride) = (self.plan.buffers[id.0].width, self.places.buffers[id.0].stride);
        let bytes = &self.memory[self.buffers[id.0]].bytes()[row * stride * 4..][..width * 4];
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn vector(&mut self, values: &[f32]) -> WeightId {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let address = self.put(&bytes);
        self.weight(WeightPlace::Vector(address))
    }

    pub fn matrix(&mut self, matrix: &Matrix<'_>) -> WeightId {
        self.stack(&[*matrix])
    }

    /// Matrices of one shape, one after the other.
    pub fn stack(&mut self, matrices: &[Matrix<'_>]) -> WeightId {
        let mut put =
            |part: fn(&Matrix<'_>) -> Vec<u8>| self.put(&matrices.iter().flat_map(part).collect::<Vec<u8>>());
        let (codes, scales) = (put(|m| m.weight.to_vec()), put(|m| m.scales.to_vec()));
        let biases = put(|m| m.biases.to_vec());
        let Matrix { rows, cols, format, .. } = matrices[0];
        self.weight(WeightPlace::Matrix(gpu::Matrix { codes, scales, biases, format, rows, cols }))
    }

    fn weight(&mut self, place: WeightPlace) -> WeightId {
        let shape = match place {
            WeightPlace::Matrix(matrix) => WeightShape::Matrix(matrix.rows, matrix.cols),
            WeightPlace::Vector(_) => WeightShape::Vector(0),
        };
        self.plan.weights.push(Weight { path: String::new(), each: None, shape, shift: 0.0 });
        self.places.weights.push(place);
        WeightId(self.places.weights.len() - 1)
    }

    /// A product with a matrix as it is shaped.
    pub fn linear(&self, weight: WeightId, bias: Option<WeightId>, x: BufferId, out: BufferId) -> Op {
        let WeightShape::Matrix(rows, cols) = self.plan.weights[weight.0].shape else {
            unreachable!("a vector is no matrix")
        };
        Op::Linear(LinearOp { weight, bias, rows, cols, x, out })
    }

    pub fn cache(&mut self, kind: CacheKind) -> CacheId {
        let mut memory = Memory::new(gpu::cache_bytes(kind, &self.places.setting));
        memory.bytes_mut().fill(0);
        self.places.caches.push(memory.address());
        self.memory.push(memory);
        self.caches.push(self.memory.len() - 1);
        self.plan.caches.push(Cache { layer: 0, kind });
        CacheId(self.plan.caches.len() - 1)
    }

    pub fn rope(&mut self, rope: Rope) -> RopeId {
        let address = self.put(&gpu::rope_table(&rope));
        self.places.ropes.push(address);
        self.plan.ropes.push(rope);
        RopeId(self.plan.ropes.len() - 1)
    }

    /// Sets the rows of the step, all of whose logits are wanted.
    pub fn rows(&mut self, rows: &[StepRow]) {
        self.step_of(rows, rows.len());
    }

    /// Sets the rows of the step, of which `wanted` want logits.
    pub fn step_of(&mut self, rows: &[StepRow], wanted: usize) {
        let mut words = vec![rows.len() as u32, wanted as u32, 0, 0];
        words.extend(rows.iter().flat_map(|row| [row.token, row.slot, row.position, row.source]));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.places.step = self.put(&bytes);
        self.step = self.memory.len() - 1;
    }

    /// So many rows at the positions 0, 1, … of one sequence.
    pub fn plain_rows(&mut self, rows: usize) {
        let row = |i| StepRow { token: 0, slot: 0, position: i as u32, source: i as u32 };
        self.rows(&(0..rows).map(row).collect::<Vec<_>>());
    }

    /// Runs the op in every order of turns, for steps of at most `rows` rows, each time from the same
    /// memory; all must leave the same bits in the buffers and caches.
    pub fn run(&mut self, op: Op, rows: usize) {
        self.run_all(vec![op], rows);
    }

    /// The same for a program; gives the number of launches.
    pub fn run_all(&mut self, ops: Vec<Op>, rows: usize) -> usize {
        let before: Vec<Vec<u8>> = self.memory.iter().map(|memory| memory.bytes().to_vec()).collect();
        let mut first: Option<Vec<Vec<u8>>> = None;
        self.plan.head = ops.len();
        self.plan.program = ops.into_iter().map(|op| Step { layer: None, part: Part::Other, op }).collect();
        let calls = self.calls(rows);
        let needed = gpu::scratch_bytes(&self.plan, &self.places.setting, rows);
        assert!(needed <= self.memory[1].bytes().len(), "{needed} bytes of scratch");
        let seeds = if device::few() { &SEEDS[..1] } else { &SEEDS };
        for &seed in seeds {
            for (memory, before) in self.memory.iter_mut().zip(&before) {
                memory.bytes_mut().copy_from_slice(before);
            }
            calls.iter().for_each(|call| module::launch(call, seed));
            assert!(self.memory[2].bytes().iter().all(|byte| *byte == 0), "counters are zero again");
            let left = self.buffers.iter().chain(&self.caches).map(|&i| self.memory[i].bytes().to_vec());
            let left: Vec<Vec<u8>> = left.collect();
            match &first {
                None => first = Some(left),
                Some(first) => {
                    for (i, (first, left)) in first.iter().zip(&left).enumerate() {
                        let at = first.iter().zip(left).position(|(a, b)| a != b);
                        assert_eq!(
                            at, None,
                            "order {seed}: other bits in buffer {i}, {:?}",
                            self.plan.program
                        );
                    }
                }
            }
        }
        calls.len()
    }

    /// The launches of the program that ran last.
    pub fn calls(&self, rows: usize) -> Vec<gpu::Call> {
        let can = gpu::capabilities(self.places.setting.fused);
        let groups = groups(&self.plan, &can, rows, PathChoice::Auto);
        let lowered = groups.iter().map(|group| gpu::lower(&self.plan, group, &self.places, rows).unwrap());
        lowered.flatten().map(|staged| staged.call).collect()
    }

    /// Whether ops may share launches from now on.
    pub fn share_launches(&mut self, fused: bool) {
        self.places.setting.fused = fused;
    }

    /// All buffers become NaN.
    pub fn forget_buffers(&mut self) {
        for &i in &self.buffers {
            self.memory[i].bytes_mut().fill(0xff);
        }
    }

    /// All of a cache.
    pub fn cache_bytes(&self, id: CacheId) -> &[u8] {
        self.memory[self.caches[id.0]].bytes()
    }

    /// Overwrites all of a cache.
    pub fn set_cache(&mut self, id: CacheId, bytes: &[u8]) {
        self.memory[self.caches[id.0]].bytes_mut().copy_from_slice(bytes);
    }

    /// Moves wanted rows to the front.
    pub fn compact(&mut self, buffer: BufferId) {
        let width = self.plan.buffers[buffer.0].width;
        module::launch(&gpu::compact(&self.plan, &self.places, buffer, width), 1);
    }
}
