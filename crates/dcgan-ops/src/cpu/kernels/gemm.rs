//! Matrix products whose rhs is packed in panels of at most 64 columns and whose lhs is read in place.
//!
//! The loops are those of GotoBLAS (Goto and van de Geijn 2008) and BLIS around a register-tile micro-kernel: blocks
//! of the depth ([`KC`]), vectors of columns (`jr`), rows (`ir`). The caller packs and splits the work among threads.
//! Each value of the result is one chain of fused multiply-adds in the order of the depth, whatever the tile shapes.
//! Operands are f32, or bf16 in groups of two ([`Operand`]).

use super::instantiate::instantiate;
use super::operand::Operand;
use super::simd::{LANES, Simd};

/// Columns of a panel.
pub(crate) const PANEL: usize = 64;

/// Values of the depth per block: the block's rows of the panel stay in the first-level cache.
const KC: usize = 128;

/// Layout of the lhs: group (i, k) is at `i * row_stride + (k / block) * block_stride + (k % block) * depth_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lhs {
    /// Distance between rows.
    pub(crate) row_stride: usize,
    /// Distance between groups of a row within a block.
    pub(crate) depth_stride: usize,
    /// Groups of a block.
    pub(crate) block: usize,
    /// Distance between blocks.
    pub(crate) block_stride: usize,
}

/// Addresses of the operands of the next product, prefetched during this one. 0 where the operand is in cache already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NextOperands {
    pub(crate) lhs: usize,
    pub(crate) rhs: usize,
}

/// Shape and strides of the product of an lhs and one panel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelProduct {
    /// Rows of the lhs and of the result.
    pub(crate) rows: usize,
    /// Depth, in groups of values.
    pub(crate) depth: usize,
    /// Columns: a multiple of 16, at most 64.
    pub(crate) columns: usize,
    /// Distance between rows of groups of the panel.
    pub(crate) rhs_row_stride: usize,
    /// Distance between rows of the result.
    pub(crate) out_row_stride: usize,
    /// Whether the product is added to the result.
    pub(crate) accumulate: bool,
    /// Operands to prefetch.
    pub(crate) next: NextOperands,
}

/// An address to prefetch and the distance to the next one. One prefetch per step of the depth: a burst would delay
/// other loads.
#[derive(Clone, Copy)]
struct PrefetchStream {
    address: usize,
    stride: usize,
}

impl PrefetchStream {
    #[inline(always)]
    unsafe fn step<S: Simd>(&mut self) {
        // SAFETY: the caller runs on the instruction set; nothing is read.
        unsafe { S::prefetch(std::ptr::without_provenance(self.address)) };
        self.address = self.address.wrapping_add(self.stride);
    }
}

/// The micro-kernel: `MR` rows times `NV` vectors of columns, with the sums in registers.
#[inline(always)]
unsafe fn microkernel<S: Simd, T: Operand, const MR: usize, const NV: usize>(
    p: &PanelProduct,
    lhs: &Lhs,
    a: *const T,
    b: *const T,
    out: *mut f32,
    mut streams: [PrefetchStream; 3],
) {
    // SAFETY: the caller of `panel_product` vouches for all addresses below.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; MR];
        if p.accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(out.add(i * p.out_row_stride + j * LANES));
                }
            }
        }
        let (mut a, mut b, mut remaining) = (a, b, p.depth);
        while remaining > 0 {
            let block = remaining.min(lhs.block);
            let mut a_k = a;
            for _ in 0..block {
                for stream in &mut streams {
                    stream.step::<S>();
                }
                let mut rhs = [T::load::<S>(b); NV];
                for (j, rhs) in rhs.iter_mut().enumerate() {
                    *rhs = T::load::<S>(b.add(j * LANES * T::GROUP));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let value = T::splat::<S>(a_k.add(i * lhs.row_stride));
                    for (sum, &rhs) in sums.iter_mut().zip(&rhs) {
                        *sum = T::dot::<S>(value, rhs, *sum);
                    }
                }
                a_k = a_k.add(lhs.depth_stride);
                b = b.add(p.rhs_row_stride);
            }
            a = a.wrapping_add(lhs.block_stride);
            remaining -= block;
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                S::store(out.add(i * p.out_row_stride + j * LANES), sum);
            }
        }
    }
}

