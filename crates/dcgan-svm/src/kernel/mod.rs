//! Products of a tall matrix with panels of sixteen columns, compiled for AVX-512, AVX2 and the baseline.
//!
//! Sixteen f32 columns fill an AVX-512 register, so every value of the matrix is broadcast once for all classes. The
//! order of summation depends neither on the instruction set nor on the grouping of rows. Multiply-adds are fused where
//! the processor can, so AVX-512 and AVX2 give the same bits.

#[cfg(target_arch = "x86_64")]
mod isa;

#[cfg(target_arch = "x86_64")]
use isa::Isa;
use std::mem::size_of;

/// Columns of a panel, one per class.
pub(crate) const LANES: usize = 16;
/// One row of a panel in f32.
pub(crate) type Lanes32 = [f32; LANES];
/// One row of a panel in f64.
pub(crate) type Lanes = [f64; LANES];

/// Columns of the matrix per tile: their rows of the panel, 32 kB, stay in the first-level cache.
const TILE: usize = 512;

/// The type of sums.
trait Real: Copy {
    const ZERO: Self;
    /// `self * b + c`, rounded once if `FUSED`.
    fn multiply_add<const FUSED: bool>(self, b: Self, c: Self) -> Self;
}

macro_rules! real {
    ($ty:ty) => {
        impl Real for $ty {
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn multiply_add<const FUSED: bool>(self, b: Self, c: Self) -> Self {
                // Without the instruction `mul_add` calls a slow library function.
                if FUSED { self.mul_add(b, c) } else { self * b + c }
            }
        }
    };
}
real!(f32);
real!(f64);

/// `sums[r] = x[r] · panel` for `G` rows of one tile.
#[inline(always)]
fn product_group<X: Copy + Into<T>, T: Real, const G: usize, const FUSED: bool>(
    x: &[X],
    width: usize,
    panel: &[[T; LANES]],
) -> [[T; LANES]; G] {
    let rows: [&[X]; G] = std::array::from_fn(|r| &x[r * width..r * width + panel.len()]);
    let mut sums = [[T::ZERO; LANES]; G];
    for (j, weights) in panel.iter().enumerate() {
        for r in 0..G {
            let value: T = rows[r][j].into();
            for lane in 0..LANES {
                sums[r][lane] = value.multiply_add::<FUSED>(weights[lane], sums[r][lane]);
            }
        }
    }
    sums
}

/// Adds `x · panel` to `out`; `x` is rows × `width`. Sums of a tile are in `T`, their sum in f64.
#[inline(always)]
fn product<X: Copy + Into<T>, T: Real + Into<f64>, const G: usize, const FUSED: bool>(
    x: &[X],
    width: usize,
    panel: &[[T; LANES]],
    out: &mut [Lanes],
) {
    for start in (0..width).step_by(TILE) {
        let tile = &panel[start..(start + TILE).min(width)];
        let mut row = 0;
        while row + G <= out.len() {
            let sums = product_group::<X, T, G, FUSED>(&x[row * width + start..], width, tile);
            for (out, sum) in out[row..row + G].iter_mut().zip(&sums) {
                for lane in 0..LANES {
                    out[lane] += sum[lane].into();
                }
            }
            row += G;
        }
        while row < out.len() {
            let [sum] = product_group::<X, T, 1, FUSED>(&x[row * width + start..], width, tile);
            for lane in 0..LANES {
                out[row][lane] += sum[lane].into();
            }
            row += 1;
        }
    }
}

/// `out[j] += Σ_r x[r][j] weights[r]` for `G` rows of one tile.
#[inline(always)]
fn transposed_product_group<T: Real + From<f32>, const G: usize, const FUSED: bool>(
    x: &[f32],
    width: usize,
    weights: &[[T; LANES]],
    out: &mut [[T; LANES]],
) {
    let rows: [&[f32]; G] = std::array::from_fn(|r| &x[r * width..r * width + out.len()]);
    let weights: [[T; LANES]; G] = std::array::from_fn(|r| weights[r]);
    for (j, out) in out.iter_mut().enumerate() {
        let mut sum = *out;
        for r in 0..G {
            let value = T::from(rows[r][j]);
            for lane in 0..LANES {
                sum[lane] = value.multiply_add::<FUSED>(weights[r][lane], sum[lane]);
            }
        }
        *out = sum;
    }
}

