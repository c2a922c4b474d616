"""mlx-lm on the CPU: prefill and decode of a few tokens in float32 (bfloat16 is emulated there, 8x slower).

    python mlx_bench.py MODEL [-p N] [-n N] [-r R]

Prints one JSON object per test, like `amoeba bench --json`. Uses one core, whatever is asked.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model


def prefill(model, tokens):
    cache = make_prompt_cache(model)
    start = time.perf_counter_ns()
    mx.eval(model(mx.array([tokens]), cache=cache))
    return time.perf_counter_ns() - start


def decode(model, tokens):
    cache = make_prompt_cache(model)
    start = time.perf_counter_ns()
    for token in tokens:
        mx.eval(model(mx.array([[token]]), cache=cache))
    return time.perf_counter_ns() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("-p", type=int, default=6)
    parser.add_argument("-n", type=int, default=6)
    parser.add_argument("-r", type=int, default=3)
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    model, config = load_model(args.model)
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    for name, count, run in (("pp", args.p, prefill), ("tg", args.n, decode)):
        if not count:
            continue
        tokens = [(i * 7919) % config["vocab_size"] for i in range(count)]
        run(model, tokens[:1])
        samples = [run(model, tokens) for _ in range(args.r)]
        rate = count / (statistics.median(samples) * 1e-9)
        print(json.dumps({"test": f"{name}{count}", "tok_s_median": rate, "samples_ns": samples}), flush=True)


if __name__ == "__main__":
    main()
