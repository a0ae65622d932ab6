//! Bounding boxes of an object on samples of a seed, drawn by hand, and the positions of a feature map inside them.

use crate::json::{self, JsonError};
use dcgan_data::ImageShape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// The format of a file, for messages.
const FORMAT: &str = r#"{"seed": S, "boxes": [{"sample": i, "x": .., "y": .., "width": .., "height": ..}]}"#;

/// A file of bounding boxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundingBoxes {
    /// Seed of the samples.
    pub seed: u64,
    /// The boxes; several per sample are allowed.
    pub boxes: Vec<BoundingBox>,
}

/// A bounding box, in pixels of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundingBox {
    /// Index of the sample, from 0.
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

/// Invalid bounding boxes.
#[derive(Debug, thiserror::Error)]
pub enum BoundingBoxError {
    /// No box, or boxes that are empty or reach outside the image.
    #[error("{}", faults.join("; "))]
    Invalid {
        /// One message per box.
        faults: Vec<String>,
    },
}

impl BoundingBoxes {
    /// Reads a file; [`BoundingBoxes::check`] compares its boxes with an image shape.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn read(path: &Path) -> Result<Self, JsonError> {
        json::read(path, FORMAT)
    }

    /// A template to edit: one example box in the center of sample 0 of `seed`.
    pub fn template(seed: u64, shape: ImageShape) -> Self {
        let side = |side: usize| i64::try_from(side).unwrap_or(i64::MAX);
        let (height, width) = (side(shape.height), side(shape.width));
        let (tall, wide) = ((height / 4).max(1), (width / 4).max(1));
        let (x, y) = ((width - wide) / 2, (height - tall) / 2);
        Self { seed, boxes: vec![BoundingBox { sample: 0, x, y, width: wide, height: tall }] }
    }

    /// Checks that all boxes lie within images of `shape`.
    ///
    /// # Errors
    /// [`BoundingBoxError::Invalid`] with every invalid box by its index.
    pub fn check(&self, shape: ImageShape) -> Result<(), BoundingBoxError> {
        let mut faults = Vec::new();
        if self.boxes.is_empty() {
            faults.push("no bounding box, expected at least one".to_owned());
        }
        for (i, BoundingBox { x, y, width, height, .. }) in self.boxes.iter().enumerate() {
            let mut side = |start: i64, len: i64, all: usize, names: (&str, &str, &str)| {
                let beyond = start.checked_add(len).and_then(|end| usize::try_from(end).ok());
                if start < 0 || len < 1 || beyond.is_none_or(|end| end > all) {
                    let (start_name, len_name, what) = names;
                    faults.push(format!(
                        "box {i} (from 0) is outside the image: {start_name} {start}, {len_name} {len}, but \
                         images have {all} {what}"
                    ));
                }
            };
            side(*x, *width, shape.width, ("x", "width", "columns"));
            side(*y, *height, shape.height, ("y", "height", "rows"));
        }
        if faults.is_empty() { Ok(()) } else { Err(BoundingBoxError::Invalid { faults }) }
    }

    /// Indices of the samples that have a box, ascending.
    pub fn samples(&self) -> Vec<usize> {
        let samples: BTreeSet<usize> = self.boxes.iter().map(|object| object.sample).collect();
        samples.into_iter().collect()
    }

    /// The positions of a feature map of `rows` x `columns` that are inside a box of `sample`, row-major. A position is
    /// inside if its center, in pixels, is; so is the position that holds the center of a box, so that no box is too
    /// small to count.
    pub fn mask(&self, sample: usize, shape: ImageShape, (rows, columns): (usize, usize)) -> Vec<bool> {
        let mut mask = vec![false; rows * columns];
        for object in self.boxes.iter().filter(|object| object.sample == sample) {
            let down = covered(object.y, object.height, shape.height, rows);
            let across = covered(object.x, object.width, shape.width, columns);
            for (row, _) in down.iter().enumerate().filter(|(_, covered)| **covered) {
                let row = &mut mask[row * columns..(row + 1) * columns];
                row.iter_mut().zip(&across).for_each(|(mask, covered)| *mask |= covered);
            }
        }
        mask
    }
}

