//! Peak memory of the process, and the memory available to it.

use std::fs::read_to_string;
use std::path::Path;

/// Peak resident memory of this process in bytes. Linux only.
pub fn peak_memory_bytes() -> Option<u64> {
    kilobytes(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Memory available to this process in bytes: RAM plus swap of the machine, or the limit of the process's control group
/// if that is lower. Linux only.
pub fn machine_memory_bytes() -> Option<u64> {
    let memory = read_to_string("/proc/meminfo").ok()?;
    let machine =
        kilobytes(&memory, "MemTotal:")?.saturating_add(kilobytes(&memory, "SwapTotal:").unwrap_or(0));
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A limit applies to all nested groups. The root group has no memory.max, but the root seen from a container can.
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
    fn peak_memory_is_below_machine_memory() {
        let (peak, machine) = (peak_memory_bytes().unwrap(), machine_memory_bytes().unwrap());
        assert!(1 << 16 < peak && peak < machine, "{peak} of {machine}");
    }
}
