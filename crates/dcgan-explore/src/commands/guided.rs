//! `dcgan-explore guided`

use super::features::{check, chosen, crops_of, images_of, label, line, max_activations};
use super::{Faults, InputFiles, OpenedModel, RecalibrateFrom, evenly_spaced, open, open_data};
use crate::cli::GuidedArgs;
use dcgan_cli::{Logging, Outcome, Progress};
use dcgan_data::Dataset;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::guided::{GuidedBackprop, to_bytes};
use dcgan_model::{ModelFiles, pixels};

/// Standard deviation of random weights (paper, section 4).
const WEIGHT_STD: f32 = 0.02;
/// Standard deviation of random batch norm weights around 1 (the authors' code).
const NORM_WEIGHT_STD: f32 = 0.02;
/// Fill of crops beyond the image: black.
const IMAGE_FILL: u8 = 0;
/// Fill of crops of gradients: grey, a gradient of zero.
const GRADIENT_FILL: u8 = 128;

pub(crate) fn run(args: &GuidedArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    let results = faults.check_outputs(
        (logging, false),
        &InputFiles::model(&args.model).data(&args.data),
        &[("--out", Some(&args.out))],
    );
    let model = open(&args.model, &args.compute, &mut faults)?;
    let layer = check(&args.what, args.top, model.as_ref(), &mut faults);
    let data = open_data(model.as_ref(), &args.data, &mut faults)?;
    let (trained, data) = faults.into_result(model.zip(data))?;
    let model = trained.model();
    let rows = evenly_spaced(data.len(), args.what.images);
    let random = OpenedModel {
        name: "the network with random weights".to_owned(),
        files: ModelFiles {
            model: model.clone(),
            generator: None,
            discriminator: Some(model.initial_discriminator(args.seed, WEIGHT_STD, NORM_WEIGHT_STD)),
        },
        device: trained.device.clone(),
    };
    let left = panels(&trained, args, layer, (&data, &rows), logging)?;
    tracing::info!("the same network with random weights");
    let right = panels(&random, args, layer, (&data, &rows), logging)?;
    left.iter().try_for_each(|panel| results.text(&panel.line))?;
    right.iter().try_for_each(|panel| results.text(&format!("with random weights, {}", panel.line)))?;
    let beside = |(left, right): (Panel, Panel)| ImageGrid::hstack(&[left.grid, right.grid]);
    let features = left.len();
    let grid: Vec<ImageGrid> = left.into_iter().zip(right).map(beside).collect();
    ImageGrid::vstack(&grid).save(&args.out)?;
    let block = &model.discriminator_layers()[layer].name;
    results.text(&format!(
        "{features} features of {block}: images above their guided gradients; on the right with random weights: {}",
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}

/// The panel of a feature: its index, the images with its largest activations, and below each the guided gradient.
struct Panel {
    grid: ImageGrid,
    line: String,
}

fn panels(
    opened: &OpenedModel,
    args: &GuidedArgs,
    layer: usize,
    (data, rows): (&Dataset, &[usize]),
    logging: &Logging,
) -> anyhow::Result<Vec<Panel>> {
    let (model, shape) = (opened.model(), opened.shape());
    let discriminator = opened.discriminator("an activation", RecalibrateFrom::Data(data))?;
    let maxima = max_activations(&discriminator, (model, layer, args.top), (data, rows), logging)?;
    let mut guided = GuidedBackprop::new(&discriminator, layer)?;
    let mut panels = Vec::new();
    let features = chosen(&args.what, &maxima);
    let total = features.iter().map(|&feature| maxima.of(feature).len()).sum::<usize>();
    let progress = Progress::new(logging, total as u64, "gradients");
    let mut done = 0;
    for feature in features {
        let best = maxima.of(feature);
        let mut images = images_of(best, data, rows)?;
        let indices: Vec<_> = best.iter().map(|maximum| maximum.index).collect();
        let x = pixels::to_tensor(&images, model.config(), opened.device.for_tensors())?;
        let mut gradients = to_bytes(&guided.gradients(&x, &indices)?)?;
        done += best.len();
        progress.set(done as u64);
        if args.crops {
            images = crops_of(best, &images, (model, layer), IMAGE_FILL);
            gradients = crops_of(best, &gradients, (model, layer), GRADIENT_FILL);
        }
        let layout = Layout { rows: 2, columns: best.len() };
        let grid = ImageGrid::with_layout(&[images, gradients].concat(), shape, layout)?;
        let (height, _, channels) = grid.shape();
        let grid = ImageGrid::hstack(&[label(feature, height, channels), grid]);
        panels.push(Panel { grid, line: line(feature, best, rows) });
    }
    Ok(panels)
}