/// Which of `count` positions along a side of `pixels` have their center in the `len` pixels from `start`, or hold the
/// center of these pixels.
fn covered(start: i64, len: i64, pixels: usize, count: usize) -> Vec<bool> {
    let wide = |value: usize| i128::try_from(value).unwrap_or(i128::MAX);
    let (start, len) = (i128::from(start), i128::from(len));
    let (pixels, count_wide) = (wide(pixels), wide(count));
    let at = |position: usize| {
        let position = wide(position);
        // In units of 1 / (2 count) pixels: position p covers the pixels p pixels/count .. (p + 1) pixels/count.
        let center = (2 * position + 1) * pixels;
        let box_center = (2 * start + len) * count_wide;
        let is_center_inside = (start * 2 * count_wide..(start + len) * 2 * count_wide).contains(&center);
        let holds_box_center = (2 * position * pixels..(2 * position + 2) * pixels).contains(&box_center);
        is_center_inside || holds_box_center
    };
    (0..count).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { height: 16, width: 32, channels: 3 };

    fn boxes(list: &[(usize, [i64; 4])]) -> BoundingBoxes {
        let one = |&(sample, [x, y, width, height]): &(usize, [i64; 4])| BoundingBox {
            sample,
            x,
            y,
            width,
            height,
        };
        BoundingBoxes { seed: 3, boxes: list.iter().map(one).collect() }
    }

    #[test]
    fn positions_whose_center_is_in_a_box_are_inside() {
        // A 4 x 8 map: a position is 4 x 4 pixels, its center at 2, 6, 10 ...
        type Row<'a> = ([i64; 4], &'a [(usize, usize)]);
        let rows: &[Row<'_>] = &[
            ([0, 0, 4, 4], &[(0, 0)]),
            ([0, 0, 7, 3], &[(0, 0), (0, 1)]),
            ([3, 3, 2, 2], &[(1, 1)]), // no center inside: the position that holds the center of the box
            ([31, 15, 1, 1], &[(3, 7)]),
            ([6, 2, 1, 5], &[(0, 1), (1, 1)]),
        ];
        for (corners, expected) in rows {
            let boxes = boxes(&[(5, *corners), (6, [0, 0, 32, 16])]);
            let mask = boxes.mask(5, SHAPE, (4, 8));
            let found: Vec<_> = (0..32).filter(|&i| mask[i]).map(|i| (i / 8, i % 8)).collect();
            assert_eq!(found, *expected, "{corners:?}");
            assert!(boxes.mask(6, SHAPE, (4, 8)).iter().all(|&inside| inside));
            assert!(boxes.mask(7, SHAPE, (4, 8)).iter().all(|&inside| !inside));
            assert_eq!(boxes.samples(), [5, 6]);
        }
    }

    #[test]
    fn boxes_outside_the_image_are_listed() {
        boxes(&[(0, [0, 0, 32, 16]), (9, [31, 15, 1, 1])]).check(SHAPE).unwrap();
        BoundingBoxes::template(1, SHAPE).check(SHAPE).unwrap();
        let rows: &[([i64; 4], &str)] = &[
            ([30, 0, 3, 4], "box 1 (from 0) is outside the image: x 30, width 3, but images have 32 columns"),
            ([0, -1, 3, 4], "y -1, height 4, but images have 16 rows"),
            ([0, 0, 0, 4], "x 0, width 0"),
            ([0, 1, 1, i64::MAX], "y 1, height 9223372036854775807"),
        ];
        for (corners, expected) in rows {
            let message = boxes(&[(0, [0, 0, 1, 1]), (2, *corners)]).check(SHAPE).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(boxes(&[]).check(SHAPE).unwrap_err().to_string().contains("no bounding box"));
    }
}
