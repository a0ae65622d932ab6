//! The search equals a comparison of every pair, for any block size and number of threads.

use super::*;
use proptest::prelude::*;

/// Every pair in f64: the `count` nearest except the excluded one, the first of equal ones first.
fn brute_force(
    queries: &[f32],
    references: &[f32],
    width: usize,
    count: usize,
    excluded: &[Option<u64>],
) -> Vec<Vec<(u64, f64)>> {
    let nearest = |(query, excluded): (&[f32], &Option<u64>)| {
        let distance = |reference: &[f32]| -> f64 {
            let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
            query.iter().zip(reference).map(square).sum()
        };
        let all = (0..).zip(references.chunks_exact(width).map(distance));
        let mut all: Vec<(u64, f64)> = all.filter(|(index, _)| Some(*index) != *excluded).collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1)); // stable
        all.truncate(count);
        all
    };
    queries.chunks_exact(width).zip(excluded).map(nearest).collect()
}

/// Adds the references in blocks of the sizes of `cuts`, repeated, on `threads` threads; the label of a reference
/// is its index.
fn search(mut nearest: Nearest, references: &[f32], cuts: &[usize], threads: usize) -> Nearest {
    let width = nearest.width;
    let mut add = || {
        let (mut rest, mut cuts) = (references, cuts.iter().cycle());
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rest.len().min(cuts.next().unwrap() * width));
            let n = u32::try_from(block.len() / width).unwrap();
            let first = u32::try_from(nearest.references()).unwrap();
            nearest.add(block, Some(&(first..first + n).collect::<Vec<_>>())).unwrap();
            rest = after;
        }
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&mut add);
    nearest
}

/// The nearest one, and several, with and without exclusions.
fn check(queries: &[f32], references: &[f32], width: usize, cuts: &[usize]) {
    let (m, n) = (queries.len() / width, references.len() / width);
    let some = |i: usize| (!i.is_multiple_of(3)).then_some((i * 7 % (n + 1)) as u64);
    let excluded: Vec<Option<u64>> = (0..m).map(some).collect();
    for (count, excluded) in [(1, vec![None; m]), (1, excluded.clone()), (2, vec![None; m]), (5, excluded)] {
        let expected = brute_force(queries, references, width, count, &excluded);
        for threads in [1, 2] {
            let nearest = Nearest::k_nearest(queries.to_vec(), width, count, excluded.clone()).unwrap();
            let nearest = search(nearest, references, cuts, threads);
            let actual = nearest.found_k().map(|found| {
                assert!(found.iter().all(|found| found.label.map(u64::from) == Some(found.index)));
                found.iter().map(|found| (found.index, found.distance_squared)).collect()
            });
            let actual: Vec<Vec<(u64, f64)>> = actual.collect();
            assert_eq!(actual, expected, "{count} nearest, {threads} threads");
            let first: Option<Vec<u64>> =
                expected.iter().map(|near| near.first().map(|near| near.0)).collect();
            let found = nearest.found().ok();
            assert_eq!(found.map(|found| found.iter().map(|found| found.index).collect()), first);
        }
    }
}

/// Multiples of a step: their distances are exact in f64 in any order of summation.
fn values(n: usize, around: i32, spread: i32) -> impl Strategy<Value = Vec<f32>> {
    let step = prop_oneof![Just(1.0_f32), Just(1.0 / 128.0)];
    (prop::collection::vec(around - spread..=around + spread, n), step)
        .prop_map(|(values, step)| values.into_iter().map(|value| value as f32 * step).collect())
}

#[derive(Clone, Debug)]
struct Problem {
    queries: Vec<f32>,
    references: Vec<f32>,
    width: usize,
    /// Sizes of blocks.
    cuts: Vec<usize>,
}

