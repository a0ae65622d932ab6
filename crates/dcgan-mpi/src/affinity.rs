//! The cores that a process may use, shared with others of its host.

/// Bytes of [`cores`].
pub(crate) const BYTES: usize = 128;

/// The cores this process may run on, a bit each; all zero where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn cores() -> [u8; BYTES] {
    let mut bits = [0; BYTES];
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        let known = rustix::thread::CpuSet::MAX_CPU.min(8 * BYTES);
        (0..known).filter(|&core| set.is_set(core)).for_each(|core| bits[core / 8] |= 1 << (core % 8));
    }
    bits
}

/// The cores this process may run on, a bit each; all zero where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn cores() -> [u8; BYTES] {
    [0; BYTES]
}

/// Threads for process `own`, so that the processes of a host that may use the same cores divide them. Each process is
/// its host and its cores.
pub(crate) fn threads(own: usize, processes: &[(&str, &[u8])]) -> usize {
    let (host, cores) = processes[own];
    let shared = processes.iter().filter(|(other, others)| *other == host && *others == cores).count();
    let known: u32 = cores.iter().map(|byte| byte.count_ones()).sum();
    let available = match known {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        known => known as usize,
    };
    (available / shared).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_on_the_same_cores_divide_them() {
        let (low, high, all) = ([0b0000_1111_u8], [0b1111_0000_u8], [0b1111_1111_u8]);
        type Row<'a> = (&'a [(&'a str, &'a [u8])], &'a [usize]);
        let rows: [Row<'_>; 4] = [
            (&[("a", &all)], &[8]),
            (&[("a", &all), ("a", &all), ("b", &all)], &[4, 4, 8]),
            // Bound by the launcher.
            (&[("a", &low), ("a", &high)], &[4, 4]),
            (&[("a", low.as_slice()); 5], &[1; 5]),
        ];
        for (processes, expected) in rows {
            let found: Vec<usize> = (0..processes.len()).map(|own| threads(own, processes)).collect();
            assert_eq!(found, expected, "{processes:?}");
        }
    }
}
