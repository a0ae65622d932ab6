//! Boxes that a person drew around an object on samples of a seed, and the positions of a feature map within them.

use crate::json::{self, JsonError};
use dcgan_data::ImageShape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// What a file looks like.
const FORMAT: &str = r#"{"seed": S, "boxes": [{"sample": i, "x": .., "y": .., "width": .., "height": ..}]}"#;

/// A file of boxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boxes {
    /// Seed of the samples.
    pub seed: u64,
    /// The boxes; a sample may have several.
    pub boxes: Vec<ObjectBox>,
}

/// One box, in pixels of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectBox {
    /// Number of the sample, from 0.
    pub sample: usize,
    /// First column.
    pub x: i64,
    /// First row.
    pub y: i64,
    /// Columns.
    pub width: i64,
    /// Rows.
    pub height: i64,
}

/// Boxes that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoxesError {
    /// A box without pixels, or with some beyond the image; or no box at all.
    #[error("{}", faults.join("; "))]
    Outside {
        /// A sentence for each such box.
        faults: Vec<String>,
    },
}

impl Boxes {
    /// Reads a file; [`Boxes::check`] tells whether its boxes fit images.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn read(path: &Path) -> Result<Self, JsonError> {
        json::read(path, FORMAT)
    }

    /// A file to fill in: the samples of `seed`, one box in the middle of the first as an example.
    pub fn template(seed: u64, shape: ImageShape) -> Self {
        let side = |side: usize| i64::try_from(side).unwrap_or(i64::MAX);
        let (height, width) = (side(shape.height), side(shape.width));
        let (tall, wide) = ((height / 4).max(1), (width / 4).max(1));
        let (x, y) = ((width - wide) / 2, (height - tall) / 2);
        Self { seed, boxes: vec![ObjectBox { sample: 0, x, y, width: wide, height: tall }] }
    }

    /// Refuses boxes that do not lie within images of `shape`.
    ///
    /// # Errors
    /// [`BoxesError::Outside`] with every such box by its number.
    pub fn check(&self, shape: ImageShape) -> Result<(), BoxesError> {
        let mut faults = Vec::new();
        if self.boxes.is_empty() {
            faults.push("there is no box: draw at least one".to_owned());
        }
        for (i, ObjectBox { x, y, width, height, .. }) in self.boxes.iter().enumerate() {
            let mut side = |start: i64, len: i64, all: usize, names: (&str, &str, &str)| {
                let beyond = start.checked_add(len).and_then(|end| usize::try_from(end).ok());
                if start < 0 || len < 1 || beyond.is_none_or(|end| end > all) {
                    let (start_name, len_name, what) = names;
                    faults.push(format!(
                        "box {i} (from 0) lies outside the image: {start_name} {start}, {len_name} {len}, images have {all} {what}"
                    ));
                }
            };
            side(*x, *width, shape.width, ("x", "width", "columns"));
            side(*y, *height, shape.height, ("y", "height", "rows"));
        }
        if faults.is_empty() { Ok(()) } else { Err(BoxesError::Outside { faults }) }
    }

    /// The numbers of the samples that have a box, ascending.
    pub fn samples(&self) -> Vec<usize> {
        let samples: BTreeSet<usize> = self.boxes.iter().map(|object| object.sample).collect();
        samples.into_iter().collect()
    }

    /// Which positions of a feature map of `rows` x `columns` lie in a box of `sample`, row by row: those whose middle, in
    /// pixels, does, and the one at the middle of each box, so that no box is too small to count.
    pub fn inside(&self, sample: usize, shape: ImageShape, (rows, columns): (usize, usize)) -> Vec<bool> {
        let mut inside = vec![false; rows * columns];
        for object in self.boxes.iter().filter(|object| object.sample == sample) {
            let down = covered(object.y, object.height, shape.height, rows);
            let across = covered(object.x, object.width, shape.width, columns);
            for (row, _) in down.iter().enumerate().filter(|(_, covered)| **covered) {
                let row = &mut inside[row * columns..(row + 1) * columns];
                row.iter_mut().zip(&across).for_each(|(inside, covered)| *inside |= covered);
            }
        }
        inside
    }
}

