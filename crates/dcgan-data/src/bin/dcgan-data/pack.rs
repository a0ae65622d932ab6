//! `dcgan-data pack`: writes a cache of decoded images.

use dcgan_cli::{Logging, Outcome, Progress, print_result};

use crate::args::Pack;

pub(crate) fn pack_command(args: &Pack, logging: &Logging) -> anyhow::Result<Outcome> {
    let dataset = args.data.open()?;
    tracing::info!("{}", dataset.report());
    let progress = Progress::new(logging, dataset.len() as u64, "images");
    let packed = dcgan_data::pack(&dataset, &args.out, |done| progress.set(done as u64))?;
    progress.finish();
    let done = if packed.up_to_date { "is up to date" } else { "written" };
    let text = if args.json {
        serde_json::to_string(&packed)?
    } else {
        format!(
            "{} {done}: {} images of {}, {} bytes",
            packed.path.display(),
            packed.images,
            dataset.shape(),
            packed.bytes
        )
    };
    print_result(&text)?;
    Ok(Outcome::Done)
}
