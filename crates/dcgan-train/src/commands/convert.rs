//! `dcgan-train import` and `export`.

use super::hub::{self, Results};
use super::web::{self, Runtime};
use crate::cli::{ExportArgs, ExportFormat, ImportArgs, Network};
use anyhow::Context;
use candle_core::Device;
use dcgan_base::files::{Destination, write_atomic};
use dcgan_cli::{Outcome, OutputFile, UsageError, check_new_folder, check_outputs, print_result};
use dcgan_model::import::{ImportOptions, NetworkKind, PYTORCH_NETWORKS, to_pytorch};
use dcgan_model::onnx::{self, GeneratorOptions, OnnxImages, OnnxLabels};
use dcgan_model::weights::Precision;
use dcgan_model::{Generator, ModelConfig, ModelFiles, Opened};
use dcgan_ops::Role;
use std::ffi::OsStr;
use std::path::Path;

/// The card of a model folder.
const CARD: &str = "README.md";

fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}

pub(crate) fn import(args: &ImportArgs) -> anyhow::Result<Outcome> {
    check_new_folder("--out", &args.out)?;
    let networks =
        dcgan_model::networks(args.preset.as_deref(), args.config.as_deref()).map_err(UsageError::because)?;
    let options =
        ImportOptions { model: networks.as_ref(), size: args.size, allow_non_finite: args.allow_non_finite };
    let mut opened = dcgan_model::open_files(&args.src, &options).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    let files = &mut opened.files;
    match args.network {
        None => {}
        Some(Network::Generator) => files.discriminator = None,
        Some(Network::Discriminator) => files.generator = None,
    }
    if files.generator.is_none() && files.discriminator.is_none() {
        let names: Vec<_> = args.src.iter().map(|src| src.display().to_string()).collect();
        return Err(UsageError::one(format!("--network: {} has no such network", names.join(", "))).into());
    }
    let mut statistics = Vec::new();
    if let Some(weights) = &mut files.generator {
        let mut generator = Generator::new(&files.model, weights, &Device::Cpu)?;
        if generator.ensure_statistics()? {
            *weights = generator.weights()?;
            let recalibrated = "of G recalibrated from 4,096 z with seed 0";
            tracing::info!("batch norm statistics {recalibrated}");
            statistics.push(recalibrated);
        } else {
            statistics.push("of G unchanged");
        }
    }
    if let Some(weights) = &files.discriminator {
        let has_statistics = weights.keys().any(|name| name.ends_with(Role::RunningMean.suffix()));
        let needs_them = files.model.discriminator_layers().iter().any(|layer| layer.norm.is_some());
        statistics.push(match (has_statistics, needs_them) {
            (false, true) => "of D: none; `dcgan-eval` recalibrates them on images",
            _ => "of D unchanged",
        });
    }
    let statistics = statistics.join(", ");
    make_folder(&args.out)?;
    let ModelConfig { name, height, width, channels, .. } = files.model.config();
    let names: Vec<_> =
        args.src.iter().map(|src| src.file_name().unwrap_or_default().to_string_lossy()).collect();
    let card = format!(
        "# {name}, imported\n\nWeights for {height} x {width} images of {channels} channel(s), imported from `{}` by \
         dcgan-train.\n\n\
         - batch norm statistics: {statistics}\n- license: that of the source\n",
        names.join("`, `")
    );
    files.write(&args.out, &card, args.dtype)?;
    let found = [(files.generator.is_some(), "generator"), (files.discriminator.is_some(), "discriminator")];
    let found: Vec<&str> = found.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    print_result(&format!("{} in {}", found.join(" and "), args.out.display()))?;
    Ok(Outcome::Done)
}

