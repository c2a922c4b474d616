#!/usr/bin/env bash
# Runs a packed amoeba on a machine with an NVIDIA GPU, in the folder that `cargo xtask device-pack` made:
#
#   ./device_smoke.sh [-p PART,PART] [OUT]
#
#   doctor     what is there
#   ops        every kernel against its reference in f64, as CI runs them in emulation
#   verify     every model against its recorded results
#   memcheck, racecheck   the sanitizer on the ops, and on a model
#   gate       may the fast path be trusted: a synthetic model of GATE (a3b:1)
#   floor      what the memory delivers, what launches cost
#   synth      writes the measured model: a3b:LAYERS, random weights in the shape of Qwen3-30B-A3B, 4-bit
#   bench, deep, trace    speed of it, at 4096 cached positions too; what a token consists of
#   peers-build, peers    llama.cpp built with nvcc, and measured as well, if the pack has it; not unless named
#
# Everything goes to OUT (results/), summary.md is for docs/results. The parts up to gate run side by side (the sanitizer once
# the ops have compiled what it needs), those that measure run alone; each has a time limit. DEVICE names the device (cuda), LAYERS how many of 48 layers, FLAGS more flags of `bench`,
# MODELS where 18 GB of models (with peers 56 GB) may lie for a while (/dev/shm if there is room, else OUT); KEEP=1 leaves them
# there. The exit code is the number of parts that failed.
# shellcheck disable=SC2016,SC2329  # backquotes of Markdown; functions that a shell under `timeout` calls
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
parts=doctor,ops,verify,memcheck,racecheck,gate,floor,synth,bench,deep,trace
while getopts p: option; do
    case $option in
        p) parts=$OPTARG ;;
        *) sed -n '2,/^# shellcheck/s/^# \{0,1\}//p' "$0" >&2; exit 99 ;;
    esac
done
shift $((OPTIND - 1))
out=${1:-results}
device=${DEVICE:-cuda}
layers=${LAYERS:-48}
read -r -a flags <<<"${FLAGS:-}"
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here" || exit 99
amoeba=${AMOEBA:-$here/amoeba}
export XDG_CACHE_HOME=$out/cache

if [ -f programs.tar.xz ] && [ ! -x amoeba ]; then
    tar -xJf programs.tar.xz
fi
if [ -f nvrtc.tar.xz ] && [ ! -d nvrtc ]; then
    mkdir nvrtc && tar -xJf nvrtc.tar.xz -C nvrtc
fi
toolkit=${CUDA_HOME:-/usr/local/cuda}
for folder in "$here/nvrtc" "$toolkit/lib64" "$toolkit/targets/x86_64-linux/lib"; do
    [ ! -d "$folder" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
export PATH=$PATH:$toolkit/bin
sanitizer=${SANITIZER:-compute-sanitizer}
if [ -z "${MODELS:-}" ]; then
    MODELS=$out
    free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${free:-0}" -lt 24000000 ] || MODELS=/dev/shm
fi
model=$MODELS/amoeba-a3b-$layers
started=$(date +%s)

wanted() { case ",$parts," in *",$1,"*) true ;; *) false ;; esac; }

# run NAME LIMIT COMMAND…: output to OUT/NAME.txt, the command (or what SAID says it is) to OUT/NAME.command, how it ended to
# OUT/NAME.status
run() {
    local name=$1 limit=$2 start code how
    shift 2
    wanted "$name" || return 0
    start=$(date +%s)
    printf '%s\n' "${SAID:-$*}" | sed "s|$here/||g; s|$out/||g" >"$out/$name.command"
    timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>&1
    code=$?
    case $code in
        0) how=passed ;;
        124 | 137) how="stopped after $limit s" ;;
        *) how="failed, exit $code" ;;
    esac
    echo "$how, $(($(date +%s) - start)) s" >"$out/$name.status"
    echo "== $name: $(cat "$out/$name.status")"
    tail -n "${TAIL:-3}" "$out/$name.txt"
}

