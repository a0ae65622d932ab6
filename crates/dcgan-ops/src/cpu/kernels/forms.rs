//! Winograd's algorithms `F(4, 2)` and `F(4, 3)` along one line, see [`super::tiles`]: products with their matrices and the
//! transposes of these.
//!
//! Interpolation points are ±a, ±b and infinity, for three taps 0 as well. The pair of rows of two opposite points shares its
//! even and its odd part, which halves the work. With `s` 1 where 0 is a point and 0 elsewhere, and `P(x) = (x² - a²)(x² - b²)`,
//! the rows of `Bᵀ` are the coefficients of these polynomials, those of `A` and `G` the powers of the points, divided in `G` by
//! the polynomial's value at its point:
//!
//! | point | 0 | a | -a | b | -b | infinity |
//! |---|---|---|---|---|---|---|
//! | polynomial | `P` | `x^s (x + a)(x² - b²)` | `x^s (x - a)(x² - b²)` | `x^s (x + b)(x² - a²)` | `x^s (x - b)(x² - a²)` | `x^s P` |
//!
//! a and b are near those that make the rounding of either factor to a few bits matter least, in the worst of the three operations,
//! for random values; and their squares are exact.

use super::simd::Simd;

/// Outputs of a tile each way.
pub(crate) const OUT: usize = 4;

/// Points each way, at most.
pub(crate) const MAX_POINTS: usize = 6;

/// One algorithm. Vectors have six places, of which those past its points (or taps, or outputs) are not looked at.
pub(crate) trait Form: Copy {
    /// Taps each way.
    const TAPS: usize;
    /// 1 where 0 is a point.
    const ZERO: usize;
    /// Points each way.
    const POINTS: usize = 5 + Self::ZERO;
    const A: f32;
    const B: f32;
    const A2: f32 = Self::A * Self::A;
    const B2: f32 = Self::B * Self::B;
    /// Coefficient of 1 in `P`, and that of -x².
    const PRODUCT: f32 = Self::A2 * Self::B2;
    const SUM: f32 = Self::A2 + Self::B2;
    /// Between the divisors of two opposite points.
    const SIGN: f32 = if Self::ZERO == 1 { 1.0 } else { -1.0 };
    /// What values at a are divided by, and those at b.
    const AT_A: f32 = 2.0 * Self::A * (Self::A2 - Self::B2) * if Self::ZERO == 1 { Self::A } else { 1.0 };
    const AT_B: f32 = 2.0 * Self::B * (Self::B2 - Self::A2) * if Self::ZERO == 1 { Self::B } else { 1.0 };
}

/// `F(4, 2)`
#[derive(Clone, Copy)]
pub(crate) struct Two;

impl Form for Two {
    const TAPS: usize = 2;
    const ZERO: usize = 0;
    const A: f32 = 0.375;
    const B: f32 = 1.25;
}

/// `F(4, 3)`
#[derive(Clone, Copy)]
pub(crate) struct Three;

impl Form for Three {
    const TAPS: usize = 3;
    const ZERO: usize = 1;
    const A: f32 = 0.6875;
    const B: f32 = 1.5;
}

/// `c x + y`
#[inline(always)]
unsafe fn fma<S: Simd>(c: f32, x: S::F, y: S::F) -> S::F {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe { S::fma(S::splat(c), x, y) }
}

#[inline(always)]
unsafe fn mul<S: Simd>(c: f32, x: S::F) -> S::F {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe { S::mul(S::splat(c), x) }
}

/// `Bᵀ x`: what lies between inputs and points.
#[inline(always)]
pub(super) unsafe fn times_bt<S: Simd, Fm: Form>(x: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe {
        let s = Fm::ZERO;
        let mut out = [S::splat(0.0); 6];
        for (at, point, other) in [(s, Fm::A, Fm::B2), (s + 2, Fm::B, Fm::A2)] {
            let even = fma::<S>(-other, x[s + 1], x[s + 3]);
            let odd = fma::<S>(-other, x[s], x[s + 2]);
            out[at] = fma::<S>(point, odd, even);
            out[at + 1] = fma::<S>(-point, odd, even);
        }
        let whole =
            |first: usize| fma::<S>(Fm::PRODUCT, x[first], fma::<S>(-Fm::SUM, x[first + 2], x[first + 4]));
        if s == 1 {
            out[0] = whole(0);
        }
        out[s + 4] = whole(s);
        out
    }
}

/// `B m`
#[inline(always)]
pub(super) unsafe fn times_b<S: Simd, Fm: Form>(m: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe {
        let s = Fm::ZERO;
        let even = [S::add(m[s], m[s + 1]), S::add(m[s + 2], m[s + 3])];
        let odd = [mul::<S>(Fm::A, S::sub(m[s], m[s + 1])), mul::<S>(Fm::B, S::sub(m[s + 2], m[s + 3]))];
        // What both pairs give to the higher and to the lower power.
        let high = |pair: [S::F; 2]| S::add(pair[0], pair[1]);
        let low = |pair: [S::F; 2]| fma::<S>(-Fm::B2, pair[0], mul::<S>(-Fm::A2, pair[1]));
        let infinity = m[s + 4];
        let mut out = [S::splat(0.0); 6];
        out[s + 4] = infinity;
        out[s + 3] = high(even);
        out[s + 2] = fma::<S>(-Fm::SUM, infinity, high(odd));
        out[s + 1] = low(even);
        out[s] = fma::<S>(Fm::PRODUCT, infinity, low(odd));
        if s == 1 {
            out[4] = S::add(out[4], m[0]);
            out[2] = fma::<S>(-Fm::SUM, m[0], out[2]);
            out[0] = mul::<S>(Fm::PRODUCT, m[0]);
        }
        out
    }
}