/// The network of an ONNX file.
fn onnx_of(
    args: &ExportArgs,
    files: ModelFiles,
    images: OnnxImages,
    labels: OnnxLabels,
) -> anyhow::Result<Vec<u8>> {
    let missing = |network: &str| UsageError::one(format!("{} has no {network}", args.model.display()));
    let license = args.license.as_deref();
    let bytes = match args.network {
        Network::Generator => {
            let weights = files.generator.ok_or_else(|| missing("generator"))?;
            let mut generator = Generator::new(&files.model, &weights, &Device::Cpu)?;
            if generator.ensure_statistics()? {
                tracing::info!("the weights have no batch norm statistics: recalibrated from 4,096 z");
            }
            let options = GeneratorOptions { images, labels, license };
            onnx::generator(&files.model, &generator.weights()?, options)
        }
        Network::Discriminator => {
            let weights = files.discriminator.ok_or_else(|| missing("discriminator"))?;
            onnx::discriminator(&files.model, &weights, args.features, license)
        }
    };
    Ok(bytes.map_err(|error| UsageError::one(format!("{}: {error}", args.model.display())))?)
}

fn export_onnx(args: &ExportArgs, files: ModelFiles) -> anyhow::Result<Outcome> {
    let images = if args.bytes { OnnxImages::Bytes } else { OnnxImages::Float };
    let labels = if args.label_vectors { OnnxLabels::Vectors } else { OnnxLabels::Classes };
    if args.label_vectors && !files.model.config().is_conditional() {
        let fault =
            format!("--label-vectors needs a conditional model; {} has no classes", args.model.display());
        return Err(UsageError::one(fault).into());
    }
    let bytes = onnx_of(args, files, images, labels)?;
    write_atomic(&args.out, &bytes).with_context(|| args.out.display().to_string())?;
    // Standard output has the file itself.
    if !matches!(Destination::of(&args.out), Ok(Destination::Stdout)) {
        print_result(&args.out.display().to_string())?;
    }
    Ok(Outcome::Done)
}

fn export_web(args: &ExportArgs, files: ModelFiles) -> anyhow::Result<Outcome> {
    let runtime = Runtime::open(args.runtime.as_deref())?;
    let config = files.model.config().clone();
    let onnx = onnx_of(args, files, OnnxImages::Bytes, OnnxLabels::Vectors)?;
    web::write(&args.out, &config, &onnx, args.license.as_deref(), &runtime)?;
    Ok(Outcome::Done)
}