# Every folder, four to a process, eight processes at a time; one table of all.
verify_all() {
    rm -rf "$out/verify" && mkdir "$out/verify"
    # Some folders hold no model.
    for file in fixtures/*/expected.json; do printf '%s\0' "${file%/*}"; done | xargs -0 -P "${JOBS:-8}" -n 4 sh -c '
        to=$1/$$ && amoeba=$2 && device=$3 && shift 3
        "$amoeba" verify "$@" --device "$device" --markdown >"$to.md" 2>"$to.err"' - "$out/verify" "$amoeba" "$device"
    local code=$?
    head -qn 2 "$out"/verify/*.md | head -n 2
    tail -qn +3 "$out"/verify/*.md | sort
    cat "$out"/verify/*.err
    return "$code"
}

sanitize() {
    local tool=$1
    AMOEBA_OPS=few "$sanitizer" --tool "$tool" --error-exitcode 9 ./ops -q &&
        "$sanitizer" --tool "$tool" --error-exitcode 9 "$amoeba" verify fixtures/qwen3_moe-q4g64 --device "$device"
}

gate() {
    local model=$MODELS/amoeba-gate
    rm -rf "$model"
    "$amoeba" synth "${GATE:-a3b:1}" "$model" &&
        "$amoeba" gate "$model" --device "$device" --fast --json "$out/gate.json"
    local code=$?
    rm -rf "$model"
    return "$code"
}

summary() {
    local name how text
    name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
    echo "# ${name:-no GPU}"
    echo
    echo "$(date -u +%F), commit $(cat pack.txt 2>/dev/null || echo unknown), \`device_smoke.sh -p $parts\`," \
        "$(($(date +%s) - started)) s in all, \`--device $device\`."
    echo "Host: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores."
    echo
    sed 's/^/    /' "$out/machine.txt"
    printf '\n| part | |\n|---|---|\n'
    for name in ${parts//,/ }; do
        how=$(cat "$out/$name.status" 2>/dev/null || echo "not run")
        echo "| $name | $how |"
    done
    for name in ${parts//,/ }; do
        text=$out/$name.txt
        [ -s "$text" ] || continue
        printf '\n## %s\n\n`%s`\n\n' "$name" "$(cat "$out/$name.command")"
        # Tables stand as they are, the end of all else as code.
        if grep -q '^|---' "$text"; then
            grep '^|' "$text"
            grep -q passed "$out/$name.status" || printf '\n%s\n' "$(grep -v '^|' "$text" | tail -n 20 | sed 's/^/    /')"
        else
            tail -n 40 "$text" | sed 's/^/    /'
        fi
    done
}

export -f verify_all sanitize gate
export out amoeba device sanitizer MODELS
{
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,memory.total --format=csv,noheader ||
        echo "no nvidia-smi"
    nvcc --version | tail -n 2
} >"$out/machine.txt" 2>/dev/null
rm -f "$out"/*.status

TAIL=30 run doctor 30 "$amoeba" doctor
if [ "${device#cuda}" != "$device" ] && [ -x ops ]; then
    index=${device#cuda}
    index=${index#:}
    export AMOEBA_OPS_DEVICE=${index:-0}
    export AMOEBA_OPS_CACHE=$XDG_CACHE_HOME/ops # also for the sanitizer, which so has nothing to compile
    {
        run ops 60 ./ops -q
        if command -v "$sanitizer" >/dev/null; then
            for tool in memcheck racecheck; do
                SAID="AMOEBA_OPS=few compute-sanitizer --tool $tool ./ops; the same of amoeba verify fixtures/qwen3_moe-q4g64" \
                    run "$tool" 90 bash -c "sanitize $tool" &
            done
            wait
        fi
    } &
fi
SAID="amoeba verify fixtures/* --device $device --markdown" run verify 80 bash -c verify_all &
SAID="amoeba synth ${GATE:-a3b:1} MODEL; amoeba gate MODEL --device $device --fast" run gate 75 bash -c gate &
[ -f "$model/config.json" ] || rm -rf "$model"
[ -f "$model/config.json" ] || run synth 90 "$amoeba" synth "a3b:$layers" "$model" &
wait
run floor 20 "$amoeba" bench --floor --device "$device"
TAIL=8 run bench 60 "$amoeba" bench "$model" --device "$device" -p 512 -n 128 -o json --output-file "$out/bench.json" \
    ${flags[@]+"${flags[@]}"}
TAIL=8 run deep 60 "$amoeba" bench "$model" --device "$device" -p 0 -n 64 -d 4096 -r 3 -o json \
    --output-file "$out/deep.json" ${flags[@]+"${flags[@]}"}
TAIL=20 run trace 40 "$amoeba" trace "$model" --device "$device" -n 8 -o "$out/trace.json" --svg "$out/trace.svg"
peers=(peers/gpu.sh --work "$MODELS/amoeba-peers" --amoeba "$amoeba" --mlx "$model" --out "$out")
run peers-build 480 "${peers[@]}" --build
TAIL=20 run peers 420 "${peers[@]}" -- --device "$device" --seconds "${SECONDS_PEERS:-300}" --amoeba-args="${FLAGS:---kv-cache f16}"
[ -n "${KEEP:-}" ] || rm -rf "$model" "$MODELS/amoeba-peers"
rm -rf "$XDG_CACHE_HOME"

summary >"$out/summary.md"
read -r -d '' -a failed < <(grep -Lw passed "$out"/*.status | sed 's|.*/||; s|\.status$||')
echo "device_smoke: $(($(date +%s) - started)) s; failed: ${failed[*]:-none}; see $out/summary.md"
exit ${#failed[@]}