/// `Aᵀ m`: four outputs.
#[inline(always)]
pub(super) unsafe fn times_at<S: Simd, Fm: Form>(m: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe {
        let s = Fm::ZERO;
        let even = [S::add(m[s], m[s + 1]), S::add(m[s + 2], m[s + 3])];
        let odd = [mul::<S>(Fm::A, S::sub(m[s], m[s + 1])), mul::<S>(Fm::B, S::sub(m[s + 2], m[s + 3]))];
        let mut out = [S::splat(0.0); 6];
        out[0] = S::add(even[0], even[1]);
        out[1] = S::add(odd[0], odd[1]);
        out[2] = fma::<S>(Fm::A2, even[0], mul::<S>(Fm::B2, even[1]));
        out[3] = fma::<S>(Fm::A2, odd[0], fma::<S>(Fm::B2, odd[1], m[s + 4]));
        if s == 1 {
            out[0] = S::add(out[0], m[0]);
        }
        out
    }
}

/// `A y` of four outputs.
#[inline(always)]
pub(super) unsafe fn times_a<S: Simd, Fm: Form>(y: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe {
        let s = Fm::ZERO;
        let mut out = [S::splat(0.0); 6];
        out[0] = y[0];
        for (at, point, square) in [(s, Fm::A, Fm::A2), (s + 2, Fm::B, Fm::B2)] {
            let even = fma::<S>(square, y[2], y[0]);
            let odd = fma::<S>(square, y[3], y[1]);
            out[at] = fma::<S>(point, odd, even);
            out[at + 1] = fma::<S>(-point, odd, even);
        }
        out[s + 4] = y[3];
        out
    }
}

/// `G g` of the taps.
#[inline(always)]
pub(super) unsafe fn times_g<S: Simd, Fm: Form>(g: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe {
        let s = Fm::ZERO;
        let mut out = [S::splat(0.0); 6];
        for (at, point, square, divisor) in [(s, Fm::A, Fm::A2, Fm::AT_A), (s + 2, Fm::B, Fm::B2, Fm::AT_B)] {
            let even = if Fm::TAPS == 3 { fma::<S>(square, g[2], g[0]) } else { g[0] };
            let even = mul::<S>(1.0 / divisor, even);
            out[at] = fma::<S>(point / divisor, g[1], even);
            out[at + 1] = fma::<S>(-Fm::SIGN * point / divisor, g[1], mul::<S>(Fm::SIGN, even));
        }
        if s == 1 {
            out[0] = mul::<S>(1.0 / Fm::PRODUCT, g[0]);
        }
        out[s + 4] = g[Fm::TAPS - 1];
        out
    }
}

/// `Gᵀ n`: the taps.
#[inline(always)]
pub(super) unsafe fn times_gt<S: Simd, Fm: Form>(n: &[S::F; 6]) -> [S::F; 6] {
    // SAFETY: arithmetic on the instruction set that the caller was compiled for.
    unsafe {
        let s = Fm::ZERO;
        let pair = |at: usize, divisor: f32| {
            let (plus, minus) = (n[at], mul::<S>(Fm::SIGN, n[at + 1]));
            (mul::<S>(1.0 / divisor, S::add(plus, minus)), mul::<S>(1.0 / divisor, S::sub(plus, minus)))
        };
        let (a, b) = (pair(s, Fm::AT_A), pair(s + 2, Fm::AT_B));
        let mut out = [S::splat(0.0); 6];
        out[0] = S::add(a.0, b.0);
        out[1] = fma::<S>(Fm::A, a.1, mul::<S>(Fm::B, b.1));
        if Fm::TAPS == 3 {
            out[2] = fma::<S>(Fm::A2, a.0, mul::<S>(Fm::B2, b.0));
        }
        if s == 1 {
            out[0] = fma::<S>(1.0 / Fm::PRODUCT, n[0], out[0]);
        }
        out[Fm::TAPS - 1] = S::add(out[Fm::TAPS - 1], n[s + 4]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{LANES, Portable};
    use super::*;

    type Vector = [[f32; LANES]; 6];

    /// The matrix of a product, column by column.
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

    fn check<Fm: Form>() {
        let bt = matrix(times_bt::<Portable, Fm>);
        let at = matrix(times_at::<Portable, Fm>);
        let g = matrix(times_g::<Portable, Fm>);
        // The definition: output k is the sum over taps j of input k + j times tap j.
        for (k, input, tap) in
            (0..OUT).flat_map(|k| (0..Fm::POINTS).flat_map(move |i| (0..Fm::TAPS).map(move |j| (k, i, j))))
        {
            let sum: f64 = (0..Fm::POINTS).map(|p| at[k][p] * bt[p][input] * g[p][tap]).sum();
            let expected = if input == k + tap { 1.0 } else { 0.0 };
            assert!((sum - expected).abs() < 1e-5, "output {k}, input {input}, tap {tap}: {sum}");
        }
        for (product, transpose) in [
            (bt, matrix(times_b::<Portable, Fm>)),
            (at, matrix(times_a::<Portable, Fm>)),
            (g, matrix(times_gt::<Portable, Fm>)),
        ] {
            for (i, j) in (0..6).flat_map(|i| (0..6).map(move |j| (i, j))) {
                assert!((product[i][j] - transpose[j][i]).abs() < 1e-6, "row {i}, column {j}");
            }
        }
    }

    #[test]
    fn products_are_a_convolution_and_have_their_transposes() {
        check::<Two>();
        check::<Three>();
    }
}
