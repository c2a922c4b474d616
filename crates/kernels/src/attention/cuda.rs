//! Launches of `attention` and `kv_append`, and the size of their cache (see `cache.cuh`).

use amoeba_plan::{Append, AttentionOp, CacheId, CacheKind, FEW_ROWS_MAX, Heads, KvAppendOp, Window};

use crate::cuda::unit;
use crate::gpu::{Args, Call, Setting, Site, Unit};

/// Warps of a block of attention.
const WARPS: usize = 4;
/// Positions a warp looks at at a time.
const POSITIONS: usize = 8;
/// Blocks per multiprocessor that splitting the positions aims at.
const BLOCKS_PER_SM: usize = 2;
/// Most parts that the positions are cut into.
const SPLITS_MAX: usize = 64;

/// Bytes of keys and values of all sequences.
pub(crate) fn cache_bytes(kv_heads: usize, k_dim: usize, v_dim: usize, setting: &Setting) -> usize {
    elements(kv_heads, k_dim.next_multiple_of(8) + v_dim.next_multiple_of(8), setting)
        * element_bytes(setting)
}

fn elements(kv_heads: usize, width: usize, setting: &Setting) -> usize {
    setting.slots * kv_heads * setting.context.next_multiple_of(32) * width
}

fn element_bytes(setting: &Setting) -> usize {
    if setting.kv_f16 { 2 } else { 4 }
}

/// Where keys and values lie.
pub(super) const CACHE: (&str, &str) = ("attention/cache.cuh", include_str!("cache.cuh"));
const HEADS: (&str, &str) = ("attention/heads.cuh", include_str!("heads.cuh"));
/// What the bodies of `heads.cu` are made of.
const HEADS_HEADERS: &[(&str, &str)] =
    &[unit::DEVICE, unit::TURN, CACHE, HEADS, ("attention/append.cuh", include_str!("append.cuh"))];
/// What the bodies for few rows are made of.
const HEADERS: &[(&str, &str)] = &[
    unit::DEVICE,
    unit::TURN,
    CACHE,
    HEADS,
    ("attention/tile.cuh", include_str!("tile.cuh")),
    ("attention/kernel.cuh", include_str!("kernel.cuh")),
    ("attention/one.cuh", include_str!("one.cuh")),
];

/// Heads before attention, and the cache.
fn heads_unit(k_dim: usize, v_dim: usize, setting: &Setting) -> Unit {
    let defines = defines([k_dim, v_dim], setting);
    Unit { headers: HEADS_HEADERS, op: ("attention/heads.cu", include_str!("heads.cu")), defines }
}

/// Attention that a block does for some heads.
fn unit([k_dim, v_dim]: [usize; 2], heads: usize, setting: &Setting) -> Unit {
    let own = [("K_HEADS", heads), ("K_SPLITS", SPLITS_MAX)];
    let mut defines = defines([k_dim, v_dim], setting);
    defines.extend(own.map(|(name, value)| (name, value.to_string())));
    Unit { headers: HEADERS, op: ("attention/kernel.cu", include_str!("kernel.cu")), defines }
}

/// Macros of `CacheShape` (`cache.cuh`).
fn defines([k_dim, v_dim]: [usize; 2], setting: &Setting) -> Vec<(&'static str, String)> {
    let all = [("K_HALF", usize::from(setting.kv_f16)), ("K_DIM", k_dim), ("K_V_DIM", v_dim)];
    all.map(|(name, value)| (name, value.to_string())).to_vec()
}

/// `struct Cache`.
pub(super) fn cache(site: &Site<'_>, args: Args, id: CacheId) -> (Args, [usize; 3]) {
    let CacheKind::Kv { kv_heads, k_dim, v_dim } = site.plan.caches[id.0].kind else {
        unreachable!("cache {} holds no keys", id.0)
    };
    let setting = &site.at.setting;
    let keys = site.at.caches[id.0];
    let values =
        keys + (elements(kv_heads, k_dim.next_multiple_of(8), setting) * element_bytes(setting)) as u64;
    let args = args.address(keys).address(values);
    (args.size(kv_heads).size(setting.context.next_multiple_of(32)), [kv_heads, k_dim, v_dim])
}

