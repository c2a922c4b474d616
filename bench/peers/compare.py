"""Runs llama-bench and `amoeba bench` alternately on the same shapes; prints a markdown table, writes JSON.

Started by cpu.sh, which builds and generates everything. Each pair is one process of either engine, one right
after the other, the order swapped every time. A process that other work disturbed is repeated.
"""

import argparse
import json
import statistics
import sys

import gguf_synth
import machine

# name: (GGUF types, llama-bench flags)
VARIANTS = {
    "Q4_K_M": ("Q4_K_M", []),
    "Q4_0": ("Q4_0", []),
    "Q4_1-pure": ("Q4_1-pure", []),
    "Q4_K_M --repack 0": ("Q4_K_M", ["--repack", "0"]),
}


def parse_test(test):
    """`tg128` or `pp512`: tokens of prompt and of generation."""
    n = int(test[2:])
    return {"pp": (n, 0), "tg": (0, n)}[test[:2]]


def rates(samples_ns, test):
    return [sum(parse_test(test)) / (ns * 1e-9) for ns in samples_ns]


def parse_amoeba(stdout, test):
    """Tokens per second of each repetition from `amoeba bench --json`: one object per test, a line each."""
    for line in stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            if row["test"] == test:
                return rates(row["samples_ns"], test)
    raise SystemExit(f"amoeba bench printed no test {test}:\n{stdout}")


def parse_llama(stdout, test):
    """Tokens per second of each repetition from `llama-bench -o json`: a list, here of one test."""
    return rates(json.loads(stdout)[0]["samples_ns"], test)


def command(engine, args, model, variant, threads, test):
    prompt, generate = parse_test(test)
    sizes = ["-p", str(prompt), "-n", str(generate), "-r", str(args.reps), "-t", str(threads)]
    name = model.replace(":", "-")
    if engine == "amoeba":
        return [args.amoeba, "bench", f"{args.mlx_dir}/{name}", *sizes, *args.amoeba_args.split(), "--json"]
    types, flags = VARIANTS[variant]
    load = ["-lm", args.load_mode] if args.load_mode else []
    return [args.llama_bench, "-m", f"{args.gguf_dir}/{name}-{types}.gguf", *sizes, "-o", "json", *flags, *load]


def measure(engine, args, *what):
    """Tokens per second of each repetition of one process, and the cores others used."""
    stdout, others = machine.run_quietly(command(engine, args, *what), args.quiet, args.wait, args.tries)
    parse = parse_amoeba if engine == "amoeba" else parse_llama
    return parse(stdout, what[-1]), others


