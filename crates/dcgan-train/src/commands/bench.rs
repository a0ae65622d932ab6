//! `dcgan-train bench`.

use crate::cli::{BenchArgs, Work};
use anyhow::bail;
use dcgan_cli::{Logging, Outcome, Progress, Results, UsageError, print_result, set_threads};
use dcgan_model::Preset;
use dcgan_ops::ConvolutionTime;
use dcgan_train::bench::{BenchResult, bench, bench_samples, time_convolutions};
use dcgan_train::config::TrainingConfig;
use dcgan_train::inputs::{check_precision, open_device};
use dcgan_train::verify::{Verification, verify};

pub(crate) fn run(args: &BenchArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let preset = Preset::named(&args.preset).map_err(UsageError::because)?;
    let mut training: TrainingConfig = preset.training.clone().try_into()?;
    training.dtype = args.dtype;
    training.batch_size = args.batch_size.unwrap_or(training.batch_size);
    let mut faults = Vec::new();
    if !(2..=1 << 16).contains(&training.batch_size) {
        faults.push(format!("--batch-size is {}, expected 2 to 65536", training.batch_size));
    }
    if !(1..=1_000_000).contains(&args.steps) {
        faults.push(format!("--steps is {}, expected 1 to 1000000", args.steps));
    }
    if !(1..=100_000_000).contains(&args.images) {
        faults.push(format!("--images is {}, expected 1 to 100000000", args.images));
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(args.threads)?;
    let device = open_device(args.device).map_err(UsageError::because)?;
    check_precision(training.dtype, &device).map_err(UsageError::because)?;
    let model = preset.model()?;
    if args.verify {
        return report(args, &verify(&model, &training, &device, args.seed)?);
    }
    let results = Results::new(logging, args.json, &[])?;
    let progress = Progress::new(logging, args.steps, "steps");
    let result = match args.work {
        Work::Step => bench(&model, &training, args.steps, &device, &mut |step| progress.set(step))?,
        Work::Samples => bench_samples(&model, &training, args.images, &device)?,
    };
    progress.finish();
    if args.explain {
        let convolutions = match args.work {
            Work::Step => time_convolutions(&model, &training, &device)?,
            Work::Samples => Vec::new(),
        };
        results.text(&if convolutions.is_empty() { explanation(&result) } else { table(&convolutions) })?;
    }
    results.text(&format!(
        "{}: {:.1} images/s, median step {:.1} ms, batch {}, {} threads, peak memory {:.2} GB",
        args.preset,
        result.images_per_s,
        result.step_ms_median,
        result.batch_size,
        result.threads,
        result.peak_rss_bytes as f64 / 1e9
    ))?;
    results.json(&serde_json::to_string(&result)?)?;
    Ok(Outcome::Done)
}

/// Prints what a comparison found: failed where the results of the device differ from the CPU's beyond the tolerance,
/// or from pass to pass.
fn report(args: &BenchArgs, found: &Verification) -> anyhow::Result<Outcome> {
    if args.json {
        print_result(&serde_json::to_string(found)?)?;
    } else {
        let largest = |network: &str| {
            let of_network = found.differences.iter().filter(|found| found.network == network);
            of_network.max_by(|a, b| a.relative.total_cmp(&b.relative)).map_or_else(String::new, |worst| {
                format!("{network} {:.1e} ({})", worst.relative, worst.tensor)
            })
        };
        print_result(&format!(
            "{} on {} in {}, batch {}: largest differences {}, {}, {}; median {:.0e}; repeated, they are {}",
            args.preset,
            found.device,
            found.dtype,
            found.batch_size,
            largest("generator"),
            largest("discriminator"),
            largest("steps"),
            found.median(),
            if found.repeats { "equal" } else { "different" }
        ))?;
    }
    if !found.repeats {
        bail!("the results of {} differ between repeated passes", found.device);
    }
    if !found.holds() {
        bail!("the results of {} differ from the CPU's beyond the tolerance", found.device);
    }
    Ok(Outcome::Done)
}

/// A table of the convolutions of a step.
fn table(convolutions: &[(&str, ConvolutionTime)]) -> String {
    let mut lines = vec![format!(
        "{:<14} {:<10} {:<16} {:>6} {:>14} {:>9} {:>8}",
        "network", "layer", "computes", "engine", "workspace, MB", "time, us", "TFLOP/s"
    )];
    for (network, ConvolutionTime { layer, computes, engine, workspace, time, tflops }) in convolutions {
        let (megabytes, us) = (*workspace as f64 / 1e6, 1e6 * time.as_secs_f64());
        lines.push(format!(
            "{network:<14} {layer:<10} {computes:<16} {engine:>6} {megabytes:>14.1} {us:>9.1} {tflops:>8.2}"
        ));
    }
    let total: f64 = convolutions.iter().map(|(_, found)| found.time.as_secs_f64()).sum();
    lines.push(format!("all convolutions, each once: {:.2} ms", 1e3 * total));
    lines.join("\n")
}

/// A table of the layers: how each is computed, and its time in a step.
fn explanation(result: &BenchResult) -> String {
    let mut lines = vec![format!(
        "{:<14} {:<10} {:<27} {:>11} {:>12}",
        "network", "layer", "algorithm", "forward, ms", "backward, ms"
    )];
    let mut total = 0.0;
    for layer in &result.layers {
        lines.push(format!(
            "{:<14} {:<10} {:<27} {:>11.2} {:>12.2}",
            layer.network, layer.layer, layer.algorithm, layer.forward_ms, layer.backward_ms
        ));
        total += layer.forward_ms + layer.backward_ms;
    }
    if result.layers.is_empty() {
        return "no times of layers on this device".to_owned();
    }
    let rest = result.step_ms_mean - total;
    lines.push(format!(
        "all layers {total:.1} ms; latent vectors, copies and, in training, losses and Adam {rest:.1} ms"
    ));
    lines.join("\n")
}
