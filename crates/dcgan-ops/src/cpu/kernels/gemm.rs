//! Matrix products whose right side comes in panels of 64 columns, with the left side read where it lies.
//!
//! Sums stay in registers over the whole depth, so each value of the result is one chain of fused multiplications in the order
//! of the depth, whatever the shapes of tiles; nothing is packed here.

use super::simd::{LANES, Simd, instantiate};

/// Columns of a panel.
pub(crate) const PANEL: usize = 64;

/// The left side: value (i, k) lies at `i * row + (k / block) * block_stride + (k % block) * depth`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Distance between rows.
    pub(crate) row: usize,
    /// Distance between values of a row.
    pub(crate) depth: usize,
    /// Values of a row that lie `depth` apart before the next stretch of them.
    pub(crate) block: usize,
    /// Distance between such stretches.
    pub(crate) block_stride: usize,
}

/// What a product writes and how much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Rows of the left side and of the result.
    pub(crate) rows: usize,
    /// Values summed.
    pub(crate) depth: usize,
    /// Columns: a multiple of 16, at most 64.
    pub(crate) columns: usize,
    /// Distance between rows of the panel on the right.
    pub(crate) right_row: usize,
    /// Distance between rows of the result.
    pub(crate) out_row: usize,
    /// Whether the result is added to.
    pub(crate) accumulate: bool,
}

/// `MR` rows times `NV` vectors of columns.
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
    p: &Product,
    left: &Left,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
) {
    // SAFETY: the caller of `product` vouches for all addresses below.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; MR];
        if p.accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(out.add(i * p.out_row + j * LANES));
                }
            }
        }
        let (mut a, mut b, mut left_over) = (a, b, p.depth);
        while left_over > 0 {
            let block = left_over.min(left.block);
            let mut at = a;
            for _ in 0..block {
                let mut right = [S::splat(0.0); NV];
                for (j, right) in right.iter_mut().enumerate() {
                    *right = S::load(b.add(j * LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let value = S::splat(*at.add(i * left.row));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = S::fma(value, right, *sum);
                    }
                }
                at = at.add(left.depth);
                b = b.add(p.right_row);
            }
            a = a.wrapping_add(left.block_stride);
            left_over -= block;
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                S::store(out.add(i * p.out_row + j * LANES), sum);
            }
        }
    }
}

/// All rows of one strip of `NV` vectors, `MR` at a time.
#[inline(always)]
unsafe fn strip<S: Simd, const MR: usize, const NV: usize>(
    p: &Product,
    left: &Left,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
) {
    // SAFETY: the caller of `product` vouches for all addresses.
    unsafe {
        let mut row = 0;
        while row + MR <= p.rows {
            tile::<S, MR, NV>(p, left, a.add(row * left.row), b, out.add(row * p.out_row));
            row += MR;
        }
        if row + 6 <= p.rows {
            // Only the narrow strips have more than six rows a tile.
            tile::<S, 6, NV>(p, left, a.add(row * left.row), b, out.add(row * p.out_row));
            row += 6;
        }
        let (a, out) = (a.wrapping_add(row * left.row), out.wrapping_add(row * p.out_row));
        match p.rows - row {
            1 => tile::<S, 1, NV>(p, left, a, b, out),
            2 => tile::<S, 2, NV>(p, left, a, b, out),
            3 => tile::<S, 3, NV>(p, left, a, b, out),
            4 => tile::<S, 4, NV>(p, left, a, b, out),
            5 => tile::<S, 5, NV>(p, left, a, b, out),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn product_body<S: Simd>(p: &Product, left: &Left, a: *const f32, b: *const f32, out: *mut f32) {
    // SAFETY: the caller of `product` vouches for all addresses.
    unsafe {
        let vectors = p.columns / LANES;
        if S::WIDE {
            match vectors {
                4 => strip::<S, 6, 4>(p, left, a, b, out),
                3 => strip::<S, 6, 3>(p, left, a, b, out),
                2 => strip::<S, 6, 2>(p, left, a, b, out),
                _ => strip::<S, 12, 1>(p, left, a, b, out),
            }
        } else {
            for j in 0..vectors {
                strip::<S, 6, 1>(p, left, a, b.add(j * LANES), out.add(j * LANES));
            }
        }
    }
}

instantiate! {
    /// `out = A B` or `out += A B` for one panel `B` of at most 64 columns.
    ///
    /// # Safety
    /// Every value of the left side that `left` names for `p.rows` rows and `p.depth` values, `p.depth` rows of `p.columns`
    /// values of the panel, and `p.rows` rows of `p.columns` values of `out` lie within what the pointers point into, and nothing
    /// else touches `out` meanwhile.
    pub(crate) fn product(p: &Product, left: &Left, a: *const f32, b: *const f32, out: *mut f32) = product_body
}
