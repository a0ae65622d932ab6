//! Winograd's minimal filtering algorithms `F(4, 2)` and `F(4, 3)` in one dimension: products with their matrices and
//! the transposes of these. [`super::tile_transform`] nests them in two dimensions.
//!
//! Interpolation points are ±a, ±b and infinity; 0 too for three taps. The two rows of opposite points share their
//! even and odd parts, which halves the work. Let `s` be 1 if 0 is a point, else 0, and `P(x) = (x² - a²)(x² - b²)`.
//! The rows of `Bᵀ` are the coefficients of the polynomials below. The rows of `A` and `G` are the powers of the
//! points; those of `G` are divided by the polynomial's value at its point:
//!
//! | point | polynomial |
//! |---|---|
//! | 0 | `P` |
//! | a | `x^s (x + a)(x² - b²)` |
//! | -a | `x^s (x - a)(x² - b²)` |
//! | b | `x^s (x + b)(x² - a²)` |
//! | -b | `x^s (x - b)(x² - a²)` |
//! | infinity | `x^s P` |
//!
//! a and b are near the values that minimize the error of rounding either operand to a few bits, in the worst of the
//! three operations and for random values. Their squares are exact.

use super::simd::Simd;

/// Outputs of a tile, each way.
pub(crate) const OUT: usize = 4;

/// PointOffsets each way, at most.
pub(crate) const MAX_POINTS: usize = 6;

/// One algorithm. Vectors have six elements; those beyond its points, taps or outputs are unused.
pub(crate) trait MinimalFiltering: Copy {
    /// TapLayout each way.
    const TAPS: usize;
    /// 1 if 0 is a point, else 0.
    const ZERO_POINT: usize;
    /// PointOffsets each way.
    const POINTS: usize = 5 + Self::ZERO_POINT;
    /// The points ±a.
    const A: f32;
    /// The points ±b.
    const B: f32;
    const A2: f32 = Self::A * Self::A;
    const B2: f32 = Self::B * Self::B;
    /// Coefficient of 1 in `P`; of -x² it is [`Self::A2_PLUS_B2`].
    const A2_B2: f32 = Self::A2 * Self::B2;
    const A2_PLUS_B2: f32 = Self::A2 + Self::B2;
    /// Ratio of the divisors of two opposite points.
    const SIGN: f32 = if Self::ZERO_POINT == 1 { 1.0 } else { -1.0 };
    /// Divisor of the row of `G` at a; at b it is [`Self::DIVISOR_B`].
    const DIVISOR_A: f32 =
        2.0 * Self::A * (Self::A2 - Self::B2) * if Self::ZERO_POINT == 1 { Self::A } else { 1.0 };
    const DIVISOR_B: f32 =
        2.0 * Self::B * (Self::B2 - Self::A2) * if Self::ZERO_POINT == 1 { Self::B } else { 1.0 };
}

/// `F(4, 2)`
#[derive(Clone, Copy)]
pub(crate) struct F42;

impl MinimalFiltering for F42 {
    const TAPS: usize = 2;
    const ZERO_POINT: usize = 0;
    const A: f32 = 0.375;
    const B: f32 = 1.25;
}

/// `F(4, 3)`
#[derive(Clone, Copy)]
pub(crate) struct F43;

impl MinimalFiltering for F43 {
    const TAPS: usize = 3;
    const ZERO_POINT: usize = 1;
    const A: f32 = 0.6875;
    const B: f32 = 1.5;
}

/// `c x + y`
#[inline(always)]
unsafe fn fma<S: Simd>(c: f32, x: S::F, y: S::F) -> S::F {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe { S::fma(S::splat(c), x, y) }
}

#[inline(always)]
unsafe fn mul<S: Simd>(c: f32, x: S::F) -> S::F {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe { S::mul(S::splat(c), x) }
}

