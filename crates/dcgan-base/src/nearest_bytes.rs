//! Exact squared distances between vectors of bytes, such as the pixels of images, and the nearest of many.
//!
//! `|q - r|^2 = |q|^2 + s` with `s = |r|^2 - 256 sum(r) - 2 (q - 128) . r`, so the reference with the least `s` is the
//! nearest. The product of signed and unsigned bytes is summed in i32 without rounding. AVX512-VNNI multiplies 64 pairs
//! of bytes with one instruction; other processors run plain loops with the same result.

use std::ops::Range;
use std::sync::OnceLock;

/// Maximum number of bytes of a vector: `s` of more would overflow i32.
pub const MAX_WIDTH: usize = 26_000;
/// References of a panel: two vectors of 16 sums.
const PANEL: usize = 32;
/// Queries that are compared with a panel at a time. Two vectors of sums for each stay in registers.
const QUERIES: usize = 8;

/// The code that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// AVX512-VNNI.
    Vnni,
    /// Plain loops, compiled for AVX2.
    Avx2,
    /// Plain loops.
    Plain,
}

impl Kernel {
    /// All kernels, the fastest first.
    pub const ALL: [Self; 3] = [Self::Vnni, Self::Avx2, Self::Plain];

    /// Whether the processor runs it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vnni | Self::Avx2 => false,
            Self::Plain => true,
        }
    }

    /// The fastest that the processor runs. The environment variable `DCGAN_ISA` (`avx512`, `avx2` or `portable`)
    /// limits the choice, as for the kernels of dcgan-ops.
    pub fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            let skipped = match std::env::var("DCGAN_ISA").as_deref() {
                Ok("portable") => 2,
                Ok("avx2") => 1,
                _ => 0,
            };
            let mut kernels = Self::ALL.into_iter().skip(skipped);
            kernels.find(|kernel| kernel.is_available()).unwrap_or(Self::Plain)
        })
    }
}

/// The least `s` of a query so far, and the index of its reference; the first of equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Least {
    /// `s`; `i32::MAX` before any reference.
    pub score: i32,
    /// Index among all references.
    pub index: u64,
}

/// Query vectors, `(n, width)`.
#[derive(Debug)]
pub struct Queries {
    /// `q - 128`, rows of `words` groups of four; as many rows as a multiple of [`QUERIES`].
    values: Vec<i8>,
    squares: Vec<i64>,
    words: usize,
}

/// Reference vectors in the order that the kernels read: panels of 32 vectors, groups of four bytes, vectors, bytes.
#[derive(Debug, Default)]
pub struct References {
    values: Vec<u8>,
    /// `|r|^2 - 256 sum(r)`; `i32::MAX` for the vectors that complete the last panel.
    constants: Vec<i32>,
    n: usize,
}

impl Queries {
    /// The rows of `bytes`, `width` bytes each. A width of zero or above [`MAX_WIDTH`] gives no queries.
    pub fn new(bytes: &[u8], width: usize) -> Self {
        let words = width.div_ceil(4);
        if !(1..=MAX_WIDTH).contains(&width) {
            return Self { values: Vec::new(), squares: Vec::new(), words };
        }
        let n = bytes.len() / width;
        // A padding of 128 is 0 after the shift.
        let mut values = vec![0; n.next_multiple_of(QUERIES) * words * 4];
        for (row, bytes) in values.chunks_exact_mut(words * 4).zip(bytes.chunks_exact(width)) {
            row.iter_mut().zip(bytes).for_each(|(value, byte)| *value = byte.wrapping_sub(128).cast_signed());
        }
        let square = |row: &[u8]| row.iter().map(|&byte| i64::from(byte) * i64::from(byte)).sum();
        Self { values, squares: bytes.chunks_exact(width).map(square).collect(), words }
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.squares.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.squares.is_empty()
    }

    /// The squared distance of query `i` to the reference of `least`.
    pub fn distance_squared(&self, i: usize, least: Least) -> i64 {
        self.squares[i] + i64::from(least.score)
    }

