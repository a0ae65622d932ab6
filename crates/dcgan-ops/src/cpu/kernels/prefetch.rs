//! Memory asked for before it is needed.
//!
//! Tiles read and write maps in short stretches far from each other, which no processor foresees; and a map is larger than the
//! caches near a core. Asked for a little ahead, the lines come while other tiles are worked on.

/// Asks for the cache lines of `len` values from an address, which nothing is done to.
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