/// `Bᵀ x`: inputs to points.
#[inline(always)]
pub(super) unsafe fn times_bt<S: Simd, F: MinimalFiltering>(x: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe {
        let s = F::ZERO_POINT;
        let mut out = [S::splat(0.0); 6];
        for (at, point, other) in [(s, F::A, F::B2), (s + 2, F::B, F::A2)] {
            let even = fma::<S>(-other, x[s + 1], x[s + 3]);
            let odd = fma::<S>(-other, x[s], x[s + 2]);
            out[at] = fma::<S>(point, odd, even);
            out[at + 1] = fma::<S>(-point, odd, even);
        }
        let infinity_row =
            |first: usize| fma::<S>(F::A2_B2, x[first], fma::<S>(-F::A2_PLUS_B2, x[first + 2], x[first + 4]));
        if s == 1 {
            out[0] = infinity_row(0);
        }
        out[s + 4] = infinity_row(s);
        out
    }
}

/// `B m`: points to inputs.
#[inline(always)]
pub(super) unsafe fn times_b<S: Simd, F: MinimalFiltering>(m: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe {
        let s = F::ZERO_POINT;
        let even = [S::add(m[s], m[s + 1]), S::add(m[s + 2], m[s + 3])];
        let odd = [mul::<S>(F::A, S::sub(m[s], m[s + 1])), mul::<S>(F::B, S::sub(m[s + 2], m[s + 3]))];
        // The contributions of both pairs to the higher and the lower power.
        let high = |pair: [S::F; 2]| S::add(pair[0], pair[1]);
        let low = |pair: [S::F; 2]| fma::<S>(-F::B2, pair[0], mul::<S>(-F::A2, pair[1]));
        let infinity = m[s + 4];
        let mut out = [S::splat(0.0); 6];
        out[s + 4] = infinity;
        out[s + 3] = high(even);
        out[s + 2] = fma::<S>(-F::A2_PLUS_B2, infinity, high(odd));
        out[s + 1] = low(even);
        out[s] = fma::<S>(F::A2_B2, infinity, low(odd));
        if s == 1 {
            out[4] = S::add(out[4], m[0]);
            out[2] = fma::<S>(-F::A2_PLUS_B2, m[0], out[2]);
            out[0] = mul::<S>(F::A2_B2, m[0]);
        }
        out
    }
}

/// `Aᵀ m`: points to four outputs.
#[inline(always)]
pub(super) unsafe fn times_at<S: Simd, F: MinimalFiltering>(m: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe {
        let s = F::ZERO_POINT;
        let even = [S::add(m[s], m[s + 1]), S::add(m[s + 2], m[s + 3])];
        let odd = [mul::<S>(F::A, S::sub(m[s], m[s + 1])), mul::<S>(F::B, S::sub(m[s + 2], m[s + 3]))];
        let mut out = [S::splat(0.0); 6];
        out[0] = S::add(even[0], even[1]);
        out[1] = S::add(odd[0], odd[1]);
        out[2] = fma::<S>(F::A2, even[0], mul::<S>(F::B2, even[1]));
        out[3] = fma::<S>(F::A2, odd[0], fma::<S>(F::B2, odd[1], m[s + 4]));
        if s == 1 {
            out[0] = S::add(out[0], m[0]);
        }
        out
    }
}

/// `A y`: four outputs to points.
#[inline(always)]
pub(super) unsafe fn times_a<S: Simd, F: MinimalFiltering>(y: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe {
        let s = F::ZERO_POINT;
        let mut out = [S::splat(0.0); 6];
        out[0] = y[0];
        for (at, point, square) in [(s, F::A, F::A2), (s + 2, F::B, F::B2)] {
            let even = fma::<S>(square, y[2], y[0]);
            let odd = fma::<S>(square, y[3], y[1]);
            out[at] = fma::<S>(point, odd, even);
            out[at + 1] = fma::<S>(-point, odd, even);
        }
        out[s + 4] = y[3];
        out
    }
}

