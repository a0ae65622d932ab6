//! Features of embedded digits with the embedded model's discriminator, and a linear SVM on top through linfa's traits.
//!
//! Run: `cargo run --release -p dcgan-features --example features_svm`

use anyhow::{Context, Result};
use candle_core::Device;
use dcgan_data::Dataset;
use dcgan_features::extract::Extractor;
use dcgan_features::features::Precision;
use dcgan_features::svm::{LinearSvm, SvmParams};
use dcgan_model::ModelFiles;
use linfa::dataset::DatasetBase;
use linfa::traits::Fit;
use ndarray::Array1;
use std::io::Write;
use std::ops::Range;
use std::time::Instant;

const TRAIN: Range<usize> = 0..2000;
const TEST: Range<usize> = 8000..9000;

fn main() -> Result<()> {
    let started = Instant::now();
    let files = ModelFiles::embedded_digits()?;
    let weights = files.discriminator.context("the model has no discriminator")?;
    let mut extractor = Extractor::new(&files.model, &weights, &Device::Cpu)?;

    let digits = Dataset::embedded_digits(files.model.config().image_shape().into())?;
    let all_labels = digits.labels().context("the digits have no labels")?;
    let labels =
        |rows: Range<usize>| -> Vec<usize> { all_labels[rows].iter().map(|&label| label as usize).collect() };
    let train = extractor.to_memory((&digits, TRAIN), Precision::F32, &mut |_| {})?;
    let test = extractor.to_memory((&digits, TEST), Precision::F32, &mut |_| {})?;

    let dataset = DatasetBase::new(train, Array1::from(labels(TRAIN)));
    let model: LinearSvm = SvmParams::new().c(1e-3).fit(&dataset)?;

    let predicted = model.predict(&test)?;
    let correct =
        predicted.iter().zip(labels(TEST)).filter(|(predicted, label)| **predicted == *label).count();
    writeln!(
        std::io::stdout(),
        "{} features, {} training images: accuracy {:.1} % on {} test images, {:.1} s",
        extractor.width(),
        TRAIN.len(),
        100.0 * correct as f64 / TEST.len() as f64,
        TEST.len(),
        started.elapsed().as_secs_f64()
    )?;
    Ok(())
}
