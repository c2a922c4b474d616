//! Launches of `attention` for many rows, on tensor cores.

use amoeba_plan::AttentionOp;

use super::cuda::{CACHE, cache, window};
use crate::cuda::unit;
use crate::gpu::{Call, Site, Unit};

/// Steps of at most this many rows leave most of a tile empty and too few tiles: `kernel.cu` takes them.
const ROWS_FEW: usize = 16;
/// Value dims whose outputs stay in the registers of a warp.
const V_DIM_WARP: usize = 128;

/// What the body is made of.
const HEADERS: &[(&str, &str)] = &[unit::DEVICE, CACHE, ("attention/flash.cuh", include_str!("flash.cuh"))];

/// Most shared memory of a block.
fn shared_max(arch: u32) -> usize {
    match arch {
        90 | 100 | 103 => 227 << 10,
        80 | 87 => 163 << 10,
        _ => 99 << 10,
    }
}

/// `None` if `kernel.cu` is to take it: few rows, values wider than 512, or a tile that does not fit shared
/// memory even with sixteen queries (576 dims with 512 of values on consumer cards).
pub(super) fn attention(site: &Site<'_>, op: &AttentionOp) -> Option<Call> {
    let [dim, v_dim] = [op.head_dim.next_multiple_of(32), op.v_dim.next_multiple_of(8)];
    let warps_v = v_dim.div_ceil(V_DIM_WARP).next_power_of_two();
    if site.rows <= ROWS_FEW || warps_v > 4 || !v_dim.is_multiple_of(8 * warps_v) {
        return None;
    }
    // `struct FlashShared`.
    let shared = |warps: usize| dim * (16 * warps + 32) * 4 + v_dim * 128;
    // Several blocks to a multiprocessor if they fit.
    let limits = [99 << 10, shared_max(site.at.setting.arch)];
    let fits = |most| [4, 2, 1].into_iter().find(|warps| warps * warps_v <= 8 && shared(*warps) <= most);
    let warps = limits.into_iter().find_map(fits)?;
    let (group, queries) = (op.heads / op.kv_heads, 16 * warps);
    let heads = (1..=group.min(queries)).rev().find(|heads| group.is_multiple_of(*heads))?;
    let (args, _) = cache(site, crate::gpu::Args::new().address(site.at.step), op.cache);
    let [sliding, chunk] = window(op);
    let defines = [
        ("K_HALF", usize::from(site.at.setting.kv_f16)),
        ("K_DIM", op.head_dim),
        ("K_V_DIM", op.v_dim),
        ("K_HEADS", heads),
        ("K_WARPS", warps),
        ("K_WARPS_V", warps_v),
    ];
    let args = args.place(site.buffer(op.q)).place(site.buffer(op.out)).address(site.vector(op.sinks));
    let args = args.size(group).size(sliding).size(chunk);
    Some(Call {
        unit: Unit {
            headers: HEADERS,
            op: ("attention/flash.cu", include_str!("flash.cu")),
            defines: defines.map(|(name, value)| (name, value.to_string())).to_vec(),
        },
        kernel: "flash",
        grid: [site.rows.div_ceil(queries / heads) as u32, (op.heads / heads) as u32, 1],
        block: 32 * (warps * warps_v) as u32,
        shared: shared(warps) as u32,
        args: args.float(op.scale).float(op.softcap.unwrap_or(0.0)).size(0),
    })
}
