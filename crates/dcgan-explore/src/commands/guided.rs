//! `dcgan-explore guided`

use super::features::{check, chosen, crops_of, images_of, label, line, look_through};
use super::{Faults, Inputs, Opened, Typical, open, spread};
use crate::cli::GuidedArgs;
use dcgan_cli::{Logging, Outcome, print_result};
use dcgan_data::Dataset;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_explore::guided::{Guided, to_grey_range};
use dcgan_model::{ModelFiles, pixels};

/// Standard deviation of random weights (paper, section 4) and of random gains around 1 (the authors' code).
const WEIGHT_STD: f32 = 0.02;
const GAIN_STD: f32 = 0.02;
/// Black beyond an image, no gradient beyond a gradient.
const GROUND: [u8; 2] = [0, 128];

pub(crate) fn run(args: &GuidedArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let trained = open(&args.model, &args.compute)?;
    let model = trained.model();
    let mut faults = Faults::default();
    let layer = check(&args.what, args.top, model, &mut faults);
    faults.outputs(&Inputs::model(&args.model).data(&args.data), &[("--out", Some(&args.out))]);
    if let Err(fault) = trained.discriminator_weights("an activation") {
        faults.check(false, || fault.to_string());
    }
    faults.end()?;
    let data = trained.data(&args.data)?;
    let rows = spread(data.len(), args.what.images);
    let random = Opened {
        name: "the network with random weights".to_owned(),
        files: ModelFiles {
            model: model.clone(),
            generator: None,
            discriminator: Some(model.initial_discriminator(args.seed, WEIGHT_STD, GAIN_STD)),
        },
        device: trained.device.clone(),
    };
    let left = panels(&trained, args, layer, (&data, &rows), logging)?;
    tracing::info!("the same network with random weights");
    let right = panels(&random, args, layer, (&data, &rows), logging)?;
    left.iter().try_for_each(|panel| print_result(&panel.line))?;
    right.iter().try_for_each(|panel| print_result(&format!("with random weights, {}", panel.line)))?;
    let beside = |(left, right): (Panel, Panel)| ImageGrid::beside(&[left.grid, right.grid]);
    let features = left.len();
    let grid: Vec<ImageGrid> = left.into_iter().zip(right).map(beside).collect();
    ImageGrid::below(&grid).save(&args.out)?;
    let block = &model.discriminator_layers()[layer].name;
    print_result(&format!(
        "{features} features of {block}: images, and below them their guided gradients; on the right with random weights: {}",
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}

/// A feature: its number, the images that excite it most, below each the guided gradient.
struct Panel {
    grid: ImageGrid,
    line: String,
}

fn panels(
    opened: &Opened,
    args: &GuidedArgs,
    layer: usize,
    (data, rows): (&Dataset, &[usize]),
    logging: &Logging,
) -> anyhow::Result<Vec<Panel>> {
    let (model, shape) = (opened.model(), opened.shape());
    let discriminator = opened.discriminator("an activation", Typical::Data(data))?;
    let maxima = look_through(&discriminator, (model, layer, args.top), (data, rows), logging)?;
    let mut guided = Guided::new(&discriminator, layer)?;
    let mut panels = Vec::new();
    for feature in chosen(&args.what, &maxima) {
        let best = maxima.of(feature);
        let mut images = images_of(best, data, rows)?;
        let places: Vec<_> = best.iter().map(|maximum| maximum.place).collect();
        let x = pixels::to_tensor(&images, model.config(), &opened.device)?;
        let mut gradients = to_grey_range(&guided.gradients(&x, &places)?)?;
        if args.crops {
            images = crops_of(best, &images, (model, layer), GROUND[0]);
            gradients = crops_of(best, &gradients, (model, layer), GROUND[1]);
        }
        let layout = Layout { rows: 2, columns: best.len() };
        let grid = ImageGrid::of(&[images, gradients].concat(), shape, layout)?;
        let (height, _, channels) = grid.shape();
        let grid = ImageGrid::beside(&[label(feature, height, channels), grid]);
        panels.push(Panel { grid, line: line(feature, best, rows) });
    }
    Ok(panels)
}
