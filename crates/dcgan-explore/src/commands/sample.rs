//! `dcgan-explore sample`

use super::{
    Faults, InputFiles, OpenedModel, RecalibrateFrom, classes, generate, latents, open_with_classes, save_z,
};
use crate::cli::SampleArgs;
use dcgan_cli::{Logging, Outcome, UsageError};
use dcgan_data::image_grid::{GAP, ImageGrid, Layout};
use dcgan_explore::ablate::Filters;
use dcgan_explore::latent::LatentSet;
use dcgan_model::{Discriminator, pixels};
use dcgan_ops::BufferPool;

/// Default number of images.
const IMAGES: usize = 64;
/// Batch size of D. Every batch is full: matrix products of few rows are summed in another order than those of many.
const BATCH: usize = 64;

pub(crate) fn run(args: &SampleArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    if let Some(n) = args.n {
        faults.check(n > 0, || "--n 0: expected at least 1".to_owned());
        faults.check(args.z.is_empty(), || {
            "--n with --z: the number of images is the number of z; omit --n".to_owned()
        });
    }
    let inputs = InputFiles::model(&args.model).z("--z", &args.z).file("--without", args.without.as_ref());
    let results = faults.check_outputs(
        (logging, false),
        &inputs,
        &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())],
    );
    let is_of_seed = args.z.is_empty() && args.truncate.is_none();
    faults.check(!args.numbers || is_of_seed || args.save_z.is_some(), || {
        let option = if args.truncate.is_some() { "--truncate" } else { "--z" };
        format!(
            "--numbers with {option}: these z are not samples of a seed; write them with --save-z to number \
             its rows"
        )
    });
    let filters =
        args.without.as_ref().and_then(|path| faults.ok_or_record("--without", Filters::read(path)));
    let model = open_with_classes(&args.model, (&args.class, &[&args.z]), &args.compute, &mut faults)?;
    let classes = classes(model.as_ref(), &args.class, &mut faults);
    let n = args.n.or(args.grid.map(Layout::cells)).unwrap_or(IMAGES);
    let z = match (&model, args.truncate) {
        (Some(model), Some(bound)) => {
            faults.check_bytes("--n", n, model.sample_bytes());
            // After a fault only the bound is checked.
            let n = if faults.is_empty() { n } else { 1 };
            let config = model.model().config();
            let drawn = LatentSet::draw_truncated(args.seed, n, bound, config, classes);
            faults.ok_or_record("--truncate", drawn)
        }
        _ => latents(model.as_ref(), &args.z, (args.seed, n, classes), &mut faults),
    };
    let images = if args.z.is_empty() { n } else { z.as_ref().map_or(0, LatentSet::len) };
    let layout = args.grid.unwrap_or_else(|| Layout::square(if faults.is_empty() { images } else { 1 }));
    faults.check(images <= layout.cells() || args.grid.is_none(), || {
        format!("--grid {}x{}: {images} images do not fit, use a larger grid", layout.rows, layout.columns)
    });
    if let Some(model) = &model {
        model.check_generator(&mut faults);
        if args.without.is_some() {
            model.check_unconditional("--without", &mut faults);
        }
        if args.sort_by_score {
            model.check_discriminator("a score", &mut faults);
        }
    }
    let (opened, z) = faults.into_result(model.zip(z))?;
    let mut generator = opened.generator()?;
    // Before feature maps are removed, so that scores with and without them are comparable.
    let mut discriminator = match args.sort_by_score {
        true => Some(opened.discriminator("a score", RecalibrateFrom::Samples(&mut generator))?),
        false => None,
    };
    if let Some(filters) = &filters {
        filters.remove_from(&mut generator).map_err(UsageError::because)?;
    }
    let bytes = generate(&mut generator, &z, logging)?;
    let mut images = ImageGrid::split_batch(&bytes, opened.shape())?;
    let mut order: Vec<usize> = (0..z.len()).collect();
    if let Some(discriminator) = &mut discriminator {
        let scores = scores(&opened, discriminator, &bytes)?;
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        for (what, sample) in [("highest", order.first()), ("lowest", order.last())] {
            if let Some(&i) = sample {
                results.text(&format!(
                    "{what} score: image {i} in the order of generation, logit {:.3}",
                    scores[i]
                ))?;
            }
        }
        images = order.iter().filter_map(|&i| images.get(i).cloned()).collect();
    }
    // Numbers are valid indices of a spec: rows of the file of --save-z, whose z are in the order of the images, else
    // indices of the seed's samples.
    let numbered = match (args.numbers, &args.save_z) {
        (false, _) => String::new(),
        (true, Some(path)) => format!(", numbered as rows of {}", path.display()),
        (true, None) => format!(", numbered as samples of seed {}", args.seed),
    };
    if args.numbers {
        let number = |(row, sample)| if args.save_z.is_some() { row } else { sample };
        let numbers = order.iter().copied().enumerate().map(number);
        images = images.iter().zip(numbers).map(|(p, number)| p.captioned(&number.to_string())).collect();
    }
    save_z(args.save_z.as_deref(), &z.select(&order, "the samples")?)?;
    // One image alone has no frame.
    let gap = if images.len() == 1 && args.grid.is_none() { 0 } else { GAP };
    ImageGrid::grid_with_gap(&images, layout, gap).save(&args.out)?;
    results.text(&format!("{} images in {}{numbered}", z.len(), args.out.display()))?;
    Ok(Outcome::Done)
}

/// D's logit of each image in `bytes`, u8 `(n, h, w, c)`.
fn scores(opened: &OpenedModel, discriminator: &mut Discriminator, bytes: &[u8]) -> anyhow::Result<Vec<f32>> {
    let len = opened.shape().bytes();
    let mut scores = Vec::new();
    for batch in bytes.chunks(BATCH * len) {
        let mut whole = batch.to_vec();
        whole.resize(BATCH * len, 0);
        let x = pixels::to_maps(&whole, opened.model().config(), &BufferPool::new())?;
        scores.extend(discriminator.score(&x)?.into_iter().take(batch.len() / len));
    }
    Ok(scores)
}
