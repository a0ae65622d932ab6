//! Strides and paddings. Weights files do not hold them, unless whole modules were saved: they are those that are usual
//! for a kernel and that give the size of the images.

use std::collections::BTreeMap;
use std::slice;

use super::names::NetworkKind;
use crate::BlockConfig;
use crate::model::MAX_SIDE;
use dcgan_ops::{Kind, Layer};

/// Stride, padding and output padding.
pub(crate) type Steps = (usize, usize, usize);

/// The sides of an image, rows and columns.
pub(crate) type Sides = (usize, usize);

/// The usual ways to use a square kernel, the most usual one first; empty if there is none.
fn usual(kernel: usize, network: NetworkKind) -> &'static [Steps] {
    let is_transposed = network == NetworkKind::Generator;
    match kernel {
        1 => &[(1, 0, 0)],
        2 => &[(2, 0, 0)],
        3 if is_transposed => &[(2, 1, 1), (1, 1, 0), (2, 1, 0)],
        3 => &[(2, 1, 0), (1, 1, 0)],
        4 => &[(2, 1, 0)],
        5 if is_transposed => &[(2, 2, 1), (1, 2, 0), (3, 1, 0)],
        5 => &[(2, 2, 0), (1, 2, 0), (3, 1, 0)],
        6 => &[(2, 2, 0)],
        7 => &[(1, 3, 0)],
        _ => &[],
    }
}

/// The sides of the images, and the steps of each layer from the small map to the image.
type Way = (Sides, Vec<Steps>);

/// One way to use the kernels of a network, and the images that it gives or takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) blocks: Vec<BlockConfig>,
    pub(crate) image: Sides,
}

/// Why there is not one way to use the kernels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Problem {
    /// A kernel without a usual stride and padding.
    Kernel(usize),
    /// Several ways; the sizes of the images that they give.
    Several(Vec<Sides>),
    /// No way gives images of this size; the sizes of those that there are.
    NotThisSize(Sides, Vec<Sides>),
}

/// Maximum number of ways that are kept for one size; two are enough to know that there are several.
const MAX_WAYS: usize = 2;

/// Maximum number of sizes of feature maps that are kept.
const MAX_SIZES: usize = 4096;

/// A block: channels, kernel, and its steps if they are known.
pub(crate) type Block = (usize, usize, Option<Steps>);

/// The blocks of a network: `blocks` are in the order of the network, `map` are the sides of the
/// map that z is projected to, or that D's last layer reads, and `size` is the size of the images, if it is known.
///
/// # Errors
/// [`Problem`].
pub(crate) fn blocks(
    network: NetworkKind,
    map: Sides,
    blocks: &[Block],
    size: Option<Sides>,
) -> Result<Found, Problem> {
    // From the small map to the image, in both networks.
    let mut outward: Vec<Block> = blocks.to_vec();
    if network == NetworkKind::Discriminator {
        outward.reverse();
    }
    let mut ways = BTreeMap::from([(map, vec![Vec::new()])]);
    for (_, kernel, known) in &outward {
        let usual = known.as_ref().map_or_else(|| usual(*kernel, network), slice::from_ref);
        if usual.is_empty() {
            return Err(Problem::Kernel(*kernel));
        }
        let mut next: BTreeMap<Sides, Vec<Vec<Steps>>> = BTreeMap::new();
        for (sides, known) in &ways {
            for way in usual {
                for sides in before(network, *sides, *kernel, *way) {
                    if next.len() >= MAX_SIZES && !next.contains_key(&sides) {
                        continue;
                    }
                    let longer = known.iter().map(|steps| steps.iter().copied().chain([*way]).collect());
                    let list = next.entry(sides).or_default();
                    list.extend(longer);
                    list.truncate(MAX_WAYS);
                }
            }
        }
        ways = next;
    }
    let ways: Vec<Way> = ways
        .into_iter()
        .flat_map(|(sides, lists)| lists.into_iter().map(move |steps| (sides, steps)))
        .collect();
    let sizes = || {
        let mut sizes: Vec<Sides> = ways.iter().map(|(sides, _)| *sides).collect();
        sizes.dedup();
        sizes
    };
    let fitting: Vec<&Way> = match size {
        Some(size) => ways.iter().filter(|(sides, _)| *sides == size).collect(),
        None => exact(network, &ways),
    };
    match fitting.as_slice() {
        [(image, steps)] => {
            let block = |((channels, kernel, _), steps): (&Block, &Steps)| {
                let (channels, kernel, (stride, padding, output_padding)) = (*channels, *kernel, *steps);
                BlockConfig { output_padding, ..BlockConfig::plain(channels, kernel, stride, padding) }
            };
            let mut blocks: Vec<BlockConfig> = outward.iter().zip(steps).map(block).collect();
            if network == NetworkKind::Discriminator {
                blocks.reverse();
            }
            Ok(Found { blocks, image: *image })
        }
        [] => Err(match size {
            Some(size) => Problem::NotThisSize(size, sizes()),
            None => Problem::Several(sizes()),
        }),
        several => {
            let mut sizes: Vec<Sides> = several.iter().map(|(sides, _)| *sides).collect();
            sizes.dedup();
            Err(Problem::Several(sizes))
        }
    }
}

/// The sides on the other side of a layer, toward the image. A convolution with a stride takes several sizes to one.
fn before(network: NetworkKind, (rows, columns): Sides, kernel: usize, way: Steps) -> Vec<Sides> {
    let (stride, padding, output_padding) = way;
    let in_range = |side: &usize| (1..=MAX_SIDE).contains(side);
    let sides = |side: usize| -> Vec<usize> {
        match network {
            NetworkKind::Generator => {
                let out =
                    Layer::output_side(Kind::ConvTranspose, side, kernel, stride, padding, output_padding);
                out.into_iter().filter(in_range).collect()
            }
            NetworkKind::Discriminator => {
                let smallest = ((side.max(1) - 1) * stride + kernel).saturating_sub(2 * padding);
                (smallest..smallest + stride).filter(in_range).collect()
            }
        }
    };
    // Rows and columns of square maps stay equal.
    if rows == columns {
        return sides(rows).into_iter().map(|side| (side, side)).collect();
    }
    let columns = sides(columns);
    sides(rows).into_iter().flat_map(|row| columns.iter().map(move |column| (row, *column))).collect()
}

/// The ways whose convolutions lose no rows, for images of unknown size. A map of odd sides is often what remains of
/// 28 x 28 images, so these count as well.
fn exact(network: NetworkKind, ways: &[Way]) -> Vec<&Way> {
    if network == NetworkKind::Generator {
        return ways.iter().collect();
    }
    let strides = |steps: &[Steps]| steps.iter().map(|(stride, ..)| *stride).product::<usize>().max(1);
    let is_exact = |((rows, columns), steps): &&Way| {
        let stride = strides(steps);
        rows.is_multiple_of(stride) && columns.is_multiple_of(stride)
    };
    let is_digit = |(sides, _): &&Way| *sides == (28, 28);
    ways.iter().filter(|way| is_exact(way) || is_digit(way)).collect()
}
