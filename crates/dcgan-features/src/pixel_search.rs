//! Exact nearest neighbours of images in pixels, with references streamed in blocks.
//!
//! Distances are those of bytes, and exact ([`dcgan_base::nearest_bytes`]). Larger images than its kernels take are
//! compared by [`Nearest`], whose result equals a comparison in f64.

use crate::nearest::{Nearest, NearestError, Neighbour};
use dcgan_base::nearest_bytes::{Kernel, Least, MAX_WIDTH, Queries, References};
use rayon::prelude::*;

/// Queries of a parallel task, a multiple of 8. With a block of a few thousand references they stay in the cache of one
/// core.
const TASK: usize = 64;

/// A search for the nearest reference of each query. Distances are in units of a byte.
#[derive(Debug)]
pub struct PixelSearch(Kind);

#[derive(Debug)]
enum Kind {
    Bytes(Box<Bytes>),
    Floats(Nearest),
}

#[derive(Debug)]
struct Bytes {
    width: usize,
    queries: Queries,
    /// The references being added, kept for the memory.
    block: References,
    least: Vec<Least>,
    labels: Vec<Option<u32>>,
    references: u64,
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|&byte| f32::from(byte)).collect()
}

impl PixelSearch {
    /// A search with `queries`, u8 `(n, width)`.
    ///
    /// # Errors
    /// No query; a number of bytes that is not a multiple of `width`.
    pub fn new(queries: &[u8], width: usize) -> Result<Self, NearestError> {
        if width > MAX_WIDTH {
            return Ok(Self(Kind::Floats(Nearest::new(floats(queries), width)?)));
        }
        check_rows("queries", queries.len(), width)?;
        let queries = Queries::new(queries, width);
        if queries.is_empty() {
            return Err(NearestError::Empty { what: "query" });
        }
        let n = queries.len();
        Ok(Self(Kind::Bytes(Box::new(Bytes {
            width,
            queries,
            block: References::default(),
            least: vec![Least { score: i32::MAX, index: 0 }; n],
            labels: vec![None; n],
            references: 0,
        }))))
    }

    /// Number of references added.
    pub fn references(&self) -> u64 {
        match &self.0 {
            Kind::Bytes(search) => search.references,
            Kind::Floats(search) => search.references(),
        }
    }

    /// Adds references, u8 `(n, width)`, with or without labels, and compares every query with them.
    ///
    /// # Errors
    /// A number of bytes that is not a multiple of the width; another number of labels than rows.
    pub fn add(&mut self, references: &[u8], labels: Option<&[u32]>) -> Result<(), NearestError> {
        let search = match &mut self.0 {
            Kind::Bytes(search) => search,
            Kind::Floats(search) => return search.add(&floats(references), labels),
        };
        let n = check_rows("references", references.len(), search.width)?;
        if let Some(found) = labels.map(<[u32]>::len).filter(|&found| found != n) {
            return Err(NearestError::Labels { what: "references", expected: n, found });
        }
        let Bytes { width, queries, block, least, labels: found_labels, references: first } = &mut **search;
        block.fill(references, *width);
        let (queries, block, kernel, first) = (&*queries, &*block, Kernel::best(), *first);
        least.par_chunks_mut(TASK).zip(found_labels.par_chunks_mut(TASK)).enumerate().for_each(
            |(task, (least, found_labels))| {
                let start = task * TASK;
                queries.update(kernel, start..start + least.len(), (block, first), least);
                for (least, label) in least.iter().zip(found_labels).filter(|(least, _)| least.index >= first)
                {
                    let row = usize::try_from(least.index - first).ok();
                    *label = labels.zip(row).and_then(|(labels, row)| labels.get(row)).copied();
                }
            },
        );
        search.references += n as u64;
        Ok(())
    }