/// Adds `xᵀ · weights` to `out`; rows of `x` are `width` apart, one row of weights for each.
#[inline(always)]
fn transposed_product<T: Real + From<f32>, const G: usize, const FUSED: bool>(
    x: &[f32],
    width: usize,
    weights: &[[T; LANES]],
    out: &mut [[T; LANES]],
) {
    for start in (0..out.len()).step_by(TILE) {
        let tile = start..(start + TILE).min(out.len());
        let mut row = 0;
        while row + G <= weights.len() {
            let x = &x[row * width + start..];
            transposed_product_group::<T, G, FUSED>(x, width, &weights[row..], &mut out[tile.clone()]);
            row += G;
        }
        while row < weights.len() {
            let x = &x[row * width + start..];
            transposed_product_group::<T, 1, FUSED>(x, width, &weights[row..], &mut out[tile.clone()]);
            row += 1;
        }
    }
}

/// `out[i] = x · weights[i]` for `N` vectors of weights, each value of `x` read once.
#[inline(always)]
fn dots_of<const N: usize, const FUSED: bool>(x: &[f32], weights: &[&[f32]], out: &mut [f32]) {
    let weights: [&[f32]; N] = std::array::from_fn(|i| &weights[i][..x.len()]);
    // Two sums per vector hide the latency of fused multiply-adds.
    let mut sums = [[[0.0_f32; LANES]; 2]; N];
    let whole = x.len() / (2 * LANES) * (2 * LANES);
    for start in (0..whole).step_by(2 * LANES) {
        for i in 0..N {
            for (half, sums) in sums[i].iter_mut().enumerate() {
                let at = start + half * LANES;
                let (x, weights) = (&x[at..at + LANES], &weights[i][at..at + LANES]);
                for lane in 0..LANES {
                    sums[lane] = x[lane].multiply_add::<FUSED>(weights[lane], sums[lane]);
                }
            }
        }
    }
    for i in 0..N {
        let rest: f32 = x[whole..].iter().zip(&weights[i][whole..]).map(|(x, w)| x * w).sum();
        out[i] = rest + (0..LANES).map(|lane| sums[i][0][lane] + sums[i][1][lane]).sum::<f32>();
    }
}

#[inline(always)]
fn dots_up_to_four<const G: usize, const FUSED: bool>(x: &[f32], weights: &[&[f32]], out: &mut [f32]) {
    match weights.len() {
        0 => {}
        1 => dots_of::<1, FUSED>(x, weights, out),
        2 => dots_of::<2, FUSED>(x, weights, out),
        3 => dots_of::<3, FUSED>(x, weights, out),
        _ => dots_of::<4, FUSED>(x, weights, out),
    }
}

#[inline(always)]
fn scaled<const G: usize, const FUSED: bool>(factor: f32, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = factor.multiply_add::<FUSED>(x, *out);
    }
}

