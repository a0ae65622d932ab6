//! The preset of a run that names none: by the size and color of its images. Warnings for images that do not fit the
//! networks of a run.

use crate::config::RunOptions;
use dcgan_data::{ImageShape, Probe};
use std::fmt;
use std::path::Path;

/// Grey images up to this side train the networks for digits.
const DIGITS_SIDE: usize = 28;
/// Images with a shorter side below this train networks for 32x32, others for 64x64.
const LARGE_SIDE: usize = 48;
/// Images that are enlarged by this factor or more: the networks learn to draw blur.
const ENLARGED: f64 = 1.5;
/// Images that are reduced by more than this factor: most of their detail is lost.
const REDUCED: f64 = 4.0;

/// A preset that fits some images, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresetChoice {
    /// Name of the preset.
    pub preset: &'static str,
    /// Height and width of the networks.
    pub size: (usize, usize),
    /// Channels of the networks: 1 or 3; those of a cache.
    pub channels: usize,
    /// What was found: "the images are 32x32, color".
    pub found: String,
}

impl fmt::Display for PresetChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { preset, size: (height, width), channels, found } = self;
        let color = color_name(*channels);
        write!(f, "{found}: preset {preset} at {height}x{width}, {color}; --preset chooses another")
    }
}

impl PresetChoice {
    /// Chooses by images. `crop` is the side of the crop before resizing; `size` and `channels` are options that were
    /// given. None without a readable image.
    pub fn by_images(
        probe: &Probe,
        crop: Option<usize>,
        size: Option<(usize, usize)>,
        channels: Option<usize>,
    ) -> Option<Self> {
        let (height, width) = probe.median_size()?;
        let channels = channels
            .or(probe.stored_shape.map(|shape| shape.channels))
            .unwrap_or(if probe.is_color { 3 } else { 1 });
        let size = size.or(probe.stored_shape.map(|shape| (shape.height, shape.width)));
        let side = match size {
            Some((height, width)) => height.min(width),
            None => height.min(width).min(crop.unwrap_or(usize::MAX)),
        };
        let (preset, fitting) = match side {
            _ if channels == 1 && side <= DIGITS_SIDE => ("digits", multiple(side, 4, 28)),
            _ if side < LARGE_SIDE => ("pytorch32", if side < 28 { multiple(side, 8, 24) } else { 32 }),
            _ => ("pytorch64", 64),
        };
        let size = size.unwrap_or((fitting, fitting));
        Some(Self { preset, size, channels, found: describe(probe) })
    }

    /// Chooses by the images of `--data`, where neither a preset nor a configuration file is given, and sets the
    /// options. Images that cannot be read are left to the error of opening them.
    pub fn apply(options: &mut RunOptions) -> Option<Self> {
        if options.preset.is_some() || options.config.is_some() {
            return None;
        }
        let path = Path::new(options.values.get("data")?.as_str()?);
        let crop = options.values.get("crop").and_then(|crop| crop.as_u64()?.try_into().ok());
        let probe = dcgan_data::probe(path).ok()?;
        let choice = Self::by_images(&probe, crop, options.size, options.channels)?;
        options.preset = Some(choice.preset.to_owned());
        options.size = Some(choice.size);
        options.channels = Some(choice.channels);
        Some(choice)
    }
}

/// What does not fit: images whose colors the networks discard, that are enlarged, or that lose most of their detail.
pub fn warnings(probe: &Probe, crop: Option<usize>, networks: ImageShape) -> Vec<String> {
    let ImageShape { height: to_height, width: to_width, channels } = networks;
    let mut found = Vec::new();
    if channels == 1 && probe.is_color {
        found.push(
            "the images are in color, the networks are grey: colors are discarded; use --channels 3, or a preset for \
             color images such as pytorch64"
                .to_owned(),
        );
    }
    let Some((height, width)) = probe.median_size() else { return found };
    let crop = crop.unwrap_or(usize::MAX);
    let factor = |to: usize, from: usize| to as f64 / from.min(crop).max(1) as f64;
    // Images cover the networks' size: the larger factor of both sides.
    let scale = factor(to_height, height).max(factor(to_width, width));
    let sizes = format!("{} the networks generate {to_height}x{to_width}", describe_sizes(probe));
    if scale >= ENLARGED {
        found.push(format!(
            "{sizes}: images are enlarged by {scale:.1}, which adds no detail; use a smaller --size or preset"
        ));
    }
    if scale * REDUCED < 1.0 {
        found.push(format!(
            "{sizes}: images are reduced by {:.0}; a larger --size (slower) keeps more detail, or --crop N trains on \
             their center",
            1.0 / scale
        ));
    }
    found
}

/// `grey`, `color` or `color with alpha`.
pub fn color_name(channels: usize) -> &'static str {
    match channels {
        1 => "grey",
        3 => "color",
        _ => "color with alpha",
    }
}

/// The multiple of `stride` up to `side`, at least two strides and at most `max`.
fn multiple(side: usize, stride: usize, max: usize) -> usize {
    (side / stride * stride).clamp(2 * stride, max)
}

fn describe(probe: &Probe) -> String {
    let color = if probe.is_color { "color" } else { "grey" };
    format!("{} {color}", describe_sizes(probe))
}