    /// The nearest reference of each query, and how many were added: the state of a search, for
    /// [`PixelSearch::restore`]. Infinite distances before any reference.
    pub fn state(&self) -> (Vec<Neighbour>, u64) {
        match &self.0 {
            Kind::Floats(search) => {
                let (best, references) = search.state();
                (best.to_vec(), references)
            }
            Kind::Bytes(search) => (search.neighbours(), search.references),
        }
    }

    /// Continues a search of the same queries from its state.
    ///
    /// # Errors
    /// A state of another number of queries.
    pub fn restore(&mut self, best: Vec<Neighbour>, references: u64) -> Result<(), NearestError> {
        let search = match &mut self.0 {
            Kind::Floats(search) => return search.restore(best, references),
            Kind::Bytes(search) => search,
        };
        if best.len() != search.queries.len() {
            return Err(NearestError::State { expected: search.queries.len(), found: best.len() });
        }
        for (i, neighbour) in best.into_iter().enumerate() {
            // Whole numbers of at most 2^31.
            #[expect(clippy::cast_possible_truncation, reason = "infinite before any reference")]
            let score = neighbour.distance_squared as i64 - search.queries.distance_squared(i, ZERO);
            let score = i32::try_from(score).unwrap_or(i32::MAX);
            search.least[i] = Least { score, index: neighbour.index };
            search.labels[i] = neighbour.label;
        }
        search.references = references;
        Ok(())
    }

    /// The nearest reference of each query.
    ///
    /// # Errors
    /// No reference.
    pub fn found(&self) -> Result<Vec<Neighbour>, NearestError> {
        match &self.0 {
            Kind::Floats(search) => search.found(),
            Kind::Bytes(search) if search.references == 0 => Err(NearestError::Empty { what: "reference" }),
            Kind::Bytes(search) => Ok(search.neighbours()),
        }
    }
}

/// With this score a distance is that of the query to zero.
const ZERO: Least = Least { score: 0, index: 0 };

impl Bytes {
    fn neighbours(&self) -> Vec<Neighbour> {
        let neighbour = |(i, (least, label)): (usize, (&Least, &Option<u32>))| Neighbour {
            index: least.index,
            label: *label,
            distance_squared: if least.score == i32::MAX {
                f64::INFINITY
            } else {
                self.queries.distance_squared(i, *least) as f64
            },
        };
        self.least.iter().zip(&self.labels).enumerate().map(neighbour).collect()
    }
}

fn check_rows(what: &'static str, len: usize, width: usize) -> Result<usize, NearestError> {
    if width == 0 || !len.is_multiple_of(width) {
        return Err(NearestError::Ragged { what, len, width });
    }
    Ok(len / width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same_and_continue_from_their_state() {
        for width in [3, 40, MAX_WIDTH + 1] {
            let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 9).to_le_bytes()[0];
            let (queries, references) = (11, 25);
            let query_bytes: Vec<u8> = (0..queries * width).map(byte).collect();
            let reference_bytes: Vec<u8> = (0..references * width).map(|i| byte(i + 12_345)).collect();
            let labels: Vec<u32> = (0..25).collect();
            let mut expected = Nearest::new(floats(&query_bytes), width).unwrap();
            expected.add(&floats(&reference_bytes), Some(&labels)).unwrap();
            let mut search = PixelSearch::new(&query_bytes, width).unwrap();
            assert!(search.found().is_err());
            for rows in [0..10, 10..25] {
                let bytes = &reference_bytes[rows.start * width..rows.end * width];
                search.add(bytes, Some(&labels[rows])).unwrap();
                let (best, references) = search.state();
                let mut restored = PixelSearch::new(&query_bytes, width).unwrap();
                restored.restore(best, references).unwrap();
                assert_eq!(restored.found(), search.found());
                search = restored;
            }
            assert_eq!(search.found(), expected.found(), "{width}");
            assert!(search.add(&reference_bytes[..width], Some(&labels)).is_err());
            assert!(search.restore(Vec::new(), 1).is_err());
        }
        assert!(PixelSearch::new(&[1, 2, 3], 2).is_err());
        assert!(PixelSearch::new(&[], 2).is_err());
    }
}