/// All rows of `NV` vectors of columns, `MR` rows at a time.
#[inline(always)]
unsafe fn ir_loop<S: Simd, T: Operand, const MR: usize, const NV: usize>(
    p: &PanelProduct,
    lhs: &Lhs,
    a: *const T,
    b: *const T,
    out: *mut f32,
) {
    // SAFETY: the caller of `panel_product` vouches for all addresses.
    unsafe {
        // Prefetched per step: as much of the next lhs and panel as this one reads, and the next tile's rows of the
        // result.
        let lhs_stride = MR * T::GROUP * size_of::<T>();
        let rhs_stride = (p.rhs_row_stride * size_of::<T>()).div_ceil((p.rows / MR).max(1));
        let out_stride = (MR * p.out_row_stride * size_of::<f32>()).div_ceil(p.depth.max(1));
        let mut row = 0;
        while row + MR <= p.rows {
            let before = row / MR * p.depth;
            let next_out = out.wrapping_add((row + MR) * p.out_row_stride).addr();
            let streams = [
                PrefetchStream { address: p.next.lhs.wrapping_add(before * lhs_stride), stride: lhs_stride },
                PrefetchStream { address: p.next.rhs.wrapping_add(before * rhs_stride), stride: rhs_stride },
                PrefetchStream { address: next_out, stride: out_stride },
            ];
            let (a, out) = (a.add(row * lhs.row_stride), out.add(row * p.out_row_stride));
            microkernel::<S, T, MR, NV>(p, lhs, a, b, out, streams);
            row += MR;
        }
        let none = [PrefetchStream { address: b.addr(), stride: 0 }; 3];
        if row + 6 <= p.rows {
            // Only micro-kernels of a single vector have more than six rows.
            let (a, out) = (a.add(row * lhs.row_stride), out.add(row * p.out_row_stride));
            microkernel::<S, T, 6, NV>(p, lhs, a, b, out, none);
            row += 6;
        }
        let (a, out) = (a.wrapping_add(row * lhs.row_stride), out.wrapping_add(row * p.out_row_stride));
        match p.rows - row {
            1 => microkernel::<S, T, 1, NV>(p, lhs, a, b, out, none),
            2 => microkernel::<S, T, 2, NV>(p, lhs, a, b, out, none),
            3 => microkernel::<S, T, 3, NV>(p, lhs, a, b, out, none),
            4 => microkernel::<S, T, 4, NV>(p, lhs, a, b, out, none),
            5 => microkernel::<S, T, 5, NV>(p, lhs, a, b, out, none),
            _ => {}
        }
    }
}

/// All columns of one block of the depth, which starts at a block of the lhs or lies within one.
#[inline(always)]
unsafe fn jr_loop<S: Simd, T: Operand>(p: &PanelProduct, lhs: &Lhs, a: *const T, b: *const T, out: *mut f32) {
    // SAFETY: the caller of `panel_product` vouches for all addresses.
    unsafe {
        let vectors = p.columns / LANES;
        if S::MANY_REGISTERS {
            match vectors {
                4 => ir_loop::<S, T, 6, 4>(p, lhs, a, b, out),
                3 => ir_loop::<S, T, 6, 3>(p, lhs, a, b, out),
                2 => ir_loop::<S, T, 6, 2>(p, lhs, a, b, out),
                _ => ir_loop::<S, T, 12, 1>(p, lhs, a, b, out),
            }
        } else {
            for j in 0..vectors {
                ir_loop::<S, T, 6, 1>(p, lhs, a, b.add(j * LANES * T::GROUP), out.add(j * LANES));
            }
        }
    }
}

/// All blocks of the depth.
#[inline(always)]
unsafe fn panel_product_body<S: Simd, T: Operand>(
    p: &PanelProduct,
    lhs: &Lhs,
    a: *const T,
    b: *const T,
    out: *mut f32,
) {
    // SAFETY: the caller of `panel_product` vouches for all addresses.
    unsafe {
        let next_or = |next: usize, own: usize| if next == 0 { own } else { next };
        let lhs_offset = |k: usize| k / lhs.block * lhs.block_stride + k % lhs.block * lhs.depth_stride;
        let operands_at = |k: usize| (a.wrapping_add(lhs_offset(k)), b.wrapping_add(k * p.rhs_row_stride));
        let mut first = 0;
        loop {
            // A whole number of blocks of the lhs, or a part of one.
            let most = if lhs.block > KC { KC } else { KC / lhs.block * lhs.block };
            let rest = lhs.block - first % lhs.block;
            let depth = if rest < lhs.block { rest.min(KC) } else { most }.min(p.depth - first);
            let (a_k, b_k) = operands_at(first);
            let next = if first + depth == p.depth {
                NextOperands { lhs: next_or(p.next.lhs, a.addr()), rhs: next_or(p.next.rhs, b.addr()) }
            } else {
                let (a_next, b_next) = operands_at(first + depth);
                NextOperands { lhs: a_next.addr(), rhs: b_next.addr() }
            };
            let block = PanelProduct { depth, accumulate: p.accumulate || first > 0, next, ..*p };
            jr_loop::<S, T>(&block, lhs, a_k, b_k, out);
            first += depth;
            if first >= p.depth {
                break;
            }
        }
    }
}

instantiate! {
    bf16(T::IS_BF16)
    /// `out = A B` or `out += A B` for one panel `B` of at most 64 columns.
    ///
    /// # Safety
    /// These lie within the allocations of their pointers: every group of the lhs at `lhs`'s offsets for `p.rows`
    /// rows and `p.depth` groups, `p.depth` rows of `p.columns` groups of the panel, and `p.rows` rows of `p.columns`
    /// values of `out`. Nothing else accesses `out` meanwhile.
    pub(crate) fn panel_product<T: Operand>(p: &PanelProduct, lhs: &Lhs, a: *const T, b: *const T, out: *mut f32) =
        panel_product_body
}
