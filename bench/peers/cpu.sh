#!/usr/bin/env bash
# Compares Amoeba with llama.cpp on this machine's CPU: builds the peer, makes models of the same shapes for both,
# measures memory bandwidth, runs both engines alternately. See README.md.
#
#   bench/peers/cpu.sh [--work DIR] [--models LIST] [--amoeba BINARY] [--peer-only] [--mlx] [-- compare.py options]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${AMOEBA_PEERS:-$root/target/peers}
models=small,a3b:8
amoeba=
peer_only=0
mlx=0
while [ $# -gt 0 ]; do
    case $1 in
        --work) work=$2; shift 2 ;;
        --models) models=$2; shift 2 ;;
        --amoeba) amoeba=$2; shift 2 ;;
        --peer-only) peer_only=1; shift ;;
        --mlx) mlx=1; shift ;;
        --) shift; break ;;
        *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
mkdir -p "$work/gguf" "$work/mlx"
work=$(cd "$work" && pwd)
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
python=$work/venv/bin/python
export PATH="$work/venv/bin:$PATH"
jobs=$(nproc)

say() { printf '== %s\n' "$*" >&2; }

if [ ! -x "$python" ]; then
    say "python environment"
    python3 -m venv "$work/venv"
    "$python" -m pip install --quiet cmake ninja numpy
fi

if [ ! -x "$work/build/bin/llama-bench" ]; then
    say "llama.cpp from the llama-cpp-python source distribution"
    # Only this package from source: its build tools may come as wheels.
    ls "$work"/sdist/*.tar.gz > /dev/null 2>&1 ||
        "$python" -m pip download --quiet --no-binary llama-cpp-python --no-deps --dest "$work/sdist" \
            'llama-cpp-python==0.3.*'
    mkdir -p "$work/src"
    tar xzf "$(printf '%s\n' "$work"/sdist/*.tar.gz | sort -V | tail -n 1)" -C "$work/src" --strip-components=1
    flags=(-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF)
    if grep -qw amx_tile /proc/cpuinfo; then
        flags+=("-DCMAKE_C_FLAGS=-include $here/amx_fix.h" "-DCMAKE_CXX_FLAGS=-include $here/amx_fix.h")
    fi
    cmake -G Ninja -S "$work/src/vendor/llama.cpp" -B "$work/build" "${flags[@]}" > "$work/cmake.log"
    ninja -C "$work/build" -j "$jobs" llama-bench > "$work/build.log"
fi

if [ $peer_only = 0 ] && [ -z "$amoeba" ]; then
    say "amoeba"
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" -p amoeba
    amoeba=${CARGO_TARGET_DIR:-$root/target}/release/amoeba
fi

for model in ${models//,/ }; do
    name=${model/:/-}
    for variant in Q4_K_M Q4_0 Q4_1-pure; do
        file=$work/gguf/$name-$variant.gguf
        [ -f "$file" ] || "$python" "$here/gguf_synth.py" "$model" "$variant" "$file" >&2
    done
    if [ $peer_only = 0 ] && [ ! -f "$work/mlx/$name/config.json" ]; then
        rm -rf "${work:?}/mlx/$name"
        "$amoeba" synth "$model" "$work/mlx/$name" >&2
    fi
done

say "read bandwidth"
[ -x "$work/bw" ] || ${CC:-cc} -O3 -march=native -pthread "$here/bw.c" -o "$work/bw"
"$work/bw" | tee "$work/bw.txt" >&2

say "comparison"
options=(--llama-bench "$work/build/bin/llama-bench" --gguf-dir "$work/gguf" --mlx-dir "$work/mlx" --models "$models"
    --bandwidth "$work/bw.txt" --out "$work/cpu.json")
[ $peer_only = 1 ] || options+=(--amoeba "$amoeba")
"$python" "$here/compare.py" "${options[@]}" "$@" | tee "$work/cpu.md"

if [ $mlx = 1 ]; then
    say "mlx-lm"
    "$python" -m pip install --quiet 'mlx[cpu]' mlx-lm
    for model in ${models//,/ }; do
        echo "mlx-lm $model" | tee -a "$work/cpu.md"
        "$python" "$here/mlx_bench.py" "$work/mlx/${model/:/-}" | tee -a "$work/cpu.md"
    done
fi
