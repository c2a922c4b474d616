#!/usr/bin/env python3
"""Compiles CUDA sources to machine code with NVRTC, without a GPU: nvrtc.py LIBRARY ARCH FILE...

Prints a line per kernel: file, kernel, registers, bytes of stack frame, bytes of spill stores, bytes of spill loads, bytes of
static shared memory. Ends with 1 and the compiler's words if a file does not compile.
"""
import ctypes
import os
import re
import sys


def text(lib, size_of, get, program):
    size = ctypes.c_size_t()
    getattr(lib, size_of)(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(lib, get)(program, buffer)
    return buffer.value.decode(errors="replace")


def compile_file(lib, arch, path):
    with open(path, "rb") as source:
        source = source.read()
    program = ctypes.c_void_p()
    lib.nvrtcCreateProgram(ctypes.byref(program), source, os.path.basename(path).encode(), 0, None, None)
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--ptxas-options=-v"]
    options = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = lib.nvrtcCompileProgram(program, len(options), options)
    log = text(lib, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog", program)
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    return failed, log


def main():
    library, arch, *files = sys.argv[1:]
    folder = os.path.dirname(os.path.abspath(library))
    for other in sorted(os.listdir(folder)):  # NVRTC looks for its built-ins by name only
        if other.startswith("libnvrtc-builtins"):
            ctypes.CDLL(os.path.join(folder, other), mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(library)
    for path in files:
        failed, log = compile_file(lib, arch, path)
        if failed or "warning" in log:
            sys.exit(f"{path} for {arch}:\n{log}")
        kernel, stack = "", ("0", "0", "0")
        for line in log.splitlines():
            if found := re.search(r"Compiling entry function '(\w+)'", line):
                kernel = found[1]
            elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                stack = found.groups()
            elif found := re.search(r"Used (\d+) registers", line):
                shared = re.search(r"(\d+) bytes smem", line)
                print(os.path.basename(path), kernel, found[1], *stack, shared[1] if shared else "0")


if __name__ == "__main__":
    main()