pub(crate) fn append(site: &Site<'_>, op: &KvAppendOp) -> Call {
    let (args, [kv_heads, k_dim, v_dim]) = cache(site, Args::new().address(site.at.step), op.cache);
    let width = kv_heads * (k_dim.next_multiple_of(8) + v_dim.next_multiple_of(8));
    Call {
        unit: heads_unit(k_dim, v_dim, &site.at.setting),
        kernel: "kv_append",
        grid: [width.div_ceil(256) as u32, site.rows as u32, 1],
        block: 256,
        shared: 0,
        args: args.place(site.buffer(op.k)).place(site.buffer(op.v)),
    }
}

/// `struct Heads`.
fn heads_args(site: &Site<'_>, args: Args, of: &Heads) -> Args {
    let weight = of.norm.map_or(0, |norm| site.vector(norm.weight));
    let (turns, first, half, interleaved, amplitude) =
        of.rope.map_or((0, 0, 0, false, 0.0), |(id, first)| {
            let spec = &site.plan.ropes[id.0];
            (site.at.ropes[id.0], first, spec.frequencies.len(), spec.interleaved, spec.amplitude)
        });
    let (eps, scale) = of.norm.map_or((0.0, 0.0), |norm| (norm.eps, norm.scale));
    let append = match of.append {
        Append::Nowhere => 0,
        Append::Keys => 1,
        Append::Values => 2,
    };
    let args = args.place(site.buffer(of.buffer)).address(weight).address(turns);
    let args = args.size(of.heads).size(of.dim).size(first).size(half).size(usize::from(interleaved));
    args.size(usize::from(of.norm.is_some())).size(append).float(eps).float(scale).float(amplitude)
}

/// At most three buffers.
pub(crate) fn heads(site: &Site<'_>, id: CacheId, all: &[Heads]) -> Call {
    let (mut args, [_, k_dim, v_dim]) = cache(site, Args::new().address(site.at.step), id);
    for heads in all {
        args = heads_args(site, args, heads);
    }
    for _ in all.len()..3 {
        args = heads_args(site, args, &Heads::new(all[0].buffer, 0, 0));
    }
    let count: usize = all.iter().map(|heads| heads.heads).sum();
    Call {
        unit: heads_unit(k_dim, v_dim, &site.at.setting),
        kernel: "heads",
        grid: [count.div_ceil(8) as u32, site.rows as u32, 1],
        block: 256,
        shared: (8 * 4 * k_dim.max(v_dim).next_multiple_of(8)) as u32,
        args,
    }
}

/// Query heads of one key head that a block serves: three or four if the group can be cut so, else as many as
/// registers hold the output of. A group of 8 in two blocks reads its keys and values twice, but with 4 key
/// heads a context of 512 then fills 132 multiprocessors (8 x 17 blocks of 32 positions), where it filled
/// half of them, and each warp's chain is half as long. Behind 8192 positions of f16 the second reading adds
/// 17 MB, 3 us, to what L2 gives; memory takes 4 us for the first.
fn heads_per_block(op: &AttentionOp) -> usize {
    let group = op.heads / op.kv_heads;
    let most = (64 * 32 / op.v_dim.next_multiple_of(128)).clamp(1, 8);
    let divisor = |least: usize, most: usize| (least..=most).rev().find(|heads| group.is_multiple_of(*heads));
    divisor(3, most.min(4)).or_else(|| divisor(1, most)).unwrap_or(1)
}

