//! `dcgan-explore sample`

use super::{Faults, Inputs, Opened, Typical, draw, open, save_z};
use crate::cli::SampleArgs;
use dcgan_cli::{Logging, Outcome, UsageError, print_result};
use dcgan_data::image_grid::{ImageGrid, Layout, MAX_IMAGES};
use dcgan_explore::ablate::Filters;
use dcgan_explore::latent::Latents;
use dcgan_model::{Discriminator, pixels};

/// Images drawn where nothing says how many.
const IMAGES: usize = 64;
/// Images that go through D at once. Always as many: products of few rows are summed in another order than those of many.
const BATCH: usize = 64;

pub(crate) fn run(args: &SampleArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Faults::default();
    if let Some(n) = args.n {
        faults.range("--n", n, 1..=MAX_IMAGES);
        faults.check(args.z.is_empty(), || "--n and --z: the number of z is the number of images".to_owned());
    }
    let inputs = Inputs::model(&args.model).z("--z", &args.z).file("--without", args.without.as_ref());
    faults.outputs(&inputs, &[("--out", Some(&args.out)), ("--save-z", args.save_z.as_deref())]);
    let are_of_seed = args.z.is_empty() && args.truncate.is_none();
    faults.check(!args.numbers || are_of_seed || args.save_z.is_some(), || {
        let option = if args.truncate.is_some() { "--truncate" } else { "--z" };
        format!("--numbers with {option}: no seed gives these z by number; write them with --save-z, to number its rows")
    });
    let filters = args.without.as_ref().and_then(|path| faults.take("--without", Filters::read(path)));
    faults.end()?;
    let opened = open(&args.model, &args.compute)?;
    let n = args.n.or(args.grid.map(Layout::cells)).unwrap_or(IMAGES);
    let z = match args.truncate {
        Some(bound) => Latents::draw_within(args.seed, n, bound, opened.latent())
            .map_err(|error| UsageError::one(format!("--truncate: {error}")))?,
        None => opened.latents(&args.z, args.seed, n)?,
    };
    let layout = args.grid.unwrap_or_else(|| Layout::square(z.len()));
    let mut faults = Faults::default();
    faults.check(z.len() <= layout.cells(), || {
        format!("--grid {}x{} has no room for {} images", layout.rows, layout.columns, z.len())
    });
    faults.check(z.len() <= MAX_IMAGES, || format!("--z: {} z, expected {MAX_IMAGES} at most", z.len()));
    faults.end()?;
    if args.sort_by_score {
        opened.discriminator_weights("a score")?; // refused before any work
    }
    let mut generator = opened.generator()?;
    // Before maps are removed: scores with and without them are on one scale.
    let mut judge = match args.sort_by_score {
        true => Some(opened.discriminator("a score", Typical::Samples(&mut generator))?),
        false => None,
    };
    if let Some(filters) = &filters {
        filters.remove_from(&mut generator).map_err(UsageError::because)?;
    }
    let bytes = draw(&mut generator, opened.model(), &z, logging)?;
    let mut images = ImageGrid::each(&bytes, opened.shape())?;
    let mut order: Vec<usize> = (0..z.len()).collect();
    if let Some(discriminator) = &mut judge {
        let scores = scores(&opened, discriminator, &bytes)?;
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        for (what, sample) in [("highest", order.first()), ("lowest", order.last())] {
            if let Some(&i) = sample {
                print_result(&format!("{what} score: image {i} in the order drawn, logit {:.3}", scores[i]))?;
            }
        }
        images = order.iter().filter_map(|&i| images.get(i).cloned()).collect();
    }
    // The numbers that a spec takes: rows of the file where there is one, which holds the z in the order of the images; else
    // the sample's own, wherever sorting has put it.
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
    ImageGrid::grid(&images, layout).save(&args.out)?;
    print_result(&format!("{} images in {}{numbered}", z.len(), args.out.display()))?;
    Ok(Outcome::Done)
}

/// D's logit of each image in `bytes`, u8 `(n, h, w, c)`.
fn scores(opened: &Opened, discriminator: &mut Discriminator, bytes: &[u8]) -> anyhow::Result<Vec<f32>> {
    let len = opened.shape().bytes();
    let mut scores = Vec::new();
    for batch in bytes.chunks(BATCH * len) {
        let mut whole = batch.to_vec();
        whole.resize(BATCH * len, 0);
        let x = pixels::to_tensor(&whole, opened.model().config(), &opened.device)?;
        scores.extend(discriminator.score(&x)?.narrow(0, 0, batch.len() / len)?.to_vec1::<f32>()?);
    }
    Ok(scores)
}