/// `the images are 32x32,` or `the images are 30x40 to 1024x768 (median 640x480),`.
fn describe_sizes(probe: &Probe) -> String {
    let text = |(height, width): (usize, usize)| format!("{height}x{width}");
    match (probe.sizes.first(), probe.sizes.last(), probe.median_size()) {
        (Some(&least), Some(&most), _) if least == most => format!("the images are {},", text(least)),
        (Some(&least), Some(&most), Some(median)) => {
            format!("the images are {} to {} (median {}),", text(least), text(most), text(median))
        }
        _ => "no image was read,".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(sizes: &[(usize, usize)], is_color: bool) -> Probe {
        Probe { sizes: sizes.to_vec(), is_color, stored_shape: None, classes: None }
    }

    #[test]
    fn the_preset_fits_the_images() {
        let cache = |height, width, channels| {
            let stored_shape = Some(ImageShape { height, width, channels });
            Probe { stored_shape, ..probe(&[(height, width)], channels > 1) }
        };
        // images, crop, --size, --channels -> preset, size, channels
        type Row<'a> =
            (Probe, Option<usize>, Option<(usize, usize)>, Option<usize>, (&'a str, (usize, usize), usize));
        let rows: &[Row<'_>] = &[
            (probe(&[(28, 28)], false), None, None, None, ("digits", (28, 28), 1)),
            (probe(&[(8, 8)], false), None, None, None, ("digits", (8, 8), 1)),
            (probe(&[(3, 5)], false), None, None, None, ("digits", (8, 8), 1)),
            (probe(&[(18, 16)], false), None, None, None, ("digits", (16, 16), 1)),
            (probe(&[(28, 28)], true), None, None, None, ("pytorch32", (32, 32), 3)),
            (probe(&[(32, 32)], true), None, None, None, ("pytorch32", (32, 32), 3)),
            (probe(&[(32, 32)], false), None, None, None, ("pytorch32", (32, 32), 1)),
            (probe(&[(47, 300)], true), None, None, None, ("pytorch32", (32, 32), 3)),
            (probe(&[(20, 20)], true), None, None, None, ("pytorch32", (16, 16), 3)),
            (probe(&[(4, 4)], true), None, None, None, ("pytorch32", (16, 16), 3)),
            (probe(&[(48, 64)], true), None, None, None, ("pytorch64", (64, 64), 3)),
            (probe(&[(768, 1024)], true), None, None, None, ("pytorch64", (64, 64), 3)),
            (probe(&[(768, 1024)], false), None, None, None, ("pytorch64", (64, 64), 1)),
            // Most images decide, not the smallest.
            (probe(&[(16, 16), (500, 400), (500, 400)], true), None, None, None, ("pytorch64", (64, 64), 3)),
            // Options that were given stay.
            (probe(&[(218, 178)], true), Some(32), None, None, ("pytorch32", (32, 32), 3)),
            (probe(&[(218, 178)], true), None, Some((32, 48)), None, ("pytorch32", (32, 48), 3)),
            (probe(&[(32, 32)], true), None, Some((128, 128)), None, ("pytorch64", (128, 128), 3)),
            (probe(&[(28, 28)], true), None, None, Some(1), ("digits", (28, 28), 1)),
            (probe(&[(28, 28)], false), None, None, Some(3), ("pytorch32", (32, 32), 3)),
            // A cache has one shape.
            (cache(48, 80, 3), None, None, None, ("pytorch64", (48, 80), 3)),
            (cache(64, 64, 4), None, None, None, ("pytorch64", (64, 64), 4)),
            (cache(28, 28, 1), None, None, None, ("digits", (28, 28), 1)),
        ];
        for (probe, crop, size, channels, expected) in rows {
            let choice = PresetChoice::by_images(probe, *crop, *size, *channels).unwrap();
            assert_eq!((choice.preset, choice.size, choice.channels), *expected, "{probe:?}");
            // The plan that follows is valid.
            let options = RunOptions {
                preset: Some(choice.preset.to_owned()),
                size: Some(choice.size),
                channels: Some(choice.channels),
                ..RunOptions::default()
            };
            let plan = crate::config::Plan::resolve(&options).unwrap();
            assert_eq!(plan.model.image_shape(), (choice.size.0, choice.size.1, choice.channels));
        }
        assert_eq!(PresetChoice::by_images(&probe(&[], true), None, None, None), None);
        let choice = PresetChoice::by_images(&probe(&[(32, 32), (90, 60)], true), None, None, None);
        assert_eq!(
            choice.unwrap().to_string(),
            "the images are 32x32 to 90x60 (median 90x60), color: preset pytorch64 at 64x64, color; --preset chooses \
             another"
        );
    }

    #[test]
    fn misfits_are_named() {
        let shape = |side, channels| ImageShape { height: side, width: side, channels };
        let color = |height, width| probe(&[(height, width)], true);
        let grey = probe(&[(28, 28)], false);
        let rows: &[(&Probe, Option<usize>, ImageShape, &[&str])] = &[
            (&color(64, 64), None, shape(64, 3), &[]),
            (&color(32, 32), None, shape(28, 1), &["colors are discarded"]),
            (&grey, None, shape(28, 1), &[]),
            (&grey, None, shape(32, 3), &[]),
            (&grey, None, shape(64, 3), &["enlarged by 2.3"]),
            (&color(768, 1024), None, shape(28, 1), &["colors are discarded", "reduced by 27"]),
            (&color(256, 300), None, shape(64, 3), &[]),
            (&color(300, 300), None, shape(64, 3), &["reduced by 5"]),
            (&color(300, 300), Some(128), shape(64, 3), &[]),
            (&color(300, 300), Some(32), shape(64, 3), &["enlarged by 2.0"]),
            (&color(40, 300), None, shape(64, 3), &["enlarged by 1.6"]),
        ];
        for (probe, crop, networks, expected) in rows {
            let found = warnings(probe, *crop, *networks);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(*expected) {
                assert!(found.contains(expected), "{found}");
            }
        }
    }
}
