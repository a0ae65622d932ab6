//! `dcgan-explore arithmetic`

use super::{Faults, InputFiles, OpenedModel, classes, generate, latent_sets, open_with_classes, save_z};
use crate::cli::ArithmeticArgs;
use dcgan_cli::{Logging, Outcome, UsageError};
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::arithmetic::{combine, combine_images, mean_image, perturb};
use dcgan_explore::latent::{LatentSet, concat};
use dcgan_model::{Generator, pixels};
use dcgan_ops::BufferPool;

/// Perturbed copies of the result; with it, three rows of three.
const COPIES: usize = 8;
/// z per concept in the paper, where arithmetic on single z is unstable.
const STABLE: usize = 3;
/// Maximum number of images of a concept in the figure.
const MAX_SHOWN: usize = 5;
/// Black rows between arithmetic on z and arithmetic on pixels.
const LINE_GAP: usize = 8;

pub(crate) fn run(args: &ArithmeticArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_range("--noise", args.noise, 0.0..=10.0);
    let inputs = InputFiles::model(&args.model).z("--plus", &args.plus).z("--minus", &args.minus);
    let results = faults.check_outputs(
        (logging, false),
        &inputs,
        &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())],
    );
    let model = open_with_classes(
        &args.model,
        (&args.class, &[&args.plus, &args.minus]),
        &args.compute,
        &mut faults,
    )?;
    let classes = classes(model.as_ref(), &args.class, &mut faults);
    let plus = latent_sets(model.as_ref(), "--plus", &args.plus, classes, &mut faults);
    let minus = latent_sets(model.as_ref(), "--minus", &args.minus, classes, &mut faults);
    if let Some(model) = &model {
        model.check_generator(&mut faults);
        for (option, set) in
            plus.iter().map(|set| ("--plus", set)).chain(minus.iter().map(|set| ("--minus", set)))
        {
            faults.check_bytes(option, set.len(), model.sample_bytes());
        }
    }
    let opened = faults.into_result(model)?;
    let named = args.plus.iter().map(|spec| ("--plus", spec)).zip(&plus);
    for ((option, spec), set) in named.chain(args.minus.iter().map(|spec| ("--minus", spec)).zip(&minus)) {
        if set.len() < STABLE {
            tracing::warn!(
                "{option} {spec} has {} z: use the mean of {STABLE} or more for stable arithmetic",
                set.len()
            );
        }
    }
    let mut generator = opened.generator()?;
    let result = combine(&plus, &minus).and_then(|z| perturb(&z, args.noise, COPIES, args.seed));
    let result = result.map_err(|error| UsageError::one(format!("--plus and --minus: {error}")))?;
    let images = ImageGrid::split_batch(&generate(&mut generator, &result, logging)?, opened.shape())?;
    let plus = concepts(&opened, &mut generator, &plus, logging)?;
    let minus = concepts(&opened, &mut generator, &minus, logging)?;
    save_z(args.save_z.as_deref(), &result)?;
    figure(&opened, &plus, &minus, images)?.save(&args.out)?;
    let terms: Vec<String> =
        terms(&plus, &minus).map(|(sign, c)| format!("{sign} mean of {}", c.count)).collect();
    let terms = terms.join(" ");
    results.text(&format!(
        "{} and {COPIES} perturbed copies in {}",
        terms.trim_start_matches('+').trim(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}

/// A concept in the figure.
struct Concept {
    /// Number of its z.
    count: usize,
    /// Images of the first z.
    sources: Vec<ImageGrid>,
    /// The image of the mean.
    mean: ImageGrid,
    /// The mean of the images, in the value range of the networks.
    in_pixels: Vec<f32>,
}

fn concepts(
    opened: &OpenedModel,
    generator: &mut Generator,
    sets: &[LatentSet],
    logging: &Logging,
) -> anyhow::Result<Vec<Concept>> {
    let (config, shape) = (opened.model().config(), opened.shape());
    let mut concepts = Vec::new();
    for set in sets {
        let mean = set.with_values(set.mean(), "a mean")?;
        let bytes = generate(generator, &concat(&[mean, set.clone()])?, logging)?;
        let (mean, sources) = bytes.split_at(shape.bytes());
        let values = pixels::to_maps(sources, config, &BufferPool::new())?;
        concepts.push(Concept {
            count: set.len(),
            sources: ImageGrid::split_batch(sources, shape)?.into_iter().take(MAX_SHOWN).collect(),
            mean: ImageGrid::grid(&ImageGrid::split_batch(mean, shape)?, Layout::square(1)),
            in_pixels: mean_image(values.values(), shape.bytes()),
        });
    }
    Ok(concepts)
}

/// The terms with their signs in the order of the paper's figure: the first concept, those subtracted, the others
/// added.
fn terms<'a>(plus: &'a [Concept], minus: &'a [Concept]) -> impl Iterator<Item = (&'static str, &'a Concept)> {
    let first = plus.iter().take(1).map(|c| ("+", c));
    first.chain(minus.iter().map(|c| ("-", c))).chain(plus.iter().skip(1).map(|c| ("+", c)))
}

/// Figure 7: the images of each concept above the image of their mean, and the result among its perturbed copies;
/// below, the same arithmetic in pixel space.
fn figure(
    opened: &OpenedModel,
    plus: &[Concept],
    minus: &[Concept],
    images: Vec<ImageGrid>,
) -> anyhow::Result<ImageGrid> {
    let shape = opened.shape();
    let scale = (shape.width / 16).max(1);
    let sign = |text: &str| ImageGrid::label_strip(text, 0, scale, shape.channels);
    let rows = plus.iter().chain(minus).map(|concept| concept.sources.len()).max().unwrap_or(1);
    let (mut above, mut below) = (Vec::new(), Vec::new());
    for (i, (text, concept)) in terms(plus, minus).enumerate() {
        if i > 0 {
            above.push(sign(text));
            below.push(sign(text));
        }
        let sources = ImageGrid::grid(&concept.sources, Layout { rows, columns: 1 });
        above.push(ImageGrid::vstack(&[sources, concept.mean.clone()]));
        below.push(framed(opened, &concept.in_pixels)?);
    }
    // Moves the result from the first cell to the center.
    let mut block = images;
    let center = block.len() / 2;
    block.get_mut(..=center).into_iter().for_each(|cells| cells.rotate_left(1));
    above.extend([sign("="), ImageGrid::grid(&block, Layout { rows: 3, columns: 3 })]);
    let in_pixels = |concepts: &[Concept]| concepts.iter().map(|c| c.in_pixels.clone()).collect::<Vec<_>>();
    let result = combine_images(&in_pixels(plus), &in_pixels(minus));
    below.extend([sign("="), framed(opened, &result)?]);
    let gap = ImageGrid::black(LINE_GAP, 1, shape.channels);
    Ok(ImageGrid::vstack(&[ImageGrid::hstack(&above), gap, ImageGrid::hstack(&below)]))
}

/// Values `(h, w, c)` in the value range of the networks as an image with a frame.
fn framed(opened: &OpenedModel, values: &[f32]) -> anyhow::Result<ImageGrid> {
    let bytes = pixels::to_bytes(values, opened.model().config());
    Ok(ImageGrid::with_layout(&bytes, opened.shape(), Layout::square(1))?)
}
