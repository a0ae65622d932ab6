//! Matrix products whose right side comes in panels of 64 columns, with the left side read where it lies.
//!
//! Each value of the result is one chain of fused multiplications in the order of the depth, whatever the shapes of tiles;
//! nothing is packed here. Values are f32, or bf16 in groups of two ([`Value`]).

use super::simd::{LANES, Simd, instantiate};
use super::value::Value;
use half::bf16;

/// Columns of a panel.
pub(crate) const PANEL: usize = 64;

/// The left side: group (i, k) lies at `i * row + (k / block) * block_stride + (k % block) * depth`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Distance between rows.
    pub(crate) row: usize,
    /// Distance between groups of a row.
    pub(crate) depth: usize,
    /// Groups of a row that lie `depth` apart before the next stretch of them.
    pub(crate) block: usize,
    /// Distance between such stretches.
    pub(crate) block_stride: usize,
}

/// What a product writes and how much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Rows of the left side and of the result.
    pub(crate) rows: usize,
    /// Groups of values summed.
    pub(crate) depth: usize,
    /// Columns: a multiple of 16, at most 64.
    pub(crate) columns: usize,
    /// Distance between rows of groups of the panel on the right.
    pub(crate) right_row: usize,
    /// Distance between rows of the result.
    pub(crate) out_row: usize,
    /// Whether the result is added to.
    pub(crate) accumulate: bool,
    /// Addresses of the left side and of the panel of the product after this one, where they may come from far: they are
    /// brought near meanwhile. 0 for what is near.
    pub(crate) next: (usize, usize),
}

/// An address that is asked for, and bytes to the one after it: in steps, for a burst would keep other loads waiting.
#[derive(Clone, Copy)]
struct Ahead {
    at: usize,
    step: usize,
}

impl Ahead {
    #[inline(always)]
    unsafe fn step<S: Simd>(&mut self) {
        // SAFETY: the caller runs on the instruction set; nothing is read.
        unsafe { S::prefetch(std::ptr::without_provenance(self.at)) };
        self.at = self.at.wrapping_add(self.step);
    }
}

