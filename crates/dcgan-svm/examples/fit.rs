//! Fits a linear SVM to a safetensors file and prints one line of JSON: the program of `eval/bench/svm_speed.py`.
//!
//! Usage: `fit FILE C [features|gram|automatic] [TOLERANCE]`. FILE has `features` (rows, width) in F32 or BF16 and
//! `labels` (rows) in U32; without arguments it fits three classes of points in the plane. The line has the time
//! without reading, the objectives and how the fit of each class ended.

use anyhow::{Context, Result, bail};
use dcgan_svm::{Features, FitProgress, Method, ParamGuard, Precision, SvmParams};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::io::Write;
use std::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, c, rest) = match &arguments[..] {
        [] => (None, "1", &[][..]),
        [path, c, rest @ ..] => (Some(path), c.as_str(), rest),
        _ => bail!("usage: fit FILE C [METHOD] [TOLERANCE]"),
    };
    let method = match rest.first().map_or("automatic", String::as_str) {
        "features" => Method::Features,
        "gram" => Method::Gram,
        "automatic" => Method::Automatic,
        other => bail!("unknown method {other}, expected features, gram or automatic"),
    };
    let mut params = SvmParams::new().c(c.parse()?).method(method);
    if let Some(tolerance) = rest.get(1) {
        params = params.tolerance(tolerance.parse()?);
    }
    let (features, labels) = match path {
        Some(path) => read(path).with_context(|| path.clone())?,
        None => points()?,
    };
    let start = Instant::now();
    let mut passes = 0;
    let mut on_progress = |progress: FitProgress| passes = progress.passes;
    let model = params.check()?.fit_with(&features, &labels, None, &mut on_progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let objectives = model.objectives(&features, &labels)?;
    let predicted = model.predict(&features)?;
    let correct = predicted.iter().zip(&labels).filter(|(a, b)| a == b).count();
    let result = serde_json::json!({
        "seconds": seconds,
        "passes": passes,
        "objectives": objectives,
        "accuracy": correct as f64 / labels.len() as f64,
        "exits": model.exits,
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

/// Three classes of 50 points, each around a corner of a triangle.
fn points() -> Result<(Features, Vec<usize>)> {
    let corners = [(0.0, 0.0), (4.0, 0.0), (0.0, 4.0)];
    let labels: Vec<usize> = (0..150).map(|i| i % 3).collect();
    let point = |(i, &class): (usize, &usize)| {
        let (angle, (x, y)) = (i as f32 * 2.4, corners[class]);
        [x + angle.sin(), y + angle.cos()]
    };
    let values = labels.iter().enumerate().flat_map(point).collect();
    Ok((Features::from_f32(values, 2)?, labels))
}

/// Features and labels of a safetensors file.
fn read(path: &str) -> Result<(Features, Vec<usize>)> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (features, labels) = (file.tensor("features")?, file.tensor("labels")?);
    let storage = match features.dtype() {
        Dtype::F32 => Precision::F32,
        Dtype::BF16 => Precision::Bf16,
        other => bail!("\"features\" is {other:?}, expected F32 or BF16"),
    };
    let &[_, width] = features.shape() else { bail!("\"features\" is not (rows, width)") };
    if labels.dtype() != Dtype::U32 {
        bail!("\"labels\" is {:?}, expected U32", labels.dtype());
    }
    let data = features.data().to_vec();
    let range = 0..data.len();
    let labels =
        labels.data().as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes) as usize).collect();
    Ok((Features::from_bytes(data, range, storage, width)?, labels))
}
