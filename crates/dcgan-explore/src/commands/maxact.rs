//! `dcgan-explore maxact`

use super::features::{check, chosen, crops_of, label, line, look_through, pictures_of};
use super::{Faults, Inputs, Typical, open, spread};
use crate::cli::MaxactArgs;
use dcgan_cli::{Logging, Outcome, print_result};
use dcgan_data::sheet::{Layout, Sheet};

/// What lies beyond a picture.
const GROUND: u8 = 0;

pub(crate) fn run(args: &MaxactArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let opened = open(&args.model, &args.compute)?;
    let model = opened.model();
    let mut faults = Faults::default();
    let layer = check(&args.what, args.top, model, &mut faults);
    faults.outputs(&Inputs::model(&args.model).data(&args.data), &[("--out", Some(&args.out))]);
    if let Err(fault) = opened.discriminator_weights("an activation") {
        faults.check(false, || fault.to_string());
    }
    faults.end()?;
    let data = opened.data(&args.data)?;
    let discriminator = opened.discriminator("an activation", Typical::Data(&data))?;
    let rows = spread(data.len(), args.what.pictures);
    let maxima = look_through(&discriminator, (model, layer, args.top), (&data, &rows), logging)?;
    let shape = opened.shape();
    let mut sheet = Vec::new();
    let features = chosen(&args.what, &maxima);
    for &feature in &features {
        let best = maxima.of(feature);
        let pictures = pictures_of(best, &data, &rows)?;
        let crops = crops_of(best, &pictures, (model, layer), GROUND);
        let layout = Layout { rows: 1, columns: best.len() };
        let (left, right) = (Sheet::of(&pictures, shape, layout)?, Sheet::of(&crops, shape, layout)?);
        let (height, _, channels) = left.shape();
        sheet.push(Sheet::beside(&[
            label(feature, height, channels),
            left,
            Sheet::sign(" ", height, 1, channels),
            right,
        ]));
        print_result(&line(feature, best, &rows))?;
    }
    Sheet::below(&sheet).save(&args.out)?;
    let block = &model.discriminator_layers()[layer].name;
    let what = format!(
        "{} features of {block} and the pictures that excite them most, of {}",
        features.len(),
        rows.len()
    );
    print_result(&format!("{what}, whole and what the feature sees: {}", args.out.display()))?;
    Ok(Outcome::Done)
}
