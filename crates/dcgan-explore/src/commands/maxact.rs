//! `dcgan-explore maxact`

use super::features::{check, chosen, crops_of, images_of, label, line, max_activations};
use super::{Faults, InputFiles, RecalibrateFrom, evenly_spaced, open, open_data};
use crate::cli::MaxactArgs;
use dcgan_cli::{Logging, Outcome, print_result};
use dcgan_data::image_grid::{ImageGrid, Layout};

/// Fill of crops beyond the image.
const FILL: u8 = 0;

pub(crate) fn run(args: &MaxactArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    faults.check_outputs(&InputFiles::model(&args.model).data(&args.data), &[("--out", Some(&args.out))]);
    let model = open(&args.model, &args.compute, &mut faults)?;
    let layer = check(&args.what, args.top, model.as_ref(), &mut faults);
    let data = open_data(model.as_ref(), &args.data, &mut faults)?;
    let (opened, data) = faults.into_result(model.zip(data))?;
    let model = opened.model();
    let discriminator = opened.discriminator("an activation", RecalibrateFrom::Data(&data))?;
    let rows = evenly_spaced(data.len(), args.what.images);
    let maxima = max_activations(&discriminator, (model, layer, args.top), (&data, &rows), logging)?;
    let shape = opened.shape();
    let mut grid = Vec::new();
    let features = chosen(&args.what, &maxima);
    for &feature in &features {
        let best = maxima.of(feature);
        let images = images_of(best, &data, &rows)?;
        let crops = crops_of(best, &images, (model, layer), FILL);
        let layout = Layout { rows: 1, columns: best.len() };
        let (left, right) =
            (ImageGrid::with_layout(&images, shape, layout)?, ImageGrid::with_layout(&crops, shape, layout)?);
        let (height, _, channels) = left.shape();
        grid.push(ImageGrid::hstack(&[
            label(feature, height, channels),
            left,
            ImageGrid::label_strip(" ", height, 1, channels),
            right,
        ]));
        print_result(&line(feature, best, &rows))?;
    }
    ImageGrid::vstack(&grid).save(&args.out)?;
    let block = &model.discriminator_layers()[layer].name;
    let what = format!(
        "{} features of {block} and the images with their largest activations, of {}",
        features.len(),
        rows.len()
    );
    print_result(&format!("{what}, whole and cropped to the receptive field: {}", args.out.display()))?;
    Ok(Outcome::Done)
}