    /// Updates `least`, one for each query of `range`, whose start is a multiple of 8, by all `references`, the first
    /// of which has index `first` among all.
    ///
    /// # Panics
    /// Where the processor does not run `kernel`, or another width, start or length was given: bugs of the caller.
    pub fn update(
        &self,
        kernel: Kernel,
        range: Range<usize>,
        (references, first): (&References, u64),
        least: &mut [Least],
    ) {
        let row = self.words * 4;
        let panels = references.constants.len() / PANEL;
        assert!(kernel.is_available() && range.start.is_multiple_of(QUERIES) && range.end <= self.len());
        assert!(least.len() == range.len() && references.values.len() == panels * PANEL * row);
        let rows = &self.values[range.start * row..range.end.next_multiple_of(QUERIES) * row];
        for (panel, (values, constants)) in references
            .values
            .chunks_exact(PANEL * row)
            .zip(references.constants.chunks_exact(PANEL))
            .enumerate()
        {
            let first = first + (panel * PANEL) as u64;
            for (queries, least) in rows.chunks_exact(QUERIES * row).zip(least.chunks_mut(QUERIES)) {
                compare(kernel, (queries, row), (values, constants, first), least);
            }
        }
    }
}

impl References {
    /// Replaces all by the rows of `bytes`, `width` bytes each, in the memory of those before.
    pub fn fill(&mut self, bytes: &[u8], width: usize) {
        self.n = bytes.len().checked_div(width).unwrap_or(0);
        let row = width.div_ceil(4) * 4;
        let padded = self.n.next_multiple_of(PANEL);
        self.values.clear();
        self.values.resize(padded * row, 0);
        self.constants.clear();
        self.constants.resize(padded, i32::MAX);
        for (i, bytes) in bytes.chunks_exact(width.max(1)).enumerate() {
            let panel = &mut self.values[i / PANEL * PANEL * row..][..PANEL * row];
            for (words, word) in panel.chunks_exact_mut(PANEL * 4).zip(bytes.chunks(4)) {
                words[i % PANEL * 4..][..word.len()].copy_from_slice(word);
            }
            let constant = |&byte: &u8| i32::from(byte) * i32::from(byte) - 256 * i32::from(byte);
            self.constants[i] = bytes.iter().map(constant).sum();
        }
    }

    /// Number of references.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }
}