/// Copies the PNG images that a card shows, and licenses, from the model folder `from`.
fn copy_figures(from: &Path, card: &str, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry.with_context(|| from.display().to_string())?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        let is_shown = name.ends_with(".png") && card.contains(&format!("]({name})"));
        if path.is_file() && (is_shown || name.starts_with("LICENSE")) {
            std::fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn export_hub(args: &ExportArgs, files: &ModelFiles, folder: Option<&Path>) -> anyhow::Result<Outcome> {
    let (mut results, mut faults) = (Vec::new(), Vec::new());
    for path in &args.results {
        Results::read(path).map_or_else(|error| faults.extend(error.faults), |found| results.push(found));
    }
    let Some(license) = args.license.as_deref().filter(|_| faults.is_empty()) else {
        return Err(UsageError { faults }.into());
    };
    let config = files.model.config();
    let card = folder
        .and_then(|folder| std::fs::read_to_string(folder.join(CARD)).ok())
        .unwrap_or_else(|| format!("# {}\n", config.name));
    let card = format!(
        "{}\n{}",
        hub::front_matter(files, license, &args.dataset, &results),
        hub::without_front_matter(&card)
    );
    make_folder(&args.out)?;
    files.write(&args.out, &card, args.dtype.unwrap_or(Precision::F32))?;
    let path = args.out.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    std::fs::write(&path, hub::with_class_name(&text)).with_context(|| path.display().to_string())?;
    if let Some(folder) = folder {
        copy_figures(folder, &card, &args.out)?;
    }
    print_result(&args.out.display().to_string())?;
    Ok(Outcome::Done)
}

/// The faults of options that are not for the format.
fn export_faults(args: &ExportArgs) -> Vec<String> {
    let mut faults = match args.to {
        ExportFormat::Pytorch | ExportFormat::Web | ExportFormat::Hub => {
            UsageError::faults_of(check_new_folder("--out", &args.out))
        }
        ExportFormat::Onnx => {
            let inputs = [("the model", args.model.as_path())];
            let output = OutputFile { option: "--out", path: &args.out, extensions: &["onnx"] };
            check_outputs(if args.model.is_file() { &inputs } else { &[] }, &[output])
        }
    };
    let is_generator = args.network == Network::Generator;
    let is = |format: ExportFormat| args.to == format;
    let (onnx, web, hub) = (is(ExportFormat::Onnx), is(ExportFormat::Web), is(ExportFormat::Hub));
    for (option, is_given, fits, formats) in [
        ("--bytes", args.bytes, onnx, "--to onnx"),
        ("--label-vectors", args.label_vectors, onnx, "--to onnx"),
        ("--features", args.features, onnx, "--to onnx"),
        ("--network", !is_generator, onnx, "--to onnx"),
        ("--license", args.license.is_some(), onnx || web || hub, "--to onnx, --to web or --to hub"),
        ("--runtime", args.runtime.is_some(), web, "--to web"),
        ("--dataset", !args.dataset.is_empty(), hub, "--to hub"),
        ("--results", !args.results.is_empty(), hub, "--to hub"),
        ("--dtype", args.dtype.is_some(), hub, "--to hub"),
    ] {
        if is_given && !fits {
            faults.push(format!("{option} needs {formats}"));
        }
    }
    if onnx && args.bytes && !is_generator {
        faults.push("--bytes needs --network generator".to_owned());
    }
    if onnx && args.label_vectors && !is_generator {
        faults.push("--label-vectors needs --network generator".to_owned());
    }
    if onnx && args.features && is_generator {
        faults.push("--features needs --network discriminator".to_owned());
    }
    if hub && args.license.is_none() {
        let why = "what others may do with the weights, by its name on the Hub, such as mit, or unknown";
        faults.push(format!("--to hub needs --license: {why}"));
    }
    faults
}

pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<Outcome> {
    let faults = export_faults(args);
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    if !["config.json", "plan.toml"].iter().any(|name| args.model.join(name).exists()) && args.model.exists()
    {
        let fault = format!(
            "{} is not a model folder; import weights of another program with `dcgan-train import`",
            args.model.display()
        );
        return Err(UsageError::one(fault).into());
    }
    let options = ImportOptions { allow_non_finite: true, ..ImportOptions::default() };
    let opened = dcgan_model::open_files(std::slice::from_ref(&args.model), &options);
    let Opened { files, notes, folder } = opened.map_err(UsageError::because)?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    match args.to {
        ExportFormat::Onnx => return export_onnx(args, files),
        ExportFormat::Web => return export_web(args, files),
        ExportFormat::Hub => return export_hub(args, &files, folder.as_deref()),
        ExportFormat::Pytorch => {}
    }
    let networks = [
        (NetworkKind::Generator, "netG.safetensors", files.generator),
        (NetworkKind::Discriminator, "netD.safetensors", files.discriminator),
    ];
    let (mut renamed, mut needs_definitions) = (Vec::new(), false);
    for (network, name, weights) in networks {
        if let Some(weights) = weights {
            let (exported, is_native) =
                to_pytorch(network, &files.model, &weights).map_err(UsageError::because)?;
            needs_definitions |= is_native;
            renamed.push((name, exported));
        }
    }
    if renamed.is_empty() {
        return Err(UsageError::one(format!("{} has neither network", args.model.display())).into());
    }
    // Nothing is written before both networks are known to have a form in the other program.
    make_folder(&args.out)?;
    for (name, exported) in renamed {
        if exported.counters.is_empty() {
            tracing::warn!("{name} has no batch norm statistics: load it with strict=False");
        }
        let path = args.out.join(name);
        exported.write(&path).with_context(|| path.display().to_string())?;
        print_result(&path.display().to_string())?;
    }
    if needs_definitions {
        // Networks that are no nn.Sequential: conditional ones, dense layers, batch norm per activation.
        let path = args.out.join("networks.py");
        std::fs::write(&path, PYTORCH_NETWORKS).with_context(|| path.display().to_string())?;
        print_result(&path.display().to_string())?;
    }
    Ok(Outcome::Done)
}
