"""Runs llama-bench and `amoeba bench` alternately on one NVIDIA GPU; prints a markdown table, writes JSON.

Started by gpu.sh. A round is one process of each engine and file, all tests in it, the order reversed every time; ratios are
taken within a round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import compare
import gguf_synth
import machine

FLASH = {0: "off", 1: "on"}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def sizes(args):
    return ["-p", args.prompt, "-n", args.generate, "-d", args.depths, "-r", str(args.reps)]


def rate(tokens, samples_ns):
    """Tokens per second of the median repetition."""
    return tokens / (statistics.median(samples_ns) * 1e-9)


def llama(args, types):
    """{(test, flash attention): tok/s} of one process."""
    command = [args.llama_bench, "-m", f"{args.gguf}-{types}.gguf", *sizes(args), "-fa", "0,1", "-ngl", "99", "-o", "json"]
    found = {}
    for row in json.loads(run(command)):
        prompt, generate, depth = row["n_prompt"], row["n_gen"], row["n_depth"]
        name = f"pp{prompt}" if prompt else f"tg{generate}"
        name += f"@{depth}" if depth else ""
        found[name, int(row["flash_attn"])] = rate(prompt + generate, row["samples_ns"])
    return found


def amoeba(args):
    """{test: its row, with tok/s} of one process."""
    command = [args.amoeba, "bench", args.mlx, "--device", args.device, *sizes(args), *args.amoeba_args.split(), "--json"]
    rows = [json.loads(line) for line in run(command).splitlines() if line.startswith("{")]
    return {row["test"]: row | {"tok_s": rate(row["tokens"], row["samples_ns"])} for row in rows}


def state():
    """Clock, power and temperature just now."""
    query = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw,temperature.gpu", "--format=csv,noheader"]
    try:
        return run(query).strip()
    except FileNotFoundError:
        return ""


def rounds(args, kinds):
    """Measures until there are enough rounds or no time is left."""
    began, found = time.monotonic(), []
    while len(found) < args.rounds:
        spent = time.monotonic() - began
        if found and spent + spent / len(found) > args.seconds:
            print(f"no time for another round: {len(found)} of {args.rounds}", file=sys.stderr)
            break
        order = ["amoeba", *kinds]
        this = {}
        for engine in order if len(found) % 2 == 0 else order[::-1]:
            this[engine] = amoeba(args) if engine == "amoeba" else llama(args, engine)
            print(f"round {len(found) + 1}: {engine}, {time.monotonic() - began:.0f} s, {state()}", file=sys.stderr, flush=True)
        found.append(this)
    return found


def table(found, kinds, spec):
    """A line per test, file and flash attention; the peer's best of each test is bold."""
    lines = [
        "| test | llama.cpp | flash attention | llama.cpp tok/s | of bandwidth | amoeba tok/s | of bandwidth | ratio per pair |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for test, row in found[0]["amoeba"].items():
        ours = [this["amoeba"][test]["tok_s"] for this in found]
        peers = {
            (kind, flash): [this[kind][test, flash] for this in found] for kind in kinds for flash in FLASH
        }
        best = max(peers, key=lambda key: statistics.median(peers[key]))
        read = row["bandwidth_gb_s"] if row["kind"] == "decode" and not row["depth"] else None

        def share(rates, moved):
            return f"{statistics.median(rates) * moved / 1e9 / read:.0%}" if read else ""

        for (kind, flash), theirs in peers.items():
            moved = gguf_synth.token_bytes(gguf_synth.parse(spec), kind)
            ratio = [a / b for a, b in zip(ours, theirs)]
            name = f"**{kind}**" if (kind, flash) == best else kind
            digits = 0 if statistics.median(theirs) >= 100 else 1
            lines.append(
                f"| {test} | {name} | {FLASH[flash]} | {compare.spread(theirs, digits)} | {share(theirs, moved)} "
                f"| {compare.spread(ours, digits)} | {share(ours, row.get('bytes_per_token') or 0)} "
                f"| {compare.spread(ratio, 2)} |"
            )
    lines += ["", f"Median (p10–p90) over {len(found)} rounds. Ratio above 1: Amoeba is faster. Bold: llama.cpp's best."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--amoeba", required=True)
    parser.add_argument("--gguf", required=True, help="start of the names of the files, up to -Q4_K_M.gguf")
    parser.add_argument("--mlx", required=True, help="folder of `amoeba synth`")
    parser.add_argument("--spec", default="a3b:48", help="what both have the shape of")
    parser.add_argument("--kinds", default="Q4_K_M,Q4_0")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--amoeba-args", default="", help='flags of its bench, as in "--kv-cache f16"')
    parser.add_argument("--prompt", default="512")
    parser.add_argument("--generate", default="128")
    parser.add_argument("--depths", default="0,4096")
    parser.add_argument("--reps", type=int, default=3, help="repetitions within a process; their median counts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=300, help="no round is begun that would not end by then")
    parser.add_argument("--out", required=True, help="JSON")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    found = rounds(args, kinds)
    flat = [
        {engine: ({f"{t} fa {f}": v for (t, f), v in rows.items()} if engine != "amoeba" else rows) for engine, rows in this.items()}
        for this in found
    ]
    with open(args.out, "w") as out:
        json.dump({"machine": machine.describe(), "spec": args.spec, "reps": args.reps, "rounds": flat}, out, indent=1)
    print(table(found, kinds, args.spec))


if __name__ == "__main__":
    main()
