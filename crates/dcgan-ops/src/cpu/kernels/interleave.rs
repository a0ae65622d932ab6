//! Rows of bf16 interleaved into pairs, as products read an operand whose depth is its rows.

use super::instantiate::instantiate;
use super::simd::{LANES, Simd};
use half::bf16;

#[inline(always)]
unsafe fn interleave_rows_body<S: Simd>(from: *const bf16, rows: usize, columns: usize, to: *mut bf16) {
    // SAFETY: the caller of `interleave_rows` vouches for all addresses.
    unsafe {
        let zeros = [bf16::ZERO; LANES];
        for row in (0..rows).step_by(2) {
            for column in (0..columns).step_by(LANES) {
                let first = from.add(row * columns + column);
                let second = if row + 1 < rows { first.add(columns) } else { zeros.as_ptr() };
                S::interleave(to.add(row * columns + 2 * column), first, second);
            }
        }
    }
}

instantiate! {
    bf16(true)
    /// Interleaves each two rows of `columns` values, a multiple of 16. Zeros pair with the last of an odd number of
    /// rows.
    ///
    /// # Safety
    /// `from` holds `rows` rows, and `to` the next even number of them.
    pub(super) fn interleave_rows(from: *const bf16, rows: usize, columns: usize, to: *mut bf16) = interleave_rows_body
}
