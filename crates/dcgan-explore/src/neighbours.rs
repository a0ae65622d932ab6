//! The real pictures nearest to samples, in pixels and in D's features: whether a generator draws pictures that it has seen.

use dcgan_data::Dataset;
use dcgan_features::extract::{BATCH, ExtractError, Extractor, read};
use dcgan_model::pixels::PixelRange;
use rayon::prelude::*;

/// A real picture near to a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its number in the data.
    pub index: usize,
    /// Euclidean distance.
    pub distance: f64,
}

/// The nearest references of each query, exactly, references streamed.
#[derive(Clone, Debug)]
pub struct NearestSeveral {
    queries: Vec<f32>,
    width: usize,
    count: usize,
    /// References that a query is not compared with: a real picture with itself.
    excluded: Vec<Option<usize>>,
    best: Vec<Vec<Near>>,
    references: usize,
}

impl NearestSeveral {
    /// A search for the `count` nearest of each of `queries`, rows of `width` values; `excluded` has one entry a query, the number of a
    /// reference that it is not compared with.
    pub fn new(queries: Vec<f32>, width: usize, count: usize, excluded: Vec<Option<usize>>) -> Self {
        let best = vec![Vec::with_capacity(count + 1); excluded.len()];
        Self { queries, width, count, excluded, best, references: 0 }
    }

    /// Compares every query with more references, rows like the queries'. Of equally near ones the earliest comes first.
    pub fn add(&mut self, references: &[f32]) {
        let (width, count, first) = (self.width.max(1), self.count, self.references);
        let queries = self.queries.par_chunks(width).zip(&self.excluded).zip(&mut self.best);
        queries.for_each(|((query, excluded), best)| {
            for (i, reference) in references.chunks_exact(width).enumerate() {
                let index = first + i;
                if *excluded == Some(index) {
                    continue;
                }
                let distance = squared_distance(query, reference);
                let place = best.partition_point(|near| near.distance <= distance);
                if place < count {
                    best.insert(place, Near { index, distance });
                    best.truncate(count);
                }
            }
        });
        self.references += references.len() / width;
    }

    /// The nearest of each query, the nearest first: `count`, or fewer where there were fewer references.
    pub fn found(self) -> Vec<Vec<Near>> {
        let root = |near: Near| Near { distance: near.distance.sqrt(), ..near };
        self.best.into_iter().map(|best| best.into_iter().map(root).collect()).collect()
    }
}

/// Summed in eight lanes of f32 over 64 values at a time, the parts in f64: as exact as f64 to seven digits, and fast.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let part = |(a, b): (&[f32], &[f32])| {
        let mut lanes = [0.0_f32; 8];
        for (a, b) in a.chunks(8).zip(b.chunks(8)) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += (a - b) * (a - b);
            }
        }
        lanes.into_iter().map(f64::from).sum::<f64>()
    };
    a.chunks(64).zip(b.chunks(64)).map(part).sum()
}

/// What a search found for some pictures, the same order in both.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// By pixels, in the range that the networks see.
    pub pixels: Vec<Vec<Near>>,
    /// By D's features.
    pub features: Vec<Vec<Near>>,
}

/// The `count` pictures among the first `among` of `data` that are nearest to each of `queries`, u8 `(n, h, w, c)`; a query that is
/// picture i of the data has `excluded` Some(i). `progress` hears how many pictures are done.
///
/// # Errors
/// A picture that cannot be read or has another shape than the network's; a network without statistics; memory.
pub fn search(
    extractor: &mut Extractor,
    (data, among): (&Dataset, usize),
    (queries, excluded): (&[u8], &[Option<usize>]),
    range: PixelRange,
    count: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Found, ExtractError> {
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.iter().map(|byte| range.to_f32(*byte)).collect() };
    let (len, width) = (data.shape().bytes(), extractor.width());
    let mut features = Vec::with_capacity(excluded.len() * width);
    for batch in queries.chunks(BATCH * len.max(1)) {
        features.extend(extractor.features(batch)?);
    }
    let mut by_pixels = NearestSeveral::new(values(queries), len, count, excluded.to_vec());
    let mut by_features = NearestSeveral::new(features, width, count, excluded.to_vec());
    let (mut bytes, among) = (Vec::new(), among.min(data.len()));
    for first in (0..among).step_by(BATCH) {
        let end = (first + BATCH).min(among);
        read(data, first..end, &mut bytes)?;
        by_pixels.add(&values(&bytes));
        by_features.add(&extractor.features(&bytes)?);
        progress(end);
    }
    Ok(Found { pixels: by_pixels.found(), features: by_features.found() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_features::nearest::Nearest;
    use dcgan_model::random::{Purpose, normal, stream};

    #[test]
    fn the_nearest_are_those_of_comparing_every_pair() {
        const WIDTH: usize = 75;
        let values =
            |index, n| normal(&mut stream(5, Purpose::SyntheticPictures, index), n * WIDTH, 0.0, 1.0);
        let (queries, references) = (values(0, 9), values(1, 200));
        let mut excluded = vec![None; 9];
        let mut search = NearestSeveral::new(queries.clone(), WIDTH, 4, excluded.clone());
        // Blocks of uneven sizes.
        search.add(&references[..37 * WIDTH]);
        search.add(&references[37 * WIDTH..]);
        let found = search.found();
        for (query, found) in queries.chunks(WIDTH).zip(&found) {
            let mut all: Vec<(f64, usize)> = references
                .chunks(WIDTH)
                .enumerate()
                .map(|(i, row)| {
                    (row.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt(), i)
                })
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert_eq!(
                found.iter().map(|near| near.index).collect::<Vec<_>>(),
                all[..4].iter().map(|x| x.1).collect::<Vec<_>>()
            );
            assert!(
                found.iter().zip(&all).all(|(near, (distance, _))| (near.distance - distance).abs() < 1e-5)
            );
        }
        // The search of the evaluation finds the same first ones.
        let mut reference = Nearest::new(queries.clone(), WIDTH).unwrap();
        reference.add(&references, None).unwrap();
        for (near, other) in found.iter().zip(reference.found().unwrap()) {
            assert_eq!(near[0].index as u64, other.index);
        }
        // A picture is not its own neighbour, and the second nearest moves up.
        excluded[2] = Some(found[2][0].index);
        let mut search = NearestSeveral::new(queries, WIDTH, 4, excluded);
        search.add(&references);
        let without = search.found();
        assert_eq!(without[2][..3], found[2][1..]);
        assert_eq!(without[3], found[3]);
    }
}
