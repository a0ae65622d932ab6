//! Single-threaded matrix product over strided views: the `gemm` crate behind bounds checks.
//!
//! Callers split the work into parts that depend on shapes alone and run the parts in parallel, so the bytes do
//! not depend on the number of threads.

/// A strided view of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a, T = f32> {
    /// The values.
    pub data: &'a [T],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
}

/// An element type of matrices.
pub trait Element: Copy + 'static {
    /// The number 1.
    const ONE: Self;
}

impl Element for f32 {
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ONE: Self = 1.0;
}

impl<'a, T: Element> MatrixView<'a, T> {
    /// Row-major `rows x columns`.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// `columns` columns of a wider row-major matrix whose rows are `stride` apart.
    pub fn strided(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Whether the last element lies within the values. Sizes whose product overflows do not fit.
    fn fits(&self) -> bool {
        let (Some(row), Some(column)) = (self.rows.checked_sub(1), self.columns.checked_sub(1)) else {
            return true; // no elements
        };
        let last = row
            .checked_mul(self.row_stride)
            .zip(column.checked_mul(self.column_stride))
            .and_then(|(row, column)| row.checked_add(column));
        last.is_some_and(|last| last < self.data.len())
    }
}

/// `out = lhs * rhs`, or `out += lhs * rhs` with `accumulate`; `out` is row-major.
///
/// # Panics
/// If shapes or slice lengths do not fit, which is a bug of the caller.
#[allow(unsafe_code, reason = "the gemm crate takes raw pointers")]
pub fn matmul<T: Element>(out: &mut [T], lhs: MatrixView<'_, T>, rhs: MatrixView<'_, T>, accumulate: bool) {
    let (m, n, k) = (lhs.rows, rhs.columns, lhs.columns);
    let fits = rhs.rows == k && lhs.fits() && rhs.fits() && m.checked_mul(n) == Some(out.len());
    assert!(fits, "matmul: shapes do not fit");
    if m == 0 || n == 0 {
        return;
    }
    let stride = |s: usize| isize::try_from(s).unwrap_or(isize::MAX);
    // SAFETY: every index that gemm accesses is below the lengths asserted above (`fits`, and `out` is exactly m x n
    // row-major); `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride(n),
            accumulate,
            lhs.data.as_ptr(),
            stride(lhs.column_stride),
            stride(lhs.row_stride),
            rhs.data.as_ptr(),
            stride(rhs.column_stride),
            stride(rhs.row_stride),
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_plain_sums() {
        let a: Vec<f64> = (0..20).map(|i| f64::from(i) - 7.0).collect();
        let b: Vec<f64> = (0..15).map(|i| 0.5 * f64::from(i)).collect();
        // Columns 1 to 3 of a 4 x 5 matrix times the transpose of a 5 x 3 one.
        let mut out = vec![f64::NAN; 20];
        matmul(&mut out, MatrixView::strided(&a[1..], 4, 3, 5), MatrixView::new(&b, 5, 3).t(), false);
        for (i, &value) in out.iter().enumerate() {
            let (row, column) = (i / 5, i % 5);
            let expected: f64 = (0..3).map(|k| a[row * 5 + 1 + k] * b[column * 3 + k]).sum();
            assert_eq!(value, expected);
        }
    }

    #[test]
    #[should_panic(expected = "shapes do not fit")]
    fn short_inputs_panic() {
        matmul(&mut [0.0; 4], MatrixView::new(&[1.0; 5], 2, 3), MatrixView::new(&[1.0; 6], 3, 2), false);
    }
}
