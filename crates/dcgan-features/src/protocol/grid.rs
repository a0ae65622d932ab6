//! The choice of C: the lowest held-out error on a grid that may be extended.

use super::{Grid, ProtocolError};

/// Bounds of an open grid: six decades beyond the usual values of these datasets.
const LIMITS: (f64, f64) = (1e-9, 1e6);

/// The next larger or smaller value on the scale 1, 2, 5, 10.
fn neighbour(value: f64, up: bool) -> f64 {
    // The leading digit, such as 2 of 2e-4, without rounding noise.
    let decade = value.log10().floor();
    let digit = (value / 10_f64.powf(decade) * 1e6).round() / 1e6;
    let (factor, shift) = match (up, digit) {
        (true, d) if d < 2.0 => (2.0, 0.0),
        (true, d) if d < 5.0 => (5.0, 0.0),
        (true, _) => (1.0, 1.0),
        (false, d) if d > 5.0 => (5.0, 0.0),
        (false, d) if d > 2.0 => (2.0, 0.0),
        (false, d) if d > 1.0 => (1.0, 0.0),
        (false, _) => (5.0, -1.0),
    };
    format!("{factor}e{}", decade + shift).parse().unwrap_or(value)
}

/// Held-out error in percent for each C.
type Score<'a> = &'a mut dyn FnMut(&[f64]) -> Result<Vec<f64>, ProtocolError>;

/// Scores every C of the grid with `score`, extends an open grid while the best lies at an end, and returns the best C
/// (the smallest of equal ones) and the score of every C, ascending.
pub(super) fn choose(grid: &Grid, score: Score<'_>) -> Result<(f64, Vec<(f64, f64)>), ProtocolError> {
    let mut tried: Vec<(f64, f64)> = Vec::new();
    let mut next = grid.values.clone();
    loop {
        let scores = score(&next)?;
        tried.extend(next.iter().copied().zip(scores));
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        let best =
            tried.iter().enumerate().min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
        let Some(&(c, _)) = tried.get(best) else { return Ok((f64::NAN, tried)) };
        let outwards = match best {
            // If the next value is as good, smaller ones only cost fits.
            0 if tried.get(1).is_none_or(|next| tried[0].1 < next.1) => {
                Some(neighbour(c, false)).filter(|&c| c >= LIMITS.0)
            }
            i if i + 1 == tried.len() => Some(neighbour(c, true)).filter(|&c| c <= LIMITS.1),
            _ => None,
        };
        match outwards.filter(|_| grid.open) {
            Some(c) => next = vec![c],
            None => return Ok((c, tried)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_one_two_five() {
        let rows =
            [(1e-4, 2e-4, 5e-5), (2e-4, 5e-4, 1e-4), (5e-4, 1e-3, 2e-4), (3.0, 5.0, 2.0), (1.0, 2.0, 0.5)];
        for (value, up, down) in rows {
            assert_eq!((neighbour(value, true), neighbour(value, false)), (up, down), "{value}");
        }
    }

    #[test]
    fn the_best_c_is_found_inside_and_beyond_the_grid() {
        // Error grows with the distance from the best on a logarithmic scale.
        let found = |best: f64, open: bool| {
            let grid = Grid { values: vec![1e-3, 1e-2, 1e-1], open };
            let mut score =
                |cs: &[f64]| Ok(cs.iter().map(|c: &f64| (c / best).log10().abs().min(3.0)).collect());
            choose(&grid, &mut score).unwrap()
        };
        assert_eq!(found(1e-2, true).0, 1e-2);
        assert_eq!(found(1e-2, true).1.len(), 3);
        assert_eq!(found(2.0, true).0, 2.0);
        assert_eq!(found(2.0, false).0, 1e-1);
        assert_eq!(found(2e-4, true).0, 2e-4);
        // With equal scores the smallest is chosen and the grid is not extended.
        let grid = Grid { values: vec![1.0, 10.0], open: true };
        let (c, tried) = choose(&grid, &mut |cs| Ok(vec![7.0; cs.len()])).unwrap();
        assert_eq!((c, tried.len()), (1.0, 2));
        // An open grid is bounded.
        let (c, tried) = choose(&grid, &mut |cs| Ok(cs.iter().map(|c| c.log10()).collect())).unwrap();
        assert!((c / LIMITS.0 - 1.0).abs() < 1e-9 && tried.len() < 40, "{c} {}", tried.len());
    }
}
