#!/usr/bin/env bash
# Runs a packed amoeba on a machine with an NVIDIA GPU: what is there, every model against its recorded results, the sanitizer
# on one of them, and speed at the shape of Qwen3-30B-A3B with random weights.
#
#   ./device_smoke.sh [OUT]        in the folder that `cargo xtask device-pack` made
#
# Everything goes to OUT (results/ unless given), one file per part; the last lines say what failed. DEVICE names the device
# (cuda), LAYERS how many of the 48 layers the measured model has (48), FLAGS more flags of `bench`. Needs about 20 GB of disk
# for 48 layers. The exit code is the number of parts that failed.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-results}
device=${DEVICE:-cuda}
layers=${LAYERS:-48}
read -r -a flags <<<"${FLAGS:-}"
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here" || exit 99
amoeba=${AMOEBA:-$here/amoeba}
export XDG_CACHE_HOME=$out/cache

if [ -f nvrtc.tar.xz ] && [ ! -d nvrtc ]; then
    mkdir nvrtc && tar -xJf nvrtc.tar.xz -C nvrtc
fi
if [ -d nvrtc ]; then
    export LD_LIBRARY_PATH="$here/nvrtc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

failed=()
# part NAME COMMAND…: output to OUT/NAME.txt, its end and its time here
part() {
    local name=$1 start code
    shift
    start=$(date +%s)
    echo "== $name: $*"
    "$@" >"$out/$name.txt" 2>&1
    code=$?
    tail -n "${TAIL:-4}" "$out/$name.txt"
    echo "== $name: exit $code after $(($(date +%s) - start)) s"
    [ "$code" -eq 0 ] || failed+=("$name")
}

{
    date -u
    nvidia-smi 2>&1
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit --format=csv 2>&1
} >"$out/machine.txt"
TAIL=30 part doctor "$amoeba" doctor
part verify "$amoeba" verify fixtures/*/ --device "$device" --markdown
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        part "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$amoeba" verify fixtures/qwen3_moe-q4g64 --device "$device"
    done
fi
part floor "$amoeba" bench --floor --device "$device"
model=$out/model
part synth "$amoeba" synth "a3b:$layers" "$model"
TAIL=12 part bench "$amoeba" bench "$model" --device "$device" -p 512 -n 128 -o json --output-file "$out/bench.json" \
    ${flags[@]+"${flags[@]}"}
TAIL=12 part bench-deep "$amoeba" bench "$model" --device "$device" -p 0 -n 64 -d 4096 -o json \
    --output-file "$out/bench-deep.json" ${flags[@]+"${flags[@]}"}
rm -rf "$model" "$XDG_CACHE_HOME"

if [ ${#failed[@]} -eq 0 ]; then
    echo "device_smoke: every part passed; results in $out"
else
    echo "device_smoke: failed: ${failed[*]}; see $out"
fi
exit ${#failed[@]}
