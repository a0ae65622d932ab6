//! Exact line search.

/// The minimizer `t >= 0` of `1/2 |w + t d|^2 + c Σ max(0, 1 - y_i (m_i + t v_i))^2`.
///
/// The derivative is continuous, piecewise linear and increasing, so Newton's method between brackets ends at the root
/// after finitely many steps. `wd` and `dd` are `w·d` and `d·d`; `points` gives `y_i m_i` and `y_i v_i`.
pub(crate) fn minimizer(c: f64, wd: f64, dd: f64, points: &[(f64, f64)]) -> f64 {
    let derivatives = |t: f64| {
        let (mut slope, mut curvature) = (0.0, 0.0);
        for &(margin, change) in points {
            let slack = 1.0 - (margin + t * change);
            // Without a branch, as about half of the points are within the margin.
            let change = if slack > 0.0 { change } else { 0.0 };
            slope -= slack * change;
            curvature += change * change;
        }
        (wd + t * dd + 2.0 * c * slope, dd + 2.0 * c * curvature)
    };
    let (mut low, mut high, mut t) = (0.0, f64::INFINITY, 1.0_f64);
    for _ in 0..100 {
        let (slope, curvature) = derivatives(t);
        if slope > 0.0 {
            high = t;
        } else {
            low = t;
        }
        let mut next = t - slope / curvature;
        // NaN for a direction of zero.
        if next.is_nan() {
            return t;
        }
        if next <= low || next >= high {
            next = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low.max(t) };
        }
        if (next - t).abs() <= 1e-12 * t.abs() {
            return next;
        }
        t = next;
    }
    t
}

/// Decrease of the objective from 0 to `t`, summed over differences of rows, which is accurate for small steps.
pub(crate) fn gain(c: f64, wd: f64, dd: f64, points: &[(f64, f64)], t: f64) -> f64 {
    let hinge = |margin: f64| (1.0 - margin).max(0.0).powi(2);
    let change: f64 = points.iter().map(|&(margin, change)| hinge(margin + t * change) - hinge(margin)).sum();
    -(t * wd + 0.5 * t * t * dd + c * change)
}

#[cfg(test)]
mod tests {
    use super::minimizer;

    #[test]
    fn minimizers_equal_a_fine_grid() {
        /// A one-dimensional objective; `points` are (margin, change).
        struct Line<'a> {
            c: f64,
            w: f64,
            d: f64,
            points: &'a [(f64, f64)],
        }
        let lines: &[Line<'_>] = &[
            Line { c: 1.0, w: 0.0, d: 1.0, points: &[(0.0, 1.0)] },
            Line { c: 100.0, w: 0.5, d: 1.0, points: &[(0.5, 1.0), (-0.5, -2.0), (0.9, 0.3)] },
            Line { c: 0.01, w: -1.0, d: 2.0, points: &[(0.0, 4.0), (1.5, -3.0), (0.0, 0.0)] },
            Line { c: 1e4, w: -3.0, d: 1.0, points: &[(0.999, 1.0), (-20.0, 0.5), (2.0, -1.0)] },
        ];
        for &Line { c, w, d, points } in lines {
            let objective = |t: f64| {
                let hinge = |&(m, v): &(f64, f64)| (1.0 - m - t * v).max(0.0).powi(2);
                0.5 * (w + t * d).powi(2) + c * points.iter().map(hinge).sum::<f64>()
            };
            let found = minimizer(c, w * d, d * d, points);
            let grid =
                (0..=400_000).map(|i| f64::from(i) * 1e-4).map(objective).fold(f64::INFINITY, f64::min);
            assert!(objective(found) <= grid * (1.0 + 1e-12), "{c}: {found}");
        }
    }
}