/// Compares 8 queries of `row` bytes with a panel, whose first vector has index `first`.
#[allow(unsafe_code, reason = "instructions of the processor, which is checked before")]
fn compare(
    kernel: Kernel,
    (queries, row): (&[i8], usize),
    (values, constants, first): (&[u8], &[i32], u64),
    least: &mut [Least],
) {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Queries::update` has checked that the processor has these features.
        Kernel::Vnni => unsafe { x86::compare_vnni((queries, row), (values, constants, first), least) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kernel::Avx2 => unsafe { x86::compare_avx2((queries, row), (values, constants, first), least) },
        _ => compare_plain((queries, row), (values, constants, first), least),
    }
}

#[inline(always)]
fn compare_plain(
    (queries, row): (&[i8], usize),
    (values, constants, first): (&[u8], &[i32], u64),
    least: &mut [Least],
) {
    for (query, least) in queries.chunks_exact(row).zip(least) {
        let mut sums = [0_i32; PANEL];
        for (word, words) in query.as_chunks::<4>().0.iter().zip(values.as_chunks::<{ PANEL * 4 }>().0) {
            for (sum, bytes) in sums.iter_mut().zip(words.as_chunks::<4>().0) {
                *sum += word.iter().zip(bytes).map(|(&q, &r)| i32::from(q) * i32::from(r)).sum::<i32>();
            }
        }
        for (i, (sum, constant)) in (0..).zip(sums.iter().zip(constants)) {
            let score = constant - 2 * sum;
            if score < least.score {
                *least = Least { score, index: first + i };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "loads of vectors")]
mod x86 {
    use super::{Least, PANEL, QUERIES, compare_plain};
    use std::arch::x86_64::{
        __m512i, _mm512_cmplt_epi32_mask, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_si512, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_epi32,
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn compare_avx2(queries: (&[i8], usize), panel: (&[u8], &[i32], u64), least: &mut [Least]) {
        compare_plain(queries, panel, least);
    }

    /// The vector of 16 values of four bytes at `values`.
    #[target_feature(enable = "avx512f")]
    fn load<T>(values: &[T]) -> __m512i {
        assert!(size_of_val(values) >= 64);
        // SAFETY: 64 bytes are within the slice.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn compare_vnni(
        (queries, row): (&[i8], usize),
        (values, constants, first): (&[u8], &[i32], u64),
        least: &mut [Least],
    ) {
        let rows: [&[[i8; 4]]; QUERIES] =
            std::array::from_fn(|i| queries[i * row..(i + 1) * row].as_chunks::<4>().0);
        let mut sums = [[_mm512_setzero_si512(); 2]; QUERIES];
        for (k, words) in values.as_chunks::<{ PANEL * 4 }>().0[..row / 4].iter().enumerate() {
            let references = [load(&words[..64]), load(&words[64..])];
            for (sums, query) in sums.iter_mut().zip(&rows) {
                let word = _mm512_set1_epi32(i32::from_ne_bytes(query[k].map(i8::cast_unsigned)));
                for (sum, references) in sums.iter_mut().zip(references) {
                    *sum = _mm512_dpbusd_epi32(*sum, references, word);
                }
            }
        }
        let constants = [load(&constants[..16]), load(&constants[16..])];
        for (sums, least) in sums.iter().zip(least) {
            for (half, (&sum, constants)) in (0..).zip(sums.iter().zip(constants)) {
                let scores = _mm512_sub_epi32(constants, _mm512_slli_epi32::<1>(sum));
                if _mm512_cmplt_epi32_mask(scores, _mm512_set1_epi32(least.score)) == 0 {
                    continue;
                }
                let mut lanes = [0_i32; 16];
                // SAFETY: the array has 64 bytes.
                unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), scores) };
                for (lane, score) in (0..).zip(lanes) {
                    if score < least.score {
                        *least = Least { score, index: first + half * 16 + lane };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte of a fixed sequence; the values 0 and 255 are frequent.
    fn byte(i: usize) -> u8 {
        let value = i.wrapping_mul(2_654_435_761) >> 7;
        match value % 5 {
            0 => 0,
            1 => 255,
            _ => (value >> 3).to_le_bytes()[0],
        }
    }

    #[test]
    fn every_kernel_finds_the_nearest_of_all_pairs() {
        for (queries, references, width) in
            [(1, 1, 1), (9, 33, 3), (20, 100, 16), (8, 64, 784), (11, 70, 785)]
        {
            let query_bytes: Vec<u8> = (0..queries * width).map(byte).collect();
            let mut reference_bytes: Vec<u8> = (0..references * width).map(|i| byte(i + 7_919)).collect();
            // Equal references: the first counts.
            let (a, b) = reference_bytes.split_at_mut(width);
            b.chunks_exact_mut(width).last().into_iter().for_each(|last| last.copy_from_slice(a));
            let distance = |q: &[u8], r: &[u8]| -> i64 {
                q.iter().zip(r).map(|(q, r)| (i64::from(*q) - i64::from(*r)).pow(2)).sum()
            };
            let expected: Vec<(i64, u64)> = query_bytes
                .chunks_exact(width)
                .map(|q| {
                    (0..)
                        .zip(reference_bytes.chunks_exact(width))
                        .map(|(i, r)| (distance(q, r), i))
                        .min()
                        .unwrap()
                })
                .collect();
            for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
                let packed = Queries::new(&query_bytes, width);
                let mut least = vec![Least { score: i32::MAX, index: 0 }; queries];
                let mut block = References::default();
                // In two blocks, queries in parts.
                let half = references / 2;
                for (rows, first) in [(0..half, 0), (half..references, half)] {
                    block.fill(&reference_bytes[rows.start * width..rows.end * width], width);
                    for start in (0..queries).step_by(QUERIES) {
                        let range = start..(start + QUERIES).min(queries);
                        packed.update(kernel, range.clone(), (&block, first as u64), &mut least[range]);
                    }
                }
                let found: Vec<(i64, u64)> = least
                    .iter()
                    .enumerate()
                    .map(|(i, &l)| (packed.distance_squared(i, l), l.index))
                    .collect();
                assert_eq!(found, expected, "{kernel:?} {queries} {references} {width}");
            }
        }
    }

    #[test]
    fn the_largest_scores_do_not_overflow() {
        for (q, r) in [(0, 255), (255, 0), (255, 255), (0, 0), (0, 128)] {
            let (query, reference) = (vec![q; MAX_WIDTH], vec![r; MAX_WIDTH]);
            let packed = Queries::new(&query, MAX_WIDTH);
            let mut block = References::default();
            block.fill(&reference, MAX_WIDTH);
            let expected = (i64::from(q) - i64::from(r)).pow(2) * MAX_WIDTH as i64;
            for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
                let mut least = [Least { score: i32::MAX, index: 0 }];
                packed.update(kernel, 0..1, (&block, 0), &mut least);
                assert_eq!(packed.distance_squared(0, least[0]), expected, "{kernel:?} {q} {r}");
            }
        }
    }
}
