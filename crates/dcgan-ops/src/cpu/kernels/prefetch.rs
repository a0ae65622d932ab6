//! Software prefetch.
//!
//! Tiles access maps in short runs far apart, which hardware prefetchers do not predict, and a map is larger than the
//! caches of a core. Lines prefetched one row of tiles ahead arrive while other tiles are computed.

/// Prefetches the cache lines of `len` values from an address, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(from: *const f32, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..len).step_by(super::LANES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has it, and it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(offset).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, len);
}