/// `MR` rows times `NV` vectors of columns.
#[inline(always)]
unsafe fn tile<S: Simd, T: Value, const MR: usize, const NV: usize>(
    p: &Product,
    left: &Left,
    a: *const T,
    b: *const T,
    out: *mut f32,
    mut ahead: [Ahead; 3],
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
                for ahead in &mut ahead {
                    ahead.step::<S>();
                }
                let mut right = [T::load::<S>(b); NV];
                for (j, right) in right.iter_mut().enumerate() {
                    *right = T::load::<S>(b.add(j * LANES * T::GROUP));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let value = T::splat::<S>(at.add(i * left.row));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = T::dot::<S>(value, right, *sum);
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
unsafe fn strip<S: Simd, T: Value, const MR: usize, const NV: usize>(
    p: &Product,
    left: &Left,
    a: *const T,
    b: *const T,
    out: *mut f32,
) {
    // SAFETY: the caller of `product` vouches for all addresses.
    unsafe {
        // As much as this part of the left side and of the panel, and the next tile's place in the result.
        let left_step = MR * T::GROUP * size_of::<T>();
        let step = (p.right_row * size_of::<T>()).div_ceil((p.rows / MR).max(1));
        let out_step = (MR * p.out_row * size_of::<f32>()).div_ceil(p.depth.max(1));
        let mut row = 0;
        while row + MR <= p.rows {
            let before = row / MR * p.depth;
            let ahead = [
                Ahead { at: p.next.0.wrapping_add(before * left_step), step: left_step },
                Ahead { at: p.next.1.wrapping_add(before * step), step },
                Ahead { at: out.wrapping_add((row + MR) * p.out_row).addr(), step: out_step },
            ];
            tile::<S, T, MR, NV>(p, left, a.add(row * left.row), b, out.add(row * p.out_row), ahead);
            row += MR;
        }
        let none = [Ahead { at: b.addr(), step: 0 }; 3];
        if row + 6 <= p.rows {
            // Only the narrow strips have more than six rows a tile.
            tile::<S, T, 6, NV>(p, left, a.add(row * left.row), b, out.add(row * p.out_row), none);
            row += 6;
        }
        let (a, out) = (a.wrapping_add(row * left.row), out.wrapping_add(row * p.out_row));
        match p.rows - row {
            1 => tile::<S, T, 1, NV>(p, left, a, b, out, none),
            2 => tile::<S, T, 2, NV>(p, left, a, b, out, none),
            3 => tile::<S, T, 3, NV>(p, left, a, b, out, none),
            4 => tile::<S, T, 4, NV>(p, left, a, b, out, none),
            5 => tile::<S, T, 5, NV>(p, left, a, b, out, none),
            _ => {}
        }
    }
}

/// Values of the depth that are summed before the next rows: their part of the panel stays in the first-level cache.
const DEPTH: usize = 128;

#[inline(always)]
unsafe fn product_body<S: Simd, T: Value>(p: &Product, left: &Left, a: *const T, b: *const T, out: *mut f32) {
    // SAFETY: the caller of `product` vouches for all addresses.
    unsafe {
        let near = |next: usize, own: usize| if next == 0 { own } else { next };
        let place = |k: usize| k / left.block * left.block_stride + k % left.block * left.depth;
        let part_of = |k: usize| (a.wrapping_add(place(k)), b.wrapping_add(k * p.right_row));
        let mut first = 0;
        loop {
            // A whole number of stretches, or a part of one.
            let most = if left.block > DEPTH { DEPTH } else { DEPTH / left.block * left.block };
            let rest = left.block - first % left.block;
            let depth = if rest < left.block { rest.min(DEPTH) } else { most }.min(p.depth - first);
            let (left_part, panel_part) = part_of(first);
            let next = if first + depth == p.depth {
                (near(p.next.0, a.addr()), near(p.next.1, b.addr()))
            } else {
                let (left, panel) = part_of(first + depth);
                (left.addr(), panel.addr())
            };
            let part = Product { depth, accumulate: p.accumulate || first > 0, next, ..*p };
            columns::<S, T>(&part, left, left_part, panel_part, out);
            first += depth;
            if first >= p.depth {
                break;
            }
        }
    }
}

/// All columns of one part of the depth, which begins at a stretch or lies within one.
#[inline(always)]
unsafe fn columns<S: Simd, T: Value>(p: &Product, left: &Left, a: *const T, b: *const T, out: *mut f32) {
    // SAFETY: the caller of `product` vouches for all addresses.
    unsafe {
        let vectors = p.columns / LANES;
        if S::WIDE {
            match vectors {
                4 => strip::<S, T, 6, 4>(p, left, a, b, out),
                3 => strip::<S, T, 6, 3>(p, left, a, b, out),
                2 => strip::<S, T, 6, 2>(p, left, a, b, out),
                _ => strip::<S, T, 12, 1>(p, left, a, b, out),
            }
        } else {
            for j in 0..vectors {
                strip::<S, T, 6, 1>(p, left, a, b.add(j * LANES * T::GROUP), out.add(j * LANES));
            }
        }
    }
}

instantiate! {
    /// `out = A B` or `out += A B` for one panel `B` of at most 64 columns.
    ///
    /// # Safety
    /// Every group of the left side that `left` names for `p.rows` rows and `p.depth` groups, `p.depth` rows of `p.columns`
    /// groups of the panel, and `p.rows` rows of `p.columns` values of `out` lie within what the pointers point into, and nothing
    /// else touches `out` meanwhile.
    pub(crate) fn product(p: &Product, left: &Left, a: *const f32, b: *const f32, out: *mut f32) = product_body::<f32>
}
instantiate! {
    bf16
    /// The same of bf16, summed in f32.
    ///
    /// # Safety
    /// As [`product`].
    pub(crate) fn product_bf16(p: &Product, left: &Left, a: *const bf16, b: *const bf16, out: *mut f32) =
        product_body::<bf16>
}

#[inline(always)]
unsafe fn pair_rows_body<S: Simd>(from: *const bf16, rows: usize, columns: usize, to: *mut bf16) {
    // SAFETY: the caller of `pair_rows` vouches for all addresses.
    unsafe {
        let zeros = [bf16::ZERO; LANES];
        for row in (0..rows).step_by(2) {
            for column in (0..columns).step_by(LANES) {
                let first = from.add(row * columns + column);
                let second = if row + 1 < rows { first.add(columns) } else { zeros.as_ptr() };
                S::pair_up(to.add(row * columns + 2 * column), first, second);
            }
        }
    }
}

instantiate! {
    bf16
    /// A matrix whose rows of `columns` values, a multiple of 16, are two and two beside each other, as [`product_bf16`] reads
    /// rows of the depth; zeros beside the last of an odd number.
    ///
    /// # Safety
    /// `from` has `rows` rows, and `to` place for the next even number of them.
    pub(crate) fn pair_rows(from: *const bf16, rows: usize, columns: usize, to: *mut bf16) = pair_rows_body
}
