//! The CUDA executor on the simulated driver: the same bytes whatever the order of threads, and every failure as an
//! error. Each row is a process, since a program loads one driver.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![cfg(feature = "cuda")]

mod simulated;

use dcgan_ops::cuda::{CudaExecutor, Gpu};
use dcgan_ops::{
    Activation, AdamConfig, DeviceChoice, ImageSource, Keep, Kind, Layer, MapShape, Maps, Network, Norm,
    NormAxes, Precision, ResidentConfig, ResidentInput, SingleProcess, Updates, WithRespectTo,
    resident_training,
};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// D's layers at 8x8 with labels and biases.
fn layers() -> Vec<Layer> {
    let conv = |name: &str, input, output, norm| Layer {
        kernel: (4, 4),
        stride: 2,
        padding: (1, 1),
        label_channels: 3,
        bias: true,
        norm,
        activation: Activation::LeakyRelu(0.2),
        ..Layer::plain(name, Kind::Conv, input, output)
    };
    let norm = Some(Norm { axes: NormAxes::PerChannel, affine: true, eps: 1e-5 });
    let first = conv("blocks.0", MapShape::new(3, 8, 8), MapShape::new(5, 4, 4), None);
    let second = conv("blocks.1", first.output, MapShape::new(40, 2, 2), norm);
    let head = Layer {
        kernel: (2, 2),
        label_inputs: 3,
        ..Layer::plain("head", Kind::Conv, second.output, MapShape::new(1, 1, 1))
    };
    vec![first, second, head]
}

