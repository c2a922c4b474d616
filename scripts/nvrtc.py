#!/usr/bin/env python3
"""Compiles CUDA sources to machine code with NVRTC, without a GPU: nvrtc.py LIBRARY ARCH[,ARCH] [--cache DIR] FILE...

Prints a line per kernel: architecture, file, kernel, registers, bytes of stack frame, bytes of spill stores, bytes of spill
loads, bytes of static shared memory. Ends with 1 and the compiler's words if a file does not compile without a warning. Uses
every core; DIR keeps what was found by the hash of source, architecture and compiler.
"""
import argparse
import ctypes
import hashlib
import multiprocessing
import os
import re
import sys

LIBRARY = None


def load(path):
    """Opens NVRTC, which looks for its built-ins by name only."""
    global LIBRARY
    folder = os.path.dirname(os.path.abspath(path))
    for other in sorted(os.listdir(folder)):
        if other.startswith("libnvrtc-builtins"):
            ctypes.CDLL(os.path.join(folder, other), mode=ctypes.RTLD_GLOBAL)
    LIBRARY = ctypes.CDLL(path)


def compile_source(name, source, arch):
    """Whether it failed, and what the compiler said."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    LIBRARY.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 0, None, None)
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--ptxas-options=-v"]
    options = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = LIBRARY.nvrtcCompileProgram(program, len(options), options)
    LIBRARY.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    LIBRARY.nvrtcGetProgramLog(program, log)
    LIBRARY.nvrtcDestroyProgram(ctypes.byref(program))
    return failed, log.value.decode(errors="replace")


def kernels(log):
    """A line per kernel of a compiler's log."""
    kernel, stack = "", ("0", "0", "0")
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = found[1]
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack = found.groups()
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            yield " ".join([kernel, found[1], *stack, shared[1] if shared else "0"])


def measure(task):
    """The lines of a file for an architecture, or a complaint."""
    arch, path, cache = task
    with open(path, "rb") as file:
        source = file.read()
    version = [ctypes.c_int(), ctypes.c_int()]
    LIBRARY.nvrtcVersion(*map(ctypes.byref, version))
    key = f"{arch} {version[0].value}.{version[1].value} {os.stat(LIBRARY._name).st_size} ".encode() + source
    kept = os.path.join(cache, hashlib.sha256(key).hexdigest()) if cache else ""
    if kept and os.path.exists(kept):
        with open(kept) as file:
            return arch, path, file.read().splitlines(), ""
    failed, log = compile_source(os.path.basename(path), source, arch)
    if failed or "warning" in log:
        return arch, path, [], log
    lines = list(kernels(log))
    if kept:
        with open(f"{kept}.{os.getpid()}", "w") as file:
            file.write("".join(line + "\n" for line in lines))
        os.replace(f"{kept}.{os.getpid()}", kept)
    return arch, path, lines, ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("architectures", metavar="ARCH[,ARCH]")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--cache", default="", metavar="DIR")
    args = parser.parse_args()
    if args.cache:
        os.makedirs(args.cache, exist_ok=True)
    tasks = [(arch, path, args.cache) for arch in args.architectures.split(",") for path in args.files]
    # Processes, since a library compiles one program at a time.
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), load, (os.path.abspath(args.library),)) as pool:
        for done, (arch, path, lines, complaint) in enumerate(pool.imap(measure, tasks), 1):
            if done % 25 == 0 or done == len(tasks):
                print(f"nvrtc: {done} of {len(tasks)} units compiled", file=sys.stderr, flush=True)
            if complaint:
                sys.exit(f"{path} for {arch}:\n{complaint}")
            for line in lines:
                print(arch, os.path.basename(path), line)


if __name__ == "__main__":
    main()
