//! `dcgan-data pack`: writes a cache of decoded images.

use dcgan_cli::{Logging, Outcome, Progress, print_result};
use dcgan_data::PackReport;
use serde::Serialize;

use crate::args::Pack;

/// The JSON output.
#[derive(Serialize)]
struct PackLine<'a> {
    #[serde(flatten)]
    report: &'a PackReport,
    /// Old name of `images`, for scripts.
    pictures: usize, // old name of `images`
}

pub(crate) fn pack_command(args: &Pack, logging: &Logging) -> anyhow::Result<Outcome> {
    let dataset = args.data.open()?;
    tracing::info!("{}", dataset.report());
    let progress = Progress::new(logging, dataset.len() as u64, "images");
    let report = dcgan_data::pack(&dataset, &args.out, |done| progress.set(done as u64))?;
    progress.finish();
    let done = if report.up_to_date { "is up to date" } else { "written" };
    let text = if args.json {
        serde_json::to_string(&PackLine { report: &report, pictures: report.images })? // old name
    } else {
        format!(
            "{} {done}: {} images of {}, {} bytes",
            report.path.display(),
            report.images,
            dataset.shape(),
            report.bytes
        )
    };
    print_result(&text)?;
    Ok(Outcome::Done)
}