/// SHA-256 of the outputs, statistics and gradients of a few passes.
fn passes(precision: Precision) -> Result<String, Box<dyn std::error::Error>> {
    let gpu = Arc::new(Gpu::open(0)?);
    let mut numbers = sequence();
    let mut network = network(layers(), &gpu, precision, &mut numbers);
    let mut hash = Sha256::new();
    let mut add = |values: &[f32]| values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    for n in [6, 9] {
        let x = Maps::new(numbers(n * 3 * 64), n, MapShape::new(3, 8, 8))?;
        let labels = Maps::one_hot(&(0..n).map(|i| u32::try_from(i % 3).unwrap()).collect::<Vec<_>>(), 3)?;
        let input = dcgan_ops::Input { maps: &x, labels: Some(&labels) };
        let forward = network.train(input, Keep::Tape)?;
        network.parameters_mut().zero_gradients();
        let dx = network.backward(&Maps::rows(numbers(n), 1)?, WithRespectTo::Both)?.unwrap();
        add(forward.output.values());
        add(dx.values());
        for statistics in forward.statistics.values() {
            add(&statistics.var.flatten_all()?.to_vec1::<f32>()?);
        }
        for gradient in network.parameters().gradients()?.values() {
            add(&gradient.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Layers from 4 values of z and 3 class labels to maps of [`layers`].
fn generator() -> Vec<Layer> {
    let norm = Some(Norm { axes: NormAxes::PerActivation, affine: true, eps: 1e-5 });
    let project = Layer {
        kernel: (2, 2),
        label_channels: 3,
        norm,
        activation: Activation::Relu,
        ..Layer::plain("project", Kind::ConvTranspose, MapShape::new(4, 1, 1), MapShape::new(6, 2, 2))
    };
    let last = Layer {
        kernel: (4, 4),
        stride: 4,
        activation: Activation::Tanh,
        ..Layer::plain("blocks.0", Kind::ConvTranspose, project.output, MapShape::new(3, 8, 8))
    };
    vec![project, last]
}

/// A network of these layers with numbers as parameters.
fn network(
    layers: Vec<Layer>,
    gpu: &Arc<Gpu>,
    precision: Precision,
    numbers: &mut dyn FnMut(usize) -> Vec<f32>,
) -> Network {
    let mut tensors = dcgan_ops::Tensors::new();
    for tensor in layers.iter().flat_map(Layer::parameters) {
        let values = numbers(tensor.shape.iter().product());
        let device = candle_core::Device::Cpu;
        let values = candle_core::Tensor::from_vec(values, tensor.shape.as_slice(), &device).unwrap();
        tensors.insert(tensor.name, values);
    }
    let mut network = Network::with_executor(Box::new(CudaExecutor::new(layers, Arc::clone(gpu), precision)));
    network.parameters_mut().set(&tensors).unwrap();
    network
}

/// Numbers in [-1, 1) from a fixed linear congruence.
fn sequence() -> impl FnMut(usize) -> Vec<f32> {
    let mut state = 7_u32;
    move |n| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }
}

/// Images of the dataset that steps read, and of a step.
const IMAGES: usize = 5;
const N: usize = 3;

/// The bytes of an image, as they are given to a device that keeps it or to one that does not.
fn pixels_of(image: ImageSource, keeps: bool) -> Vec<u8> {
    let byte = |row: usize, column: usize, channel: usize| {
        u8::try_from((image.index as usize * 31 + row * 7 + column * 11 + channel) % 251).unwrap()
    };
    if !image.is_given {
        return vec![0xee; 3 * 64];
    }
    let column = |column: usize| if image.is_mirrored && !keeps { 7 - column } else { column };
    (0..3 * 64).map(|i| byte(i / 24, column(i / 3 % 8), i % 3)).collect()
}

/// SHA-256 of the outputs and of all state after eight steps, or the first failure of a step. With a `bad_step`, that
/// step reads a z that is not finite, and no later one changes anything.
fn steps(
    precision: Precision,
    alternate: bool,
    bad_step: Option<u64>,
) -> Result<String, Box<dyn std::error::Error>> {
    let keeps = std::env::var_os("KEEPS").is_some();
    let gpu = Arc::new(Gpu::open(0)?);
    let mut numbers = sequence();
    let mut networks = [generator(), layers()].map(|list| network(list, &gpu, precision, &mut numbers));
    let start = networks[0].parameters().tensors()?;
    networks[0].parameters_mut().set_ema(&start)?;
    let mut pixel_values = [0.0; 256];
    pixel_values.iter_mut().zip(0_u8..=255).for_each(|(value, byte)| *value = f32::from(byte) / 127.5 - 1.0);
    let adam = AdamConfig { learning_rate: 0.0, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 };
    let config = ResidentConfig {
        group: Arc::new(SingleProcess),
        precision,
        batch_size: N,
        real_target: 0.9,
        momentum: 0.1,
        adam,
        ema: 0.9,
        pixel_values,
        dataset_images: if keeps { IMAGES } else { 0 },
    };
    let mut training = resident_training(&networks[0], &networks[1], &config)?.unwrap();
    assert_eq!(training.keeps_images(), keeps);
    let mut hash = Sha256::new();
    let mut add = |values: &[f32]| values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    let labels = Maps::one_hot(&[0, 2, 1], 3)?;
    let mut before = None;
    for step in 0..8 {
        let source = |image: usize| ImageSource {
            index: u32::try_from((step + image) % IMAGES).unwrap(),
            is_mirrored: (step + image).is_multiple_of(3),
            is_given: !keeps || step == 0 || image == N - 1 && step < 3,
        };
        let images: Vec<ImageSource> = (0..N).map(source).collect();
        let pixels: Vec<u8> = images.iter().flat_map(|image| pixels_of(*image, keeps)).collect();
        let pixels = if images.iter().any(|image| image.is_given) { pixels } else { Vec::new() };
        let mut z = numbers(N * 4);
        if bad_step == Some(step as u64) {
            z[5] = f32::INFINITY;
            let [generator, discriminator] = &mut networks;
            training.store(generator, discriminator)?;
            before = Some(networks.each_ref().map(|network| network.parameters().values().flat.to_vec()));
        }
        let updates = match (alternate, step % 2) {
            (false, _) => Updates::Both,
            (true, 0) => Updates::Generator,
            (true, _) => Updates::Discriminator,
        };
        let (pixels, labels, learning_rate) = (&pixels[..], Some(labels.values()), 1e-2 / (step + 1) as f64);
        let images = if keeps { &images[..] } else { &[] };
        training.step(ResidentInput { pixels, images, z: &z, labels, learning_rate, updates })?;
    }
    let outputs = training.outputs()?;
    let [generator, discriminator] = &mut networks;
    training.store(generator, discriminator)?;
    if let (Some(bad), Some(before)) = (bad_step, before) {
        let after = networks.each_ref().map(|network| network.parameters().values().flat.to_vec());
        assert!(before == after, "a failed step changed parameters");
        let failed = &outputs[usize::try_from(bad)?];
        let of_d = failed
            .discriminator
            .clone()
            .map(|(real, fake, gradient)| (real.loss, fake.loss, gradient.not_finite));
        let of_g = failed.generator.clone().map(|(fake, gradient)| (fake.loss, gradient.not_finite));
        return Ok(format!("{of_d:?}, {of_g:?}"));
    }
    for output in &outputs {
        if let Some((real, fake, gradient)) = &output.discriminator {
            add(&[real.loss, real.probability, fake.loss, fake.probability, gradient.norm]);
            assert_eq!(gradient.not_finite, None);
        }
        if let Some((fake, gradient)) = &output.generator {
            add(&[fake.loss, fake.probability, gradient.norm]);
        }
    }
    for network in &networks {
        let parameters = network.parameters();
        add(parameters.values().flat);
        for moments in parameters.adam_state()?.moments.values() {
            add(&moments.first.flatten_all()?.to_vec1::<f32>()?);
            add(&moments.second.flatten_all()?.to_vec1::<f32>()?);
        }
        for ema in parameters.ema()?.iter().flat_map(|ema| ema.values()) {
            add(&ema.flatten_all()?.to_vec1::<f32>()?);
        }
        for statistics in network.running_stats().unwrap().values() {
            add(&statistics.mean.flatten_all()?.to_vec1::<f32>()?);
            add(&statistics.var.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    assert_eq!(outputs.len(), 8);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a process with these libraries and variables finds: a hash, or an error.
#[test]
#[ignore = "run by the tests below, in processes of their own"]
fn child() {
    let precision = if std::env::var_os("BF16").is_some() { Precision::Bf16 } else { Precision::F32 };
    let bad_step = std::env::var("BAD_STEP").ok().map(|step| step.parse().unwrap());
    let found = match (std::env::var("DEVICE"), std::env::var("STEPS").as_deref()) {
        (Err(_), Ok(order)) => steps(precision, order == "alternate", bad_step),
        (Ok(device), _) => device
            .parse::<DeviceChoice>()
            .unwrap()
            .open()
            .map(|device| device.to_string())
            .map_err(Into::into),
        (Err(_), Err(_)) => passes(precision),
    };
    let found = found.unwrap_or_else(|error| error.to_string());
    std::fs::write(std::env::var_os("FOUND").unwrap(), found).unwrap();
}

fn run(libraries: &Path, variables: &[(&str, &str)]) -> String {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("found-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored"]).env("LD_LIBRARY_PATH", libraries).env("FOUND", &file);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let found = std::fs::read_to_string(&file);
    let found =
        found.unwrap_or_else(|_| panic!("{variables:?}: {}", String::from_utf8_lossy(&output.stdout)));
    std::fs::remove_file(file).unwrap();
    found
}

/// Passes of a network, and steps of both orders, in both types.
const WORK: [&[(&str, &str)]; 6] = [
    &[],
    &[("BF16", "1")],
    &[("STEPS", "both")],
    &[("STEPS", "both"), ("BF16", "1")],
    &[("STEPS", "alternate")],
    &[("STEPS", "alternate"), ("BF16", "1")],
];

#[test]
fn the_order_of_threads_and_the_engine_do_not_change_a_byte() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    for work in WORK {
        let found = |more: &[(&str, &str)]| run(&libraries, &[work, more].concat());
        let first = found(&[("SIMULATED_SEED", "1")]);
        assert_eq!(first.len(), 64, "{work:?}: {first}");
        let variations = [("SIMULATED_SEED", "2"), ("SIMULATED_SEED", "3"), ("SIMULATED_REFUSED", "1")];
        // Without a graph, the same work is started call by call. Images that are kept are the same images.
        for more in variations.into_iter().chain([("SIMULATED_NO_CAPTURE", "1"), ("KEEPS", "1")]) {
            assert_eq!(found(&[more]), first, "{work:?}, {more:?}");
        }
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    for (order, step, expected) in
        [("both", "4", "NaN"), ("alternate", "2", "None, Some((NaN"), ("alternate", "3", "NaN")]
    {
        let found = run(&libraries, &[("STEPS", order), ("BAD_STEP", step)]);
        assert!(found.contains(expected), "{order}, step {step}: {found}");
    }
}

#[test]
fn failures_are_errors_with_the_way_out() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    let parts = libraries.with_file_name("simulated_parts");
    std::fs::create_dir_all(parts.join("driver")).unwrap();
    std::fs::create_dir_all(parts.join("nothing")).unwrap();
    std::fs::copy(libraries.join("libcuda.so.1"), parts.join("driver/libcuda.so.1")).unwrap();
    let (driver, nothing) = (parts.join("driver"), parts.join("nothing"));
    /// Libraries, variables, and parts of what is found.
    type Row<'a> = (&'a Path, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: [Row<'_>; 9] = [
        (&libraries, &[("DEVICE", "cuda:0")], &["cuda:0 (simulated GPU)"]),
        (&libraries, &[("DEVICE", "auto")], &["cuda:0 (simulated GPU)"]),
        (&libraries, &[("DEVICE", "cuda:2")], &["cuda:2 does not exist", "1 GPU(s)"]),
        (&libraries, &[("DEVICE", "cuda:0"), ("SIMULATED_OLD_DRIVER", "1")], &["too old", "530"]),
        (&libraries, &[("SIMULATED_REFUSED", "100000")], &["no deterministic engine for Coarse"]),
        (&driver, &[("DEVICE", "cuda:0")], &["cuDNN 9 is missing", "pip install nvidia-cudnn-cu12"]),
        (&driver, &[("DEVICE", "auto")], &["cpu"]),
        (&nothing, &[("DEVICE", "cuda:0")], &["no NVIDIA driver", "--device cpu"]),
        (&nothing, &[("DEVICE", "auto")], &["cpu"]),
    ];
    for (libraries, variables, expected) in rows {
        let found = run(libraries, variables);
        assert!(expected.iter().all(|part| found.contains(part)), "{variables:?}: {found}");
    }
}

#[test]
fn an_allocation_that_fails_is_an_error_whichever_it_is() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    for work in [WORK[1], WORK[3]] {
        let whole = run(&libraries, work);
        let ends = (1..200).find(|n| {
            let found = run(&libraries, &[work, &[("SIMULATED_FULL", &n.to_string())]].concat());
            let is_explained = found.contains("memory is full") && found.contains("--batch-size");
            assert!(found == whole || is_explained, "{work:?}, allocation {n}: {found}");
            found == whole
        });
        assert!(ends.is_some_and(|n| n > 20), "{work:?}: {ends:?}");
    }
}

#[test]
fn the_compiled_kernels_are_those_of_the_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let source = std::fs::read(folder.join("kernels.cu")).unwrap();
    let hash: String = Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect();
    let compiled = std::fs::read_to_string(folder.join("kernels.ptx")).unwrap();
    assert!(compiled.starts_with(&format!("// SHA-256 of kernels.cu: {hash}\n")), "run src/cuda/compile.py");
}
