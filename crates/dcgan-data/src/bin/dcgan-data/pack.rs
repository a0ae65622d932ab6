//! `dcgan-data pack`: writes a cache of decoded images.

use dcgan_cli::{Logging, Outcome, Progress, Results, UsageError, check_output};
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

/// Extensions of other formats, which a cache must not have.
const OTHER_FORMATS: [&str; 16] = [
    "png",
    "jpg",
    "jpeg",
    "webp",
    "gif",
    "bmp",
    "tiff",
    "zip",
    "tar",
    "gz",
    "npy",
    "npz",
    "h5",
    "mat",
    "safetensors",
    "tfrecord",
];

pub(crate) fn pack_command(args: &Pack, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[Some(&args.out)])?;
    check_output("--out", &args.out, &[])?;
    let extension = args.out.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    if let Some(other) = OTHER_FORMATS.iter().find(|other| extension.as_deref() == Some(**other)) {
        let fault = format!(
            "--out {}: a cache is not a .{other} file; use another extension, such as .cache",
            args.out.display()
        );
        return Err(UsageError::one(fault).into());
    }
    let dataset = args.data.open()?;
    tracing::info!("{}", dataset.report());
    let progress = Progress::new(logging, dataset.len() as u64, "images");
    let report = dcgan_data::pack(&dataset, &args.out, |done| progress.set(done as u64))?;
    progress.finish();
    let done = if report.up_to_date { "is up to date" } else { "written" };
    if args.json {
        results.json(&serde_json::to_string(&PackLine { report: &report, pictures: report.images })?)?; // old name
    } else {
        results.text(&format!(
            "{} {done}: {} images of {}, {} bytes",
            report.path.display(),
            report.images,
            dataset.shape(),
            report.bytes
        ))?;
    }
    Ok(Outcome::Done)
}