/// Few distinct values in few columns make many ties; values far from 0 make products in f32 inaccurate.
fn problems() -> impl Strategy<Value = Problem> {
    let shape = (1..6_usize, 1..90_usize, 1..40_usize);
    let kind = prop_oneof![Just((0, 1)), Just((127, 127)), Just((60_000, 3)), Just((-60_000, 60_000))];
    (shape, kind).prop_flat_map(|((m, n, width), (around, spread))| {
        let cuts = prop::collection::vec(1..40_usize, 1..4);
        let all = values((m + n) * width, around, spread);
        (all, cuts).prop_map(move |(all, cuts)| {
            let (queries, references) = all.split_at(m * width);
            Problem { queries: queries.to_vec(), references: references.to_vec(), width, cuts }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn results_equal_brute_force(problem in problems()) {
        check(&problem.queries, &problem.references, problem.width, &problem.cuts);
    }
}

#[test]
fn more_queries_and_references_than_a_tile_holds() {
    let mut state = 1_u32;
    let mut pixel = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 30) as f32
    };
    let width = 7; // 4^7 distinct vectors, hence ties
    let queries: Vec<f32> = (0..(QUERIES + 3) * width).map(|_| pixel()).collect();
    let references: Vec<f32> = (0..(2 * REFERENCES + 5) * width).map(|_| pixel()).collect();
    check(&queries, &references, width, &[2 * REFERENCES + 5]);
    check(&queries, &references, width, &[REFERENCES + 1, 1, 17]);
}

/// Vectors far from 0 and 1e-3 apart: their products in f32 differ by rounding only.
#[test]
fn distances_below_the_resolution_of_f32() {
    let row = |i: u32| [4096.0, 4096.0, (i as f32).mul_add(1.0 / 1024.0, 4096.0)];
    let references: Vec<f32> = (0..64).rev().flat_map(row).collect();
    let queries: Vec<f32> = (0..64).flat_map(row).collect();
    check(&queries, &references, 3, &[64]);
    check(&queries, &references, 3, &[5]);
    // Near the limits of f32: tiny squares underflow, large ones nearly overflow.
    for scale in [1e-30, 1e14] {
        let scaled = |values: &[f32]| values.iter().map(|v| v * scale).collect::<Vec<f32>>();
        let (queries, references) = (scaled(&queries), scaled(&references));
        for count in [1, 4] {
            let expected = brute_force(&queries, &references, 3, count, &[None; 64]);
            let nearest = Nearest::k_nearest(queries.clone(), 3, count, vec![None; 64]).unwrap();
            let nearest = search(nearest, &references, &[9], 1);
            for (found, expected) in nearest.found_k().zip(&expected) {
                let indices = found.iter().map(|found| found.index);
                assert!(indices.eq(expected.iter().map(|(index, _)| *index)), "scale {scale}, {count}");
            }
        }
    }
}

#[test]
fn scores() {
    let mut nearest = Nearest::new(vec![0.0, 0.0, 10.0, 0.0], 2).unwrap();
    nearest.add(&[3.0, 4.0, 9.0, 0.0], Some(&[7, 8])).unwrap();
    let found = nearest.found().unwrap();
    assert_eq!(mean_distance(&found).unwrap(), 3.0);
    assert_eq!(error_percent(&found, &[7, 8]).unwrap(), 0.0);
    assert_eq!(error_percent(&found, &[7, 1]).unwrap(), 50.0);
    nearest.add(&[], None).unwrap();
    nearest.add(&[0.0, 1.0], None).unwrap();
    let found = nearest.found().unwrap();
    assert_eq!(found[0], Neighbour { index: 2, label: None, distance_squared: 1.0 });
    assert_eq!(error_percent(&found, &[7, 8]), Err(NearestError::Unlabeled { index: 2 }));
    assert!(error_percent(&found, &[7]).is_err());
    assert!(mean_distance(&[]).is_err() && error_percent(&[], &[]).is_err());
}

#[test]
fn invalid_searches_are_rejected() {
    let rejected = |queries: &[f32], width| Nearest::new(queries.to_vec(), width).unwrap_err();
    assert_eq!(rejected(&[], 2), NearestError::Empty { what: "query" });
    assert_eq!(rejected(&[1.0], 0), NearestError::Ragged { what: "queries", len: 1, width: 0 });
    let length = |what, row, length: &str| NearestError::Length { what, row, length: length.into() };
    assert_eq!(rejected(&[1.0, f32::NAN], 1), length("query", 1, "NaN"));
    let several = |count, excluded| Nearest::k_nearest(vec![0.0; 4], 2, count, excluded).unwrap_err();
    assert_eq!(several(0, vec![None; 2]), NearestError::Empty { what: "neighbour" });
    assert_eq!(several(1, vec![None]), NearestError::Excluded { expected: 2, found: 1 });
    let mut nearest = Nearest::new(vec![0.0, 0.0], 2).unwrap();
    assert_eq!(nearest.found(), Err(NearestError::Empty { what: "reference" }));
    nearest.add(&[2.0, 0.0], Some(&[1])).unwrap();
    let labels = NearestError::Labels { what: "references", expected: 1, found: 2 };
    for (values, labels, fault) in [
        (&[1.0][..], None, NearestError::Ragged { what: "references", len: 1, width: 2 }),
        (&[1.0, 1.0], Some(&[3, 4][..]), labels),
        (&[1.0, 0.0, f32::INFINITY, 0.0], None, length("reference", 2, "inf")),
    ] {
        assert_eq!(nearest.add(values, labels), Err(fault));
    }
    // A rejected block adds nothing.
    assert_eq!((nearest.references(), nearest.found().unwrap()[0].index), (1, 0));
    assert_eq!(nearest.found().unwrap()[0].distance_squared, 4.0);
}
