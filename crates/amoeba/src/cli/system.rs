//! What this machine has, and what the program was built from. Linux has the former in files; elsewhere it is
//! `None`.
use std::fs::read_to_string;
use std::path::Path;

use amoeba_harness::bench::{Build, Host};
use amoeba_kernels::simd::Isa;

/// Memory that may still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that can be had now.
    pub available: u64,
    /// Whether a control group (a container) sets the limit.
    pub limited: bool,
}

/// What this program was built from.
pub fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("AMOEBA_COMMIT").to_owned(),
        dirty: env!("AMOEBA_DIRTY") == "true",
        rustc: env!("AMOEBA_RUSTC").to_owned(),
    }
}

/// This machine.
pub fn host() -> Host {
    Host {
        cpu: processor().unwrap_or_else(|| "unknown".to_owned()),
        cores: cores(),
        isa: Isa::best().to_string(),
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

/// Memory of the machine or of the container, whichever has less to give.
pub fn memory() -> Option<Memory> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let machine = Memory {
        total: kilobytes(&info, "MemTotal:")?,
        available: kilobytes(&info, "MemAvailable:")?,
        limited: false,
    };
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = control_groups(&groups, Path::new("/sys/fs/cgroup"));
    Some(
        limits
            .into_iter()
            .fold(machine, |least, next| if next.available < least.available { next } else { least }),
    )
}

/// The most memory this process has held.
pub fn peak_memory() -> Option<u64> {
    kilobytes(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Forgets the most memory held, so that [`peak_memory`] counts from now on; where that is refused it does
/// not.
pub fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5"); // Linux: proc_pid_clear_refs(5)
}

/// Seconds of processor time that everything but this process has used since the start of the machine, what a
/// hypervisor kept for itself included.
pub fn others() -> Option<f64> {
    let all = read_to_string("/proc/stat").ok()?;
    let own = read_to_string("/proc/self/stat").ok()?;
    let (all, own) = ticks(&all, &own)?;
    Some((all - own) as f64 / 100.0) // both files count in ticks of USER_HZ, which is 100
}

/// Ticks of all processes and of this one, from `/proc/stat` and `/proc/self/stat`.
fn ticks(all: &str, own: &str) -> Option<(i64, i64)> {
    let number = |field: &str| field.parse::<i64>().ok();
    let of_all: Vec<i64> = all.lines().next()?.split_whitespace().skip(1).filter_map(number).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal; guests are part of user
    let busy = [0, 1, 2, 5, 6, 7].map(|field| of_all.get(field).copied().unwrap_or(0));
    // The name in brackets may hold blanks; user and system time are the twelfth and thirteenth field after
    // it.
    let mut fields = own.rsplit_once(')')?.1.split_whitespace().skip(11).filter_map(number);
    Some((busy.iter().sum(), fields.next()? + fields.next()?))
}

/// The name of the processor.
pub fn processor() -> Option<String> {
    let info = read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Clock of the cores now, mean in MHz, as the system last read it.
pub fn clock() -> Option<f64> {
    megahertz(&read_to_string("/proc/cpuinfo").ok()?)
}

fn megahertz(info: &str) -> Option<f64> {
    let lines =
        info.lines().filter_map(|line| line.strip_prefix("cpu MHz")?.split_once(':')?.1.trim().parse().ok());
    let clocks: Vec<f64> = lines.collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

/// Cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The number after `key`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Limits of the control groups (version 2, or the memory controller of version 1) that hold this process.
fn control_groups(groups: &str, root: &Path) -> Vec<Memory> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (home, limit, usage) = match controllers {
            "" => (root.to_path_buf(), "memory.max", "memory.current"),
            list if list.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        let group = home.join(path.trim_start_matches('/'));
        for dir in group.ancestors().take_while(|dir| dir.starts_with(&home)) {
            let number = |file: &str| read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
            let Some((total, used)) = number(limit).zip(number(usage)) else { continue };
            // File pages count as used, but are given back when asked for.
            let stat = read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
            let cached = cached.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
            let available = total.saturating_sub(used.saturating_sub(cached));
            found.push(Memory { total, available, limited: true });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let text = "MemTotal:       24 kB\nMemAvailable:   7 kB\nBroken: 7\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(7168));
        assert_eq!([kilobytes(text, "Broken:"), kilobytes(text, "None:")], [None, None]);
    }

    #[test]
    fn clocks_of_all_cores_are_averaged() {
        assert_eq!(megahertz("cpu MHz\t\t: 3000.5\nbogus\ncpu MHz : 1000.5\n"), Some(2000.5));
        assert_eq!(megahertz("cpu MHz"), None);
    }

    #[test]
    fn processor_time_of_all_and_of_one_is_read() {
        let all = "cpu  100 20 30 4000 50 6 7 8 1 0\ncpu0 1 1 1\n";
        let own = "12 (a b) c) R 1 2 3 4 5 6 7 8 9 10 70 9 0 0 20";
        assert_eq!(ticks(all, own), Some((171, 79)));
        assert_eq!(ticks("", own), None);
        assert_eq!(ticks(all, "12 (a) R 1"), None);
    }

    #[test]
    fn control_groups_of_both_versions_limit_memory() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        write("a/memory.max", "100\n");
        write("a/memory.current", "60\n");
        write("a/memory.stat", "anon 5\ninactive_file 20\n");
        let limit = Memory { total: 100, available: 60, limited: true };
        assert_eq!(control_groups("0::/a/b\n", root.path()), [limit]);
        write("memory/memory.limit_in_bytes", "50");
        write("memory/memory.usage_in_bytes", "60");
        let none = Memory { total: 50, available: 0, limited: true };
        assert_eq!(control_groups("4:cpu,memory:/\nnonsense\n", root.path()), [none]);
    }
}