/// Compiles a function for three instruction sets and selects one at run time ([`Isa::best`]). `$wide` and `$narrow`
/// are the numbers of rows per group, for thirty-two and for sixteen registers.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),*) = $body:ident[$($elem:ty),*], $wide:literal, $narrow:literal
    ) => {
        $(#[$meta])*
        pub(crate) fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "calling a function compiled for an instruction set that the machine has")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) { $body::<$($elem,)* $wide, true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) { $body::<$($elem,)* $narrow, true>($($arg),*) }

                match Isa::best() {
                    // SAFETY: the best instruction set is one that the machine has; the body itself is safe code.
                    Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    Isa::Portable => {}
                }
            }
            $body::<$($elem,)* $narrow, { cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

vectorized! {
    /// Adds `x · panel` to `out`.
    ///
    /// # Shapes
    /// `x` (rows, width), `panel` (width, 16), `out` (rows, 16). Products are summed in f32 over tiles of 512 columns.
    fn add_product(x: &[f32], width: usize, panel: &[Lanes32], out: &mut [Lanes]) = product[f32, f32], 16, 4
}
vectorized! {
    /// [`add_product`] of a matrix in f64.
    fn add_product_f64(x: &[f64], width: usize, panel: &[Lanes], out: &mut [Lanes]) = product[f64, f64], 8, 2
}
vectorized! {
    /// Adds `xᵀ · weights` to `out` in f32, for at most a few hundred rows.
    ///
    /// # Shapes
    /// `x` (rows, any number of columns), whose rows are `width` apart, `weights` (rows, 16), `out` (columns, 16).
    fn add_transposed_product(x: &[f32], width: usize, weights: &[Lanes32], out: &mut [Lanes32])
        = transposed_product[f32], 16, 4
}

vectorized! {
    /// `out[i] = x · weights[i]`, in f32, for at most four vectors of weights as long as `x`.
    fn dots(x: &[f32], weights: &[&[f32]], out: &mut [f32]) = dots_up_to_four[], 4, 4
}
vectorized! {
    /// `out += factor x`
    fn add_scaled(factor: f32, x: &[f32], out: &mut [f32]) = scaled[], 1, 1
}

vectorized! {
    /// [`add_product`] with a panel and sums in f64.
    fn add_product_wide(x: &[f32], width: usize, panel: &[Lanes], out: &mut [Lanes]) = product[f32, f64], 8, 2
}
vectorized! {
    /// [`add_transposed_product`] with weights and sums in f64, of any number of rows.
    fn add_transposed_product_wide(x: &[f32], width: usize, weights: &[Lanes], out: &mut [Lanes])
        = transposed_product[f64], 8, 2
}

/// Rows per block of a matrix of `width` f32 columns: about a megabyte, and at least 32 rows per read of the panel. It
/// depends on the shape only, like every split of the work.
pub(crate) fn block_rows(width: usize) -> usize {
    let rows = (1 << 20) / (width.max(1) * size_of::<f32>());
    (rows / 16 * 16).clamp(32, 256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn lanes(rows: usize, seed: usize) -> Vec<Lanes32> {
        values(rows * LANES, seed).chunks_exact(LANES).map(|row| row.try_into().unwrap()).collect()
    }

    /// Compares all kernels with plain sums in f64.
    fn check(rows: usize, width: usize, seed: usize) {
        let x = values(rows * width, seed);
        let at = |row: usize, column: usize| f64::from(x[row * width + column]);
        let (panel, weights) = (lanes(width, seed + 1), lanes(rows, seed + 2));
        let wide = |panel: &[Lanes32]| -> Vec<Lanes> { panel.iter().map(|row| row.map(f64::from)).collect() };

        // Kernels add to `out`.
        let mut product_sums = vec![[0.5; LANES]; rows];
        add_product(&x, width, &panel, &mut product_sums);
        let mut exact = vec![[0.5; LANES]; rows];
        let x64: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        add_product_f64(&x64, width, &wide(&panel), &mut exact);
        let mut transposed_sums = vec![[0.25; LANES]; width];
        add_transposed_product(&x, width, &weights, &mut transposed_sums);
        let mut product_sums_wide = vec![[0.5; LANES]; rows];
        add_product_wide(&x, width, &wide(&panel), &mut product_sums_wide);
        assert_eq!(product_sums_wide, exact);
        let mut transposed_sums_wide = vec![[0.25; LANES]; width];
        add_transposed_product_wide(&x, width, &wide(&weights), &mut transposed_sums_wide);
        for lane in 0..LANES {
            for row in 0..rows {
                let plain: f64 = (0..width).map(|j| at(row, j) * f64::from(panel[j][lane])).sum();
                assert!(
                    (product_sums[row][lane] - 0.5 - plain).abs() <= 1e-6 * width as f64,
                    "{rows} x {width}"
                );
                assert!((exact[row][lane] - 0.5 - plain).abs() <= 1e-14 * (width + 1) as f64);
            }
            for (j, transposed_sums) in transposed_sums.iter().enumerate() {
                let plain: f64 = (0..rows).map(|r| at(r, j) * f64::from(weights[r][lane])).sum();
                let found = f64::from(transposed_sums[lane]);
                assert!((found - 0.25 - plain).abs() <= 1e-6 * (rows + 1) as f64, "{rows} x {width}");
                assert!((transposed_sums_wide[j][lane] - 0.25 - plain).abs() <= 1e-14 * (rows + 1) as f64);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn kernels_are_plain_sums(rows in 0_usize..40, width in 1_usize..70, seed in 0_usize..1000) {
            check(rows, width, seed);
        }
    }

    #[test]
    fn products_of_vectors_are_plain_sums() {
        for (len, count) in [(1, 1), (31, 2), (32, 3), (1000, 4), (70, 4)] {
            let x = values(len, 1);
            let weights: Vec<Vec<f32>> = (0..count).map(|i| values(len, i + 2)).collect();
            let borrowed: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
            let mut found = vec![f32::NAN; count];
            dots(&x, &borrowed, &mut found);
            for (weights, found) in weights.iter().zip(found) {
                let plain: f64 = x.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                assert!((f64::from(found) - plain).abs() <= 1e-6 * len as f64);
                let mut sum = weights.clone();
                add_scaled(0.5, &x, &mut sum);
                assert!(sum.iter().zip(weights).zip(&x).all(|((s, w), x)| (s - (w + 0.5 * x)).abs() <= 1e-6));
            }
        }
    }

    #[test]
    fn kernels_across_tiles() {
        for (rows, width) in [(1, TILE), (17, TILE + 1), (33, 2 * TILE + 5)] {
            check(rows, width, 3);
        }
    }

    #[test]
    fn blocks_fit_the_cache() {
        assert_eq!([1, 1000, 7168, 28_672].map(block_rows), [256, 256, 32, 32]);
    }
}
