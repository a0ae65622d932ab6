//! What the process has used, and what it may use at most.

use std::fs::read_to_string;
use std::path::Path;

/// The largest memory that this process has held so far, in bytes; on Linux only.
pub fn peak_memory_bytes() -> Option<u64> {
    kilobytes(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The memory that this process can ever get, in bytes: what the machine has with its swap, or what the process's control
/// groups leave it; on Linux only.
pub fn machine_memory_bytes() -> Option<u64> {
    let memory = read_to_string("/proc/meminfo").ok()?;
    let machine =
        kilobytes(&memory, "MemTotal:")?.saturating_add(kilobytes(&memory, "SwapTotal:").unwrap_or(0));
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A group's limit counts for all groups in it. The root has no such file, but what a container sees as the root may have.
    let limits = Path::new(group).ancestors().filter_map(|group| {
        let folder = Path::new("/sys/fs/cgroup").join(group);
        read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok()
    });
    Some(limits.fold(machine, u64::min))
}

/// The value of a line `NAME   123 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_less_than_there_is() {
        let (peak, machine) = (peak_memory_bytes().unwrap(), machine_memory_bytes().unwrap());
        assert!(1 << 16 < peak && peak < machine, "{peak} of {machine}");
    }
}
