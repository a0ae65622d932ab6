//! Fits a linear SVM to a safetensors file: what the speed comparison runs.
//!
//! Run: `fit FILE C [features|gram|automatic] [TOLERANCE]`. FILE holds `features` (rows, width) in F32 or BF16 and
//! `labels` (rows) in U32. One line of JSON tells the time without reading, the objectives and how each class ended.

use anyhow::{Result, bail};
use dcgan_features::file::{self, Labeled};
use dcgan_features::svm::{Method, Progress, SvmParams};
use linfa::ParamGuard;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, c, rest @ ..] = &arguments[..] else { bail!("usage: fit FILE C [METHOD] [TOLERANCE]") };
    let method = match rest.first().map_or("automatic", String::as_str) {
        "features" => Method::Features,
        "gram" => Method::Gram,
        "automatic" => Method::Automatic,
        other => bail!("{other} is no method"),
    };
    let mut params = SvmParams::new().c(c.parse()?).method(method);
    if let Some(tolerance) = rest.get(1) {
        params = params.tolerance(tolerance.parse()?);
    }
    let Labeled { features, labels, .. } = file::open(Path::new(path))?;
    let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
    let start = Instant::now();
    let mut passes = 0;
    let mut observe = |progress: Progress| passes = progress.passes;
    let model = params.check()?.fit_with(&features, &labels, None, &mut observe)?;
    let seconds = start.elapsed().as_secs_f64();
    let objectives = model.objectives(&features, &labels)?;
    let predicted = model.predict(&features)?;
    let right = predicted.iter().zip(&labels).filter(|(a, b)| a == b).count();
    let result = serde_json::json!({
        "seconds": seconds,
        "passes": passes,
        "objectives": objectives,
        "accuracy": right as f64 / labels.len() as f64,
        "exits": model.exits,
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}