/// `G g`: taps to points.
#[inline(always)]
pub(super) unsafe fn times_g<S: Simd, F: MinimalFiltering>(g: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe {
        let s = F::ZERO_POINT;
        let mut out = [S::splat(0.0); 6];
        for (at, point, square, divisor) in
            [(s, F::A, F::A2, F::DIVISOR_A), (s + 2, F::B, F::B2, F::DIVISOR_B)]
        {
            let even = if F::TAPS == 3 { fma::<S>(square, g[2], g[0]) } else { g[0] };
            let even = mul::<S>(1.0 / divisor, even);
            out[at] = fma::<S>(point / divisor, g[1], even);
            out[at + 1] = fma::<S>(-F::SIGN * point / divisor, g[1], mul::<S>(F::SIGN, even));
        }
        if s == 1 {
            out[0] = mul::<S>(1.0 / F::A2_B2, g[0]);
        }
        out[s + 4] = g[F::TAPS - 1];
        out
    }
}

/// `Gᵀ n`: points to taps.
#[inline(always)]
pub(super) unsafe fn times_gt<S: Simd, F: MinimalFiltering>(n: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic; the caller runs on the instruction set.
    unsafe {
        let s = F::ZERO_POINT;
        let pair = |at: usize, divisor: f32| {
            let (plus, minus) = (n[at], mul::<S>(F::SIGN, n[at + 1]));
            (mul::<S>(1.0 / divisor, S::add(plus, minus)), mul::<S>(1.0 / divisor, S::sub(plus, minus)))
        };
        let (a, b) = (pair(s, F::DIVISOR_A), pair(s + 2, F::DIVISOR_B));
        let mut out = [S::splat(0.0); 6];
        out[0] = S::add(a.0, b.0);
        out[1] = fma::<S>(F::A, a.1, mul::<S>(F::B, b.1));
        if F::TAPS == 3 {
            out[2] = fma::<S>(F::A2, a.0, mul::<S>(F::B2, b.0));
        }
        if s == 1 {
            out[0] = fma::<S>(1.0 / F::A2_B2, n[0], out[0]);
        }
        out[F::TAPS - 1] = S::add(out[F::TAPS - 1], n[s + 4]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::portable::Portable;
    use super::super::simd::LANES;
    use super::*;

    type Vector = [[f32; LANES]; 6];

    /// The matrix of a linear function, column by column.
    fn matrix(product: unsafe fn(&Vector) -> Vector) -> [[f64; 6]; 6] {
        let mut matrix = [[0.0; 6]; 6];
        for column in 0..6 {
            let mut unit = [[0.0; LANES]; 6];
            unit[column] = [1.0; LANES];
            // SAFETY: plain Rust.
            let out = unsafe { product(&unit) };
            for (row, out) in matrix.iter_mut().zip(out) {
                row[column] = f64::from(out[0]);
            }
        }
        matrix
    }

    fn check<F: MinimalFiltering>() {
        let bt = matrix(times_bt::<Portable, F>);
        let at = matrix(times_at::<Portable, F>);
        let g = matrix(times_g::<Portable, F>);
        // The definition: output k is the sum over taps j of input k + j times tap j.
        for (k, input, tap) in
            (0..OUT).flat_map(|k| (0..F::POINTS).flat_map(move |i| (0..F::TAPS).map(move |j| (k, i, j))))
        {
            let sum: f64 = (0..F::POINTS).map(|p| at[k][p] * bt[p][input] * g[p][tap]).sum();
            let expected = if input == k + tap { 1.0 } else { 0.0 };
            assert!((sum - expected).abs() < 1e-5, "output {k}, input {input}, tap {tap}: {sum}");
        }
        for (product, transpose) in [
            (bt, matrix(times_b::<Portable, F>)),
            (at, matrix(times_a::<Portable, F>)),
            (g, matrix(times_gt::<Portable, F>)),
        ] {
            for (i, j) in (0..6).flat_map(|i| (0..6).map(move |j| (i, j))) {
                assert!((product[i][j] - transpose[j][i]).abs() < 1e-6, "row {i}, column {j}");
            }
        }
    }

    #[test]
    fn matrices_form_a_convolution_and_match_their_transposes() {
        check::<F42>();
        check::<F43>();
    }
}
