//! Copies strided tensors into row-major order.

/// The values of a tensor in row-major order. Value `i` of the tensor is at `offset + sum(i_k * strides_k)` in
/// `storage`.
///
/// # Errors
/// The number of values that the storage would need; `None` if it overflows.
pub(crate) fn to_contiguous(
    storage: &[f32],
    offset: usize,
    shape: &[usize],
    strides: &[usize],
) -> Result<Vec<f32>, Option<usize>> {
    if shape.contains(&0) {
        return Ok(Vec::new());
    }
    let last = shape.iter().zip(strides).try_fold(offset, |last, (size, stride)| {
        (size - 1).checked_mul(*stride).and_then(|step| last.checked_add(step))
    });
    match last.and_then(|last| last.checked_add(1)) {
        Some(needed) if needed <= storage.len() => {}
        needed => return Err(needed),
    }
    let mut indices = vec![offset];
    for (size, stride) in shape.iter().zip(strides) {
        indices = indices.iter().flat_map(|start| (0..*size).map(move |i| start + i * stride)).collect();
    }
    Ok(indices.iter().map(|index| storage[*index]).collect())
}

/// Strides of column-major (Fortran) order.
pub(crate) fn column_major(shape: &[usize]) -> Vec<usize> {
    let mut stride = 1;
    let next = |size: &usize| {
        let current = stride;
        stride *= size;
        current
    };
    shape.iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case<'a> {
        offset: usize,
        shape: &'a [usize],
        strides: &'a [usize],
        expected: Result<&'a [f32], Option<usize>>,
    }

    fn case<'a>(
        offset: usize,
        shape: &'a [usize],
        strides: &'a [usize],
        expected: Result<&'a [f32], Option<usize>>,
    ) -> Case<'a> {
        Case { offset, shape, strides, expected }
    }

    #[test]
    fn copies_any_strides() {
        let storage: Vec<f32> = (0..8_u8).map(f32::from).collect();
        let cases = [
            case(0, &[2, 3], &[3, 1], Ok(&[0., 1., 2., 3., 4., 5.])),
            case(1, &[2, 3], &[1, 2], Ok(&[1., 3., 5., 2., 4., 6.])),
            case(7, &[], &[], Ok(&[7.])),
            case(3, &[2, 2], &[0, 1], Ok(&[3., 4., 3., 4.])),
            case(9, &[2, 0], &[1, 1], Ok(&[])),
            case(8, &[], &[], Err(Some(9))),
            case(2, &[2, 3], &[4, 1], Err(Some(9))),
            case(1, &[3], &[usize::MAX / 2], Err(None)),
        ];
        for Case { offset, shape, strides, expected } in cases {
            let values = to_contiguous(&storage, offset, shape, strides);
            assert_eq!(values, expected.map(<[f32]>::to_vec), "{shape:?}");
        }
        assert_eq!(column_major(&[2, 3, 4]), [1, 2, 6]);
    }
}