/// Which of `count` positions along a side of `pixels` have their middle in the `len` pixels from `start`; and the one that holds
/// the middle of these pixels.
fn covered(start: i64, len: i64, pixels: usize, count: usize) -> Vec<bool> {
    let wide = |value: usize| i128::try_from(value).unwrap_or(i128::MAX);
    let (start, len) = (i128::from(start), i128::from(len));
    let (pixels, count_wide) = (wide(pixels), wide(count));
    let at = |position: usize| {
        let position = wide(position);
        // All in units of half a position's share of a pixel: position p is pixels p/count .. (p + 1)/count of the side.
        let middle = (2 * position + 1) * pixels;
        let holds_middle = (2 * start + len) * count_wide;
        let is_inside = (start * 2 * count_wide..(start + len) * 2 * count_wide).contains(&middle);
        let holds = (2 * position * pixels..(2 * position + 2) * pixels).contains(&holds_middle);
        is_inside || holds
    };
    (0..count).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { height: 16, width: 32, channels: 3 };

    fn boxes(list: &[(usize, [i64; 4])]) -> Boxes {
        let one =
            |&(sample, [x, y, width, height]): &(usize, [i64; 4])| ObjectBox { sample, x, y, width, height };
        Boxes { seed: 3, boxes: list.iter().map(one).collect() }
    }

    #[test]
    fn positions_whose_middle_is_in_a_box() {
        // A 4 x 8 map: a position is 4 x 4 pixels, its middle at 2, 6, 10 ...
        type Row<'a> = ([i64; 4], &'a [(usize, usize)]);
        let rows: &[Row<'_>] = &[
            ([0, 0, 4, 4], &[(0, 0)]),
            ([0, 0, 7, 3], &[(0, 0), (0, 1)]),
            ([3, 3, 2, 2], &[(1, 1)]), // no middle inside: the position that holds the box's own
            ([31, 15, 1, 1], &[(3, 7)]),
            ([6, 2, 1, 5], &[(0, 1), (1, 1)]),
        ];
        for (corners, expected) in rows {
            let boxes = boxes(&[(5, *corners), (6, [0, 0, 32, 16])]);
            let inside = boxes.inside(5, SHAPE, (4, 8));
            let found: Vec<_> = (0..32).filter(|&i| inside[i]).map(|i| (i / 8, i % 8)).collect();
            assert_eq!(found, *expected, "{corners:?}");
            assert!(boxes.inside(6, SHAPE, (4, 8)).iter().all(|&inside| inside));
            assert!(boxes.inside(7, SHAPE, (4, 8)).iter().all(|&inside| !inside));
            assert_eq!(boxes.samples(), [5, 6]);
        }
    }

    #[test]
    fn boxes_outside_the_image_are_named() {
        boxes(&[(0, [0, 0, 32, 16]), (9, [31, 15, 1, 1])]).check(SHAPE).unwrap();
        Boxes::template(1, SHAPE).check(SHAPE).unwrap();
        let rows: &[([i64; 4], &str)] = &[
            ([30, 0, 3, 4], "box 1 (from 0) lies outside the image: x 30, width 3, images have 32 columns"),
            ([0, -1, 3, 4], "y -1, height 4, images have 16 rows"),
            ([0, 0, 0, 4], "x 0, width 0"),
            ([0, 1, 1, i64::MAX], "y 1, height 9223372036854775807"),
        ];
        for (corners, expected) in rows {
            let message = boxes(&[(0, [0, 0, 1, 1]), (2, *corners)]).check(SHAPE).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(boxes(&[]).check(SHAPE).unwrap_err().to_string().contains("no box"));
    }
}
