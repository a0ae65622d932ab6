//! Fits a linear SVM to a safetensors file: what the speed comparison runs.
//!
//! Run: `fit FILE C [features|gram|automatic] [TOLERANCE]`. FILE holds `features` (rows, width) in F32 or BF16 and
//! `labels` (rows) in U32. One line of JSON tells the time without reading, the objectives and how each class ended.

use anyhow::{Context, Result, bail};
use dcgan_data::Bytes;
use dcgan_features::features::{Features, Storage};
use dcgan_features::svm::{Method, Progress, SvmParams};
use linfa::ParamGuard;
use safetensors::{Dtype, SafeTensors};
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
    let (features, labels) = read(Path::new(path))?;
    let verbose = std::env::var_os("VERBOSE").is_some();
    let start = Instant::now();
    let mut passes = 0;
    let mut observe = |progress: Progress| {
        passes = progress.passes;
        if verbose {
            let line = format!("{:8.2} s {progress:?}\n", start.elapsed().as_secs_f64());
            std::io::stderr().write_all(line.as_bytes()).ok();
        }
    };
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

/// Features that stay in the file, and labels.
fn read(path: &Path) -> Result<(Features, Vec<usize>)> {
    let bytes = Bytes::map(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let features = file.tensor("features")?;
    let labels = file.tensor("labels")?;
    let &[_, width] = features.shape() else { bail!("features are not a matrix") };
    let storage = match features.dtype() {
        Dtype::F32 => Storage::F32,
        Dtype::BF16 => Storage::Bf16,
        other => bail!("features are {other:?}"),
    };
    let start = features.data().as_ptr() as usize - bytes.as_ptr() as usize;
    let range = start..start + features.data().len();
    let labels = labels
        .data()
        .chunks_exact(4)
        .map(|b| Ok(u32::from_le_bytes(b.try_into()?) as usize))
        .collect::<Result<_>>()
        .context("labels")?;
    Ok((Features::from_bytes(bytes.clone(), range, storage, width)?, labels))
}
