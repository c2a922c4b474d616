#!/usr/bin/env bash
# Compares Amoeba with llama.cpp on one NVIDIA GPU: builds the peer with nvcc, makes models of the same shape for both, runs
# both engines alternately. See README.md.
#
#   bench/peers/gpu.sh [--work DIR] [--spec a3b:48] [--kinds Q4_K_M,Q4_0] [--amoeba BINARY] [--mlx DIR] [--llama-bench BINARY]
#                      [--out DIR] [-- gpu.py options]
#   bench/peers/gpu.sh --build [--work DIR]               llama.cpp alone
#   bench/peers/gpu.sh --trim SDIST.tar.gz OUT.tar.xz     what of llama-cpp-python's sources is built here, 2 MB
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${AMOEBA_PEERS:-$root/target/peers-gpu}
spec=a3b:48
kinds=Q4_K_M,Q4_0
amoeba='' mlx='' bench='' out='' build_only=''

# The part of llama.cpp that llama-bench needs, with the backends for CPU and CUDA: trim SDIST DIR
trim() {
    local at='*/vendor/llama.cpp' part files=()
    for part in CMakeLists.txt LICENSE 'cmake/*' 'include/*' 'src/*' 'common/*' 'vendor/*' 'tools/llama-bench/*' \
        ggml/CMakeLists.txt 'ggml/cmake/*' 'ggml/include/*' 'ggml/src/*'; do
        files+=("$at/$part")
    done
    tar xzf "$1" -C "$2" --strip-components=3 --wildcards "${files[@]}" \
        --exclude '*/ggml/src/ggml-[abd-z]*/*' --exclude '*/ggml/src/ggml-cann/*'
}

while [ $# -gt 0 ]; do
    case $1 in
        --work) work=$2; shift 2 ;;
        --spec) spec=$2; shift 2 ;;
        --kinds) kinds=$2; shift 2 ;;
        --amoeba) amoeba=$2; shift 2 ;;
        --mlx) mlx=$2; shift 2 ;;
        --llama-bench) bench=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --build) build_only=1; shift ;;
        --trim)
            folder=$(mktemp -d)
            trim "$2" "$folder"
            tar cJf "$3" -C "$folder" .
            rm -rf "$folder"
            exit ;;
        --) shift; break ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
mkdir -p "$work"
work=$(cd "$work" && pwd)
out=${out:-$work}
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export PATH="$work/venv/bin:$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"
began=$(date +%s)
say() { printf '== %s s: %s\n' $(($(date +%s) - began)) "$*" >&2; }

# What is there is used; only what is missing comes from the Python package index.
python() { if [ -x "$work/venv/bin/python" ]; then "$work/venv/bin/python" "$@"; else python3 "$@"; fi; }
need() {
    say "python environment with $*"
    [ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
    python -m pip install --quiet "$@"
}
[ -n "$bench" ] || [ ! -x "$here/llama-bench" ] || bench=$here/llama-bench
if [ -z "$bench" ]; then
    bench=$work/build/bin/llama-bench
    if [ ! -x "$bench" ]; then
        command -v nvcc >/dev/null || { echo "gpu.sh: no nvcc: install the CUDA toolkit, or name a llama-bench" >&2; exit 1; }
        { command -v cmake && command -v ninja; } >/dev/null || need cmake ninja
        rm -rf "$work/src"
        mkdir -p "$work/src/llama.cpp"
        if [ -f "$here/llama.tar.xz" ]; then
            tar xJf "$here/llama.tar.xz" -C "$work/src/llama.cpp"
        else
            say "source distribution of llama-cpp-python"
            compgen -G "$work/sdist/*.tar.gz" >/dev/null ||
                python -m pip download --quiet --no-binary llama-cpp-python --no-deps --no-build-isolation \
                    --dest "$work/sdist" 'llama-cpp-python==0.3.*'
            trim "$(printf '%s\n' "$work"/sdist/*.tar.gz | sort -V | tail -n 1)" "$work/src/llama.cpp"
        fi
        cat >"$work/src/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.18)
project(peer C CXX)
add_subdirectory(llama.cpp)
add_subdirectory(llama.cpp/tools/llama-bench)
END
        say "llama.cpp with nvcc, $(nproc) jobs; see $work/build.log"
        cmake -G Ninja -S "$work/src" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_CUDA=ON \
            -DGGML_NATIVE=ON -DLLAMA_BUILD_COMMON=ON -DLLAMA_OPENSSL=OFF -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$work/build/bin" \
            >"$work/cmake.log" 2>&1 || { tail -n 20 "$work/cmake.log" >&2; exit 1; }
        ninja -C "$work/build" llama-bench >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; exit 1; }
        say "llama.cpp is built"
    fi
fi

[ -z "$build_only" ] || exit 0
python -c 'import numpy' 2>/dev/null || need numpy

if [ -z "$amoeba" ]; then
    say "amoeba"
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" -p amoeba
    amoeba=${CARGO_TARGET_DIR:-$root/target}/release/amoeba
fi

# In memory where there is room: every process loads its file anew.
name=${spec/:/-}
for kind in ${kinds//,/ }; do
    file=$work/$name-$kind.gguf
    [ -f "$file" ] || python "$here/gguf_synth.py" "$spec" "$kind" "$file" >&2
done
mlx=${mlx:-$work/mlx-$name}
if [ ! -f "$mlx/config.json" ]; then
    rm -rf "${mlx:?}"
    "$amoeba" synth "$spec" "$mlx" >&2
fi

say "comparison"
python "$here/gpu.py" --llama-bench "$bench" --amoeba "$amoeba" --gguf "$work/$name" --mlx "$mlx" --spec "$spec" \
    --kinds "$kinds" --out "$out/peers.json" "$@" | tee "$out/peers.md"
