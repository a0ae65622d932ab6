//! Class labels that are concatenated to the flattened input of a dense layer: a product of label vectors, which are
//! mostly one-hot, with the weight `(classes, c)` of the labels.

/// Adds the product of one image's `labels` `(classes)` and `weight` to its output `(c)`.
pub(super) fn add(output: &mut [f32], labels: &[f32], weight: &[f32]) {
    for (label, row) in nonzero(labels, weight.chunks_exact(output.len())) {
        output.iter_mut().zip(row).for_each(|(value, weight)| *value += label * weight);
    }
}

/// Adds the product of all images' `labels` `(n, classes)`, transposed, and the gradient `d` `(n, c)` to `gradient`.
pub(super) fn weight_gradient(labels: &[f32], d: &[f32], channels: usize, gradient: &mut [f32]) {
    let classes = gradient.len() / channels;
    for (labels, d) in labels.chunks_exact(classes).zip(d.chunks_exact(channels)) {
        for (label, row) in nonzero(labels, gradient.chunks_exact_mut(channels)) {
            row.iter_mut().zip(d).for_each(|(sum, d)| *sum += label * d);
        }
    }
}

/// The labels that are not zero, with their rows.
fn nonzero<R>(labels: &[f32], rows: impl Iterator<Item = R>) -> impl Iterator<Item = (f32, R)> {
    labels.iter().copied().zip(rows).filter(|(label, _)| *label != 0.0)
}
