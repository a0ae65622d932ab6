//! `dcgan-explore arithmetic`

use super::{Faults, Inputs, Opened, draw, open, save_z};
use crate::cli::ArithmeticArgs;
use candle_core::{Device, Tensor};
use dcgan_cli::{Logging, Outcome, UsageError, print_result};
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::arithmetic::{around, combined, combined_images, mean_image};
use dcgan_explore::latent::{Latents, joined};
use dcgan_model::{Generator, pixels};

/// z around the result: with it, three rows of three.
const NEIGHBOURS: usize = 8;
/// z that the paper made each concept of; it found sums of single z unstable.
const CONCEPT: usize = 3;
/// Images of a concept that are shown.
const SHOWN: usize = 5;
/// Black rows between the arithmetic on z and that on pixels.
const LINE_GAP: usize = 8;

pub(crate) fn run(args: &ArithmeticArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.range("--noise", args.noise, 0.0..=10.0);
    let inputs = Inputs::model(&args.model).z("--plus", &args.plus).z("--minus", &args.minus);
    faults.outputs(&inputs, &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())]);
    faults.end()?;
    let opened = open(&args.model, &args.compute)?;
    let mut faults = Faults::default();
    let plus = opened.concepts("--plus", &args.plus, &mut faults);
    let minus = opened.concepts("--minus", &args.minus, &mut faults);
    faults.end()?;
    let named = args.plus.iter().map(|spec| ("--plus", spec)).zip(&plus);
    for ((option, spec), set) in named.chain(args.minus.iter().map(|spec| ("--minus", spec)).zip(&minus)) {
        if set.len() < CONCEPT {
            tracing::warn!("{option} {spec} names {} z: means of {CONCEPT} or more are steadier", set.len());
        }
    }
    let mut generator = opened.generator()?;
    let result = combined(&plus, &minus).and_then(|z| around(&z, args.noise, NEIGHBOURS, args.seed));
    let result = result.map_err(|error| UsageError::one(format!("--plus and --minus: {error}")))?;
    let drawn = ImageGrid::each(&draw(&mut generator, opened.model(), &result, logging)?, opened.shape())?;
    let plus = concepts(&opened, &mut generator, &plus, logging)?;
    let minus = concepts(&opened, &mut generator, &minus, logging)?;
    save_z(args.save_z.as_deref(), &result)?;
    figure(&opened, &plus, &minus, drawn)?.save(&args.out)?;
    let terms: Vec<String> =
        terms(&plus, &minus).map(|(sign, c)| format!("{sign} mean of {}", c.count)).collect();
    let terms = terms.join(" ");
    print_result(&format!(
        "{} and {NEIGHBOURS} neighbours in {}",
        terms.trim_start_matches('+').trim(),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}

/// What is shown of a concept.
struct Concept {
    /// z that it is the mean of.
    count: usize,
    /// Images of the first of them.
    shown: Vec<ImageGrid>,
    /// The image of the mean.
    mean: ImageGrid,
    /// The mean of their images, values as networks see them.
    in_pixels: Vec<f32>,
}

fn concepts(
    opened: &Opened,
    generator: &mut Generator,
    sets: &[Latents],
    logging: &Logging,
) -> anyhow::Result<Vec<Concept>> {
    let (config, shape) = (opened.model().config(), opened.shape());
    let mut concepts = Vec::new();
    for set in sets {
        let mean = Latents::new(set.mean(), set.size(), "a mean")?;
        let bytes = draw(generator, opened.model(), &joined(&[mean, set.clone()])?, logging)?;
        let (mean, sources) = bytes.split_at(shape.bytes());
        let values = pixels::to_tensor(sources, config, &Device::Cpu)?.permute((0, 2, 3, 1))?; // (n, h, w, c)
        let values = values.flatten_all()?.to_vec1::<f32>()?;
        concepts.push(Concept {
            count: set.len(),
            shown: ImageGrid::each(sources, shape)?.into_iter().take(SHOWN).collect(),
            mean: ImageGrid::grid(&ImageGrid::each(mean, shape)?, Layout::square(1)),
            in_pixels: mean_image(&values, shape.bytes()),
        });
    }
    Ok(concepts)
}

/// The terms with their signs in the order of the paper's figure: the first concept, what is taken from it, what is added.
fn terms<'a>(plus: &'a [Concept], minus: &'a [Concept]) -> impl Iterator<Item = (&'static str, &'a Concept)> {
    let first = plus.iter().take(1).map(|c| ("+", c));
    first.chain(minus.iter().map(|c| ("-", c))).chain(plus.iter().skip(1).map(|c| ("+", c)))
}

/// Figure 7: each concept's images above that of their mean, the result amid its neighbours; below, the same in pixels.
fn figure(
    opened: &Opened,
    plus: &[Concept],
    minus: &[Concept],
    drawn: Vec<ImageGrid>,
) -> anyhow::Result<ImageGrid> {
    let shape = opened.shape();
    let scale = (shape.width / 16).max(1);
    let sign = |text: &str| ImageGrid::sign(text, 0, scale, shape.channels);
    let rows = plus.iter().chain(minus).map(|concept| concept.shown.len()).max().unwrap_or(1);
    let (mut above, mut below) = (Vec::new(), Vec::new());
    for (i, (text, concept)) in terms(plus, minus).enumerate() {
        if i > 0 {
            above.push(sign(text));
            below.push(sign(text));
        }
        let sources = ImageGrid::grid(&concept.shown, Layout { rows, columns: 1 });
        above.push(ImageGrid::below(&[sources, concept.mean.clone()]));
        below.push(image(opened, &concept.in_pixels)?);
    }
    // The result stands first among what was drawn, and in the middle of the figure.
    let mut block = drawn;
    let middle = block.len() / 2;
    block.get_mut(..=middle).into_iter().for_each(|part| part.rotate_left(1));
    above.extend([sign("="), ImageGrid::grid(&block, Layout { rows: 3, columns: 3 })]);
    let in_pixels = |concepts: &[Concept]| concepts.iter().map(|c| c.in_pixels.clone()).collect::<Vec<_>>();
    let result = combined_images(&in_pixels(plus), &in_pixels(minus));
    below.extend([sign("="), image(opened, &result)?]);
    let gap = ImageGrid::black(LINE_GAP, 1, shape.channels);
    Ok(ImageGrid::below(&[ImageGrid::beside(&above), gap, ImageGrid::beside(&below)]))
}

/// Values `(h, w, c)` as networks see them as an image with its frame.
fn image(opened: &Opened, values: &[f32]) -> anyhow::Result<ImageGrid> {
    let (height, width, channels) = opened.model().config().image_shape();
    let x = Tensor::from_slice(values, (1, height, width, channels), &Device::Cpu)?.permute((0, 3, 1, 2))?;
    let bytes = pixels::to_bytes(&x, opened.model().config())?;
    Ok(ImageGrid::of(&bytes, opened.shape(), Layout::square(1))?)
}
