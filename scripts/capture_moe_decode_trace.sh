#!/usr/bin/env bash
# Captures what a decode token of a model spends its time on, with the best tool this machine has.
#
#   scripts/capture_moe_decode_trace.sh MODEL [auto|fused|unfused|compare]
#
# The built-in trace always runs and is enough on a CPU. Where they are installed, xctrace (macOS) and nsys (NVIDIA) are
# wrapped around a second, untraced run; the program under test is the same. Files go to $OUT (traces/ unless set).
# AMOEBA names the program (default: amoeba of this checkout, built if need be); ARGS holds flags of device and depth, as in
# ARGS="-t 4 -d 512".
set -euo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
case "$1" in -*) usage ;; esac
model=$1
mode=${2:-auto}
out=${OUT:-traces}
read -r -a flags <<<"${ARGS:-}"

if [ -z "${AMOEBA:-}" ]; then
    root=$(cd "$(dirname "$0")/.." && pwd)
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --package amoeba
    AMOEBA=${CARGO_TARGET_DIR:-$root/target}/release/amoeba
fi
case "$mode" in auto | fused | unfused | compare) mkdir -p "$out" ;; *) usage ;; esac

if [ "$mode" = compare ]; then
    "$AMOEBA" trace "$model" --compare fused,unfused -o "$out/compare.json" --svg "$out/compare.svg" \
        ${flags[@]+"${flags[@]}"} | tee "$out/compare.md"
    exit 0
fi

"$AMOEBA" trace "$model" --path "$mode" -o "$out/$mode.json" --svg "$out/$mode.svg" ${flags[@]+"${flags[@]}"} |
    tee "$out/$mode.md"

# A decode of 32 tokens for the system's profiler: `bench` loads, warms up and decodes, and traces nothing itself.
decode=("$AMOEBA" bench "$model" -p 0 -n 32 -r 3 --path "$mode" ${flags[@]+"${flags[@]}"})
if [ "$(uname -s)" = Darwin ] && xcrun --find xctrace >/dev/null 2>&1; then
    rm -rf "$out/$mode.trace"
    xcrun xctrace record --template 'Time Profiler' --output "$out/$mode.trace" --launch -- "${decode[@]}"
    echo "capture: $out/$mode.trace opens in Instruments" >&2
elif command -v nsys >/dev/null && command -v nvidia-smi >/dev/null; then
    nsys profile --force-overwrite true --trace=cuda,nvtx,osrt --output "$out/$mode" "${decode[@]}"
    echo "capture: $out/$mode.nsys-rep opens in Nsight Systems" >&2
else
    echo "capture: neither xctrace nor nsys here; the built-in trace is all there is" >&2
fi
