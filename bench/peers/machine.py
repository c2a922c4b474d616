"""What the machine is, and how busy it is with other work."""

import os
import platform
import resource
import subprocess
import time


def describe():
    model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    flags = next((l.split(":", 1)[1].split() for l in open("/proc/cpuinfo") if l.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "features": [flag for flag in wanted if flag in flags],
        "kernel": platform.release(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": os.getloadavg(),
    }


def busy():
    """CPU seconds spent by everyone, time stolen by the hypervisor included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(limit, seconds):
    """Waits until others use fewer than `limit` cores, for at most that long."""
    until = time.monotonic() + seconds
    while True:
        before = busy()
        time.sleep(0.5)
        if (busy() - before) / 0.5 <= limit or time.monotonic() > until:
            return


def run(command):
    """Runs a command; its output, and how many cores others used meanwhile."""
    before, start = busy(), time.monotonic()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.monotonic() - start
    mine = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout, max(0.0, (busy() - before - mine) / wall)


def run_quietly(command, limit, wait, tries):
    """Runs a command again while others disturb it; the least disturbed output and the cores others used."""
    best = None
    for _ in range(tries):
        wait_for_quiet(limit, wait)
        found = run(command)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] <= limit:
            break
    return best