def quantile(values, q):
    values = sorted(values)
    x = q * (len(values) - 1)
    low = int(x)
    return values[low] + (x - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def spread(values, digits):
    p10, mid, p90 = (quantile(values, q) for q in (0.1, 0.5, 0.9))
    return f"{mid:.{digits}f} ({p10:.{digits}f}–{p90:.{digits}f})"


def finish(row):
    """Adds medians and percentiles."""
    for key in ("peer", "amoeba", "ratio"):
        if row[key]:
            row[f"{key}_median"] = statistics.median(row[key])
            row[f"{key}_p10"], row[f"{key}_p90"] = quantile(row[key], 0.1), quantile(row[key], 0.9)
    return row


def rows(args):
    """Measures everything; yields a row whenever one is complete."""
    engines = ["peer"] + (["amoeba"] if args.amoeba else [])
    for model in args.models.split(","):
        for threads in map(int, args.threads.split(",")):
            for test in args.tests.split(","):
                table = [
                    dict(model=model, threads=threads, test=test, variant=v, peer=[], amoeba=[], ratio=[], best={},
                         others=[])
                    for v in args.variants.split(",")
                ]
                for pair in range(args.pairs):
                    for row in table:
                        for engine in engines if pair % 2 == 0 else engines[::-1]:
                            samples, others = measure(engine, args, model, row["variant"], threads, test)
                            row[engine].append(statistics.median(samples))
                            row["best"][engine] = max(row["best"].get(engine, 0.0), *samples)
                            row["others"].append(others)
                        if args.amoeba:
                            row["ratio"].append(row["amoeba"][-1] / row["peer"][-1])
                        print(model, threads, test, row["variant"], "peer", row["peer"], "amoeba", row["amoeba"],
                              "best", row["best"], f"others {row['others'][-1]:.2f}", file=sys.stderr, flush=True)
                yield from map(finish, table)


def bandwidth(path):
    """Best median GB/s by threads from bw's output, largest buffer."""
    found = {}
    try:
        lines = [line.split() for line in open(path)]
    except FileNotFoundError:
        return found
    numbers = [line for line in lines if len(line) == 6 and line[0].isdigit()]
    largest = max((int(line[0]) for line in numbers), default=0)
    for size, threads, _pages, _streams, _best, median in numbers:
        if int(size) == largest:
            found[int(threads)] = max(found.get(int(threads), 0.0), float(median))
    return found


def markdown(result):
    """The table: one line per model, threads, test and variant; the peer's best variant of each test is bold."""
    read = result["bandwidth_gb_s"]
    lines = [
        "| model | threads | test | llama.cpp variant | llama.cpp tok/s | of bandwidth | amoeba tok/s | ratio per pair |",
        "|---|---:|---|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        same = [r for r in result["rows"] if all(r[k] == row[k] for k in ("model", "threads", "test"))]
        best = row["peer_median"] == max(r["peer_median"] for r in same)
        digits = 1 if row["peer_median"] < 100 else 0
        share = ""
        if row["test"].startswith("tg") and row["threads"] in read:
            moved = gguf_synth.token_bytes(gguf_synth.parse(row["model"]), VARIANTS[row["variant"]][0])
            share = f"{moved * row['peer_median'] / 1e9 / read[row['threads']]:.0%}"
        variant = f"**{row['variant']}**" if best else row["variant"]
        amoeba = spread(row["amoeba"], digits) if row["amoeba"] else ""
        ratio = spread(row["ratio"], 2) if row["ratio"] else ""
        lines.append(
            f"| {row['model']} | {row['threads']} | {row['test']} | {variant} | {spread(row['peer'], digits)} "
            f"| {share} | {amoeba} | {ratio} |"
        )
    disturbed = [row for row in result["rows"] if max(row["others"]) > result["quiet"]]
    lines.append("")
    lines.append(f"Median (p10–p90) over {result['pairs']} pairs. {len(disturbed)} of {len(result['rows'])} rows hold a "
                 f"run during which other work used more than {result['quiet']} cores.")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--gguf-dir", required=True)
    parser.add_argument("--mlx-dir", default="")
    parser.add_argument("--amoeba", default="", help="binary; empty measures the peer alone")
    parser.add_argument("--amoeba-args", default="", help='flags of its bench, as in "--activations int8"')
    parser.add_argument("--models", default="small,a3b:8")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--tests", default="tg128,pp64,pp512")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--reps", type=int, default=3, help="repetitions within a process; their median counts")
    parser.add_argument("--load-mode", default="", help="llama-bench -lm; empty for its default")
    parser.add_argument("--quiet", type=float, default=0.15, help="cores that others may use during a run")
    parser.add_argument("--wait", type=float, default=30, help="seconds to wait for quiet before a run")
    parser.add_argument("--tries", type=int, default=3, help="runs at most, while others disturb")
    parser.add_argument("--bandwidth", default="", help="file with bw's output")
    parser.add_argument("--out", required=True, help="JSON; rewritten after every test")
    args = parser.parse_args()
    result = {"machine": machine.describe(), "bandwidth_gb_s": bandwidth(args.bandwidth), "pairs": args.pairs,
              "reps": args.reps, "quiet": args.quiet, "load_mode": args.load_mode, "rows": []}
    for row in rows(args):
        result["rows"].append(row)
        with open(args.out, "w") as out:
            json.dump(result, out, indent=1)
    print(json.dumps(result["machine"]))
    print(f"read bandwidth GB/s by threads: {result['bandwidth_gb_s']}\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