/// Parts that the positions are cut into.
fn splits(op: &AttentionOp, setting: &Setting, rows: usize) -> usize {
    // More rows fill the device without splitting the positions.
    if rows > FEW_ROWS_MAX {
        return 1;
    }
    let blocks = op.heads / heads_per_block(op) * rows;
    let visible = match op.window {
        Some(Window::Sliding(width) | Window::Chunk(width)) => width.min(setting.context),
        None => setting.context,
    };
    let tiles = visible.div_ceil(32) + 1;
    (BLOCKS_PER_SM * setting.multiprocessors as usize).div_ceil(blocks).min(tiles).clamp(1, SPLITS_MAX)
}

/// Partial results of the splits: outputs, then largest scores and sums.
pub(crate) fn scratch_bytes(op: &AttentionOp, setting: &Setting, rows: usize) -> usize {
    let bytes = |rows| partials(op, setting, rows) * (2 + op.v_dim.next_multiple_of(8)) * 4;
    (1..=rows.min(FEW_ROWS_MAX)).map(bytes).max().unwrap_or(0)
}

/// Results of the splits of all heads and rows.
fn partials(op: &AttentionOp, setting: &Setting, rows: usize) -> usize {
    rows * op.heads * splits(op, setting, rows)
}

/// Widths of a window, sliding or in chunks; 0 if there is none.
pub(super) fn window(op: &AttentionOp) -> [usize; 2] {
    match op.window {
        Some(Window::Sliding(width)) => [width, 0],
        Some(Window::Chunk(width)) => [0, width],
        None => [0, 0],
    }
}

pub(crate) fn attention(site: &Site<'_>, op: &AttentionOp) -> Call {
    super::flash::attention(site, op).unwrap_or_else(|| few(site, op))
}

/// Dims of a head up to which [`one`] takes it.
pub(crate) const ONE_DIM_MAX: usize = 256;

/// Attention of a step of one row and what becomes of its queries, keys and values before, which are not
/// written back.
pub(crate) fn one(site: &Site<'_>, op: &AttentionOp, heads: &[Heads; 3]) -> Call {
    let call = few(site, op);
    let args = heads.iter().fold(call.args, |args, heads| heads_args(site, args, heads));
    // `struct OneShared`.
    let [k_padded, v_padded] = [op.head_dim, op.v_dim].map(|dim| dim.next_multiple_of(8));
    let fresh = (k_padded + v_padded) * element_bytes(&site.at.setting);
    let made = 2 * k_padded.max(v_padded) * 4;
    let shared = call.shared + (fresh + made + k_padded * 4).next_multiple_of(16) as u32;
    Call { kernel: "attention_one", shared, args, ..call }
}

fn few(site: &Site<'_>, op: &AttentionOp) -> Call {
    let setting = &site.at.setting;
    let heads = heads_per_block(op);
    let (args, [_, k_dim, v_dim]) = cache(site, Args::new().address(site.at.step), op.cache);
    let [sliding, chunk] = window(op);
    let [k_padded, v_padded] = [k_dim, v_dim].map(|dim| dim.next_multiple_of(8));
    // `struct AttentionShared`.
    let shares = WARPS * POSITIONS * heads.next_multiple_of(4);
    let sums = heads * (2 * WARPS + SPLITS_MAX) + 1;
    let shared = (heads * k_padded + shares + WARPS * heads * v_padded + sums).next_multiple_of(4) * 4;
    Call {
        unit: unit([k_dim, v_dim], heads, setting),
        kernel: "attention",
        grid: [(op.heads / heads) as u32, splits(op, setting, site.rows) as u32, site.rows as u32],
        block: 32 * WARPS as u32,
        shared: shared as u32,
        args: args
            .place(site.buffer(op.q))
            .place(site.buffer(op.out))
            .address(site.vector(op.sinks))
            .address(site.at.scratch)
            .address(site.at.scratch + (partials(op, setting, site.rows) * v_padded * 4) as u64)
            .address(site.at.zeroed)
            .size(op.heads / op.kv_heads)
            .size(sliding)
            .size(chunk)
            .float(op.scale)
            .float(op.softcap.unwrap_or(0.0))
            .size(0),
    }
}
