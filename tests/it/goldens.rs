//! The executors against PyTorch: single layers, losses, Adam, whole networks, ten training steps.
//!
//! The goldens and what each of their keys means are in `tests/golden/*/make.py`. `cargo test -p dcgan-tests goldens --
//! --nocapture` prints the largest error of each group.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{Golden, Within, golden_path, values};
use candle_core::{DType, Device, Tensor};
use dcgan_model::{
    BuildExecutor, Discriminator, Generator, Latents, Model, ModelConfig, Preset, network_weights,
};
use dcgan_ops::cuda::{CudaExecutor, Gpu};
use dcgan_ops::{
    AdamConfig, Bce, BufferPool, CandleExecutor, CpuExecutor, Executor, Forward, Input, Keep, Kind, Layer,
    MapShape, Maps, Mode, Network, Norm, NormAxes, NormStatistics, Precision, ProcessGroup, Resample, Role,
    SingleProcess, Statistics, Tensors, WithRespectTo, bce_with_logits,
};
use dcgan_train::config::TrainingConfig;
use dcgan_train::engine::{Engine, StepBatch};
use dcgan_train::step::{LearningRate, Networks};
use serde_json::{Value, from_value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

#[path = "../../crates/dcgan-ops/tests/simulated/mod.rs"]
mod simulated;

type Build = fn(Vec<Layer>) -> dcgan_ops::Result<Box<dyn Executor>>;

/// Every check runs on all: on the CUDA executor in the process that [`goldens_on_a_simulated_gpu`] starts.
fn executors() -> Vec<(&'static str, Build)> {
    if is_simulated() {
        return vec![("the CUDA executor", |layers| Ok(on_simulated_gpu(layers, Precision::F32)))];
    }
    vec![
        ("the fused executor", |layers| Ok(Box::new(CpuExecutor::new(layers)))),
        ("candle's autograd", |layers| Ok(Box::new(CandleExecutor::new(layers, &Device::Cpu)))),
    ]
}

fn on_simulated_gpu(layers: Vec<Layer>, precision: Precision) -> Box<dyn Executor> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    let gpu = Arc::clone(GPU.get_or_init(|| Arc::new(Gpu::open(0).unwrap())));
    Box::new(CudaExecutor::new(layers, gpu, precision))
}

fn is_simulated() -> bool {
    std::env::var_os("SIMULATED_GPU").is_some()
}

/// Runs the checks of layers and networks again in a process that loads the simulated driver of dcgan-ops.
#[test]
fn goldens_on_a_simulated_gpu() {
    if is_simulated() {
        return;
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/dcgan-ops");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let tests =
        ["networks_and_ten_steps", "convolutions_and_their", "batch_norm_and", "biases_label_channels"];
    command.args(tests.map(|test| format!("goldens::{test}")));
    command.env("LD_LIBRARY_PATH", simulated::libraries(&package)).env("SIMULATED_GPU", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("4 passed"), "{text}");
}

/// A network of one layer.
fn network(layer: Layer, build: Build) -> Network {
    Network::with_executor(build(vec![layer]).unwrap())
}

fn maps(tensor: &Tensor) -> Maps {
    Maps::from_tensor(tensor).unwrap()
}

fn scalar(value: f32) -> Tensor {
    Tensor::new(value, &Device::Cpu).unwrap()
}

#[test]
fn networks_and_ten_steps() {
    // A case, and the preset whose training settings it uses.
    let cases = [
        ("pytorch64_narrow", "pytorch64"),
        ("paper64_narrow", "paper64"),
        ("mnist_cond_narrow", "mnist-cond"),
    ];
    for (case, preset) in cases {
        let config = std::fs::read_to_string(golden_path(case).join("config.json")).unwrap();
        let model = Model::new(serde_json::from_str::<ModelConfig>(&config).unwrap()).unwrap();
        let training = Preset::named(preset).unwrap().training.try_into::<TrainingConfig>().unwrap();
        for (name, build) in executors() {
            let mut golden = Golden::open(case, name);
            let pixels = golden.input("images").permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            check_passes(&mut golden, &model, &pixels, build);
            check_steps(&mut golden, &model, &training, &pixels, build);
            golden.finish(|_| true);
        }
    }
}

/// Images `(n, h, w, c)` of u8 as the networks see them, by the conversion that training uses.
fn images(pixels: &Tensor, config: &ModelConfig) -> Maps {
    let bytes: Vec<u8> = pixels.flatten_all().unwrap().to_vec1().unwrap();
    dcgan_model::pixels::to_maps(&bytes, config, &BufferPool::new()).unwrap()
}

/// z, with labels where the networks are conditional.
fn latents(z: &Tensor, labels: Option<&Tensor>, classes: usize) -> Latents {
    let latents = Latents::new(values(z), z.dim(1).unwrap()).unwrap();
    match labels {
        Some(labels) => latents.with_labels(&labels.to_vec1::<u32>().unwrap(), classes).unwrap(),
        None => latents,
    }
}

/// One minibatch, nothing updated: evaluation, every activation, statistic, loss and gradient.
fn check_passes(golden: &mut Golden, model: &Model, pixels: &Tensor, build: Build) {
    let within = Within::Relative(3e-5);
    let build: BuildExecutor<'_> = &build;
    let weights = golden.weights("g", &model.generator_tensors());
    let mut generator = Generator::with_executor(model, &weights, build).unwrap();
    let weights = golden.weights("d", &model.discriminator_tensors());
    let mut discriminator = Discriminator::with_executor(model, &weights, build).unwrap();
    let z = golden.input("z");
    let x = images(&pixels.narrow(0, 0, z.dim(0).unwrap()).unwrap(), model.config());
    let z = latents(&z, golden.optional_input("labels").as_ref(), model.config().classes);
    let with_labels = |maps| Input { maps, labels: z.labels() };

    golden.compare_maps("evaluation", "g.eval", &generator.sample(&z).unwrap(), within);
    let logits = Tensor::new(discriminator.score(with_labels(&x)).unwrap(), &Device::Cpu).unwrap();
    golden.compare("evaluation", "d.eval_logits", &logits, within);

    let pass = generator.train(&z, Keep::Activations).unwrap();
    let fake = pass.output.clone();
    compare_pass(golden, "g", &pass, generator.network(), within);
    let (g, d) = (generator.network_mut(), discriminator.network_mut());
    for (prefix, x) in [("d_real", &x), ("d_fake", &fake)] {
        let pass = d.train(with_labels(x), Keep::Activations).unwrap();
        let logits = Tensor::new(pass.output.values(), &Device::Cpu).unwrap();
        golden.compare("activations", &format!("{prefix}.logits"), &logits, within);
        compare_pass(golden, prefix, &pass, d, within);
    }

    d.parameters_mut().zero_gradients();
    let (on_real, grad_x) = loss(d, with_labels(&x), 1.0, WithRespectTo::Both);
    let (on_fake, _) = loss(d, with_labels(&fake), 0.0, WithRespectTo::Parameters);
    // The generator's loss must leave no trace in D's gradients, which are compared after it.
    let (on_generator, grad_fake) = loss(d, with_labels(&fake), 1.0, WithRespectTo::Input);
    let grad_fake = grad_fake.unwrap();
    g.train(z.input(), Keep::Tape).unwrap();
    g.parameters_mut().zero_gradients();
    g.backward(&grad_fake, WithRespectTo::Parameters).unwrap();

    golden.compare("losses", "loss_d_real", &scalar(on_real.loss), within);
    golden.compare("losses", "loss_d_fake", &scalar(on_fake.loss), within);
    golden.compare("losses", "loss_d", &scalar(on_real.loss + on_fake.loss), within);
    golden.compare("losses", "loss_g", &scalar(on_generator.loss), within);
    golden.compare_maps("gradients", "grad_x", &grad_x.unwrap(), within);
    golden.compare_maps("gradients", "grad_fake", &grad_fake, within);
    for (prefix, network) in [("grad_g", g), ("grad_d", d)] {
        for (name, gradient) in network.parameters().gradients().unwrap() {
            golden.compare("gradients", &format!("{prefix}.{name}"), &gradient, within);
        }
    }
}

fn compare_pass(golden: &mut Golden, prefix: &str, pass: &Forward, network: &Network, within: Within) {
    let layers = network.layers().iter();
    assert_eq!(pass.activations.len(), layers.len());
    // D's head gives the logits, which are compared as such.
    for (layer, activation) in layers.zip(&pass.activations).filter(|(layer, _)| layer.name != "head") {
        golden.compare_maps("activations", &format!("{prefix}.out.{}", layer.name), activation, within);
    }
    for (layer, NormStatistics { mean, var, .. }) in &pass.statistics {
        golden.compare("statistics", &format!("{prefix}.stat.{layer}.mean"), mean, within);
        golden.compare("statistics", &format!("{prefix}.stat.{layer}.variance"), var, within);
    }
}

/// D's loss on images, and the gradients asked for.
fn loss(network: &mut Network, x: Input<'_>, target: f64, wrt: WithRespectTo) -> (Bce, Option<Maps>) {
    let logits = network.train(x, Keep::Tape).unwrap().output;
    let bce = bce_with_logits(logits.values(), target);
    let grad_input = network.backward(&Maps::rows(bce.gradient.clone(), 1).unwrap(), wrt).unwrap();
    (bce, grad_input)
}

/// Ten updates of each network by an [`Engine`], from parameters without running statistics.
fn check_steps(golden: &mut Golden, model: &Model, training: &TrainingConfig, pixels: &Tensor, build: Build) {
    let mut tensors = [model.generator_tensors(), model.discriminator_tensors()];
    tensors.iter_mut().for_each(|specs| specs.retain(|spec| !spec.optional));
    let [g, d] = [golden.weights("g", &tensors[0]), golden.weights("d", &tensors[1])];
    let mut networks = Networks {
        generator: Generator::with_executor(model, &g, &build).unwrap(),
        discriminator: Discriminator::with_executor(model, &d, &build).unwrap(),
    };
    let (rows, z) = (golden.input("steps.rows"), golden.input("steps.z"));
    let labels = golden.optional_input("steps.labels");
    let mut curves: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut record = |name, value| curves.entry(name).or_default().push(value);
    let training = TrainingConfig { batch_size: rows.dim(1).unwrap(), ..training.clone() };
    let alone: Arc<dyn ProcessGroup> = Arc::new(SingleProcess);
    let mut engine = Engine::new(&networks, &training, model.config(), 0, &alone).unwrap();
    assert_eq!(engine.steps_ahead() > 1, is_simulated());
    let steps = rows.dim(0).unwrap();
    for k in 0..steps {
        let x = pixels.index_select(&rows.get(k).unwrap(), 0).unwrap().flatten_all().unwrap();
        let labels = labels.as_ref().map(|labels| labels.get(k).unwrap());
        let latents = latents(&z.get(k).unwrap(), labels.as_ref(), model.config().classes);
        let rate = LearningRate(training.learning_rate);
        let x: Vec<u8> = x.to_vec1().unwrap();
        let batch = StepBatch { pixels: &x, images: &[], latents: &latents };
        engine.step(&mut networks, rate, k as u64, batch).unwrap();
    }
    let found = engine.outputs().unwrap();
    assert_eq!(found.outputs.len(), steps, "{:?} {:?}", found.failure, model.config().classes);
    engine.store(&mut networks).unwrap();
    for output in found.outputs {
        if let Some(output) = output.discriminator {
            record("steps.loss_d", output.loss);
            record("steps.d_x", output.real);
            record("steps.d_g_z1", output.fake);
        }
        if let Some(output) = output.generator {
            record("steps.loss_g", output.loss);
            record("steps.d_g_z2", output.fake);
        }
    }
    for (name, values) in curves {
        let values = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        golden.compare("steps", name, &values, Within::Relative(1e-5));
    }
    for (prefix, network) in [("g", networks.generator.network()), ("d", networks.discriminator.network())] {
        for (name, found) in network_weights(network).unwrap() {
            let (key, shape) = (format!("final.{prefix}.{name}"), found.shape.as_slice());
            let found = Tensor::from_slice(&found.data, shape, &Device::Cpu).unwrap();
            if name.contains(".running_") {
                golden.compare("final statistics", &key, &found, Within::Relative(1e-5));
            } else {
                golden.compare("final parameters, rms", &key, &found, Within::Rms(1e-6));
                golden.compare("final parameters", &key, &found, Within::Absolute(2e-6));
            }
        }
        for (name, moments) in network.parameters().adam_state().unwrap().moments {
            let key = |which| format!("final.adam_{prefix}.{which}.{name}");
            golden.compare("final moments", &key("m"), &moments.first, Within::Relative(1e-4));
            golden.compare("final moments", &key("v"), &moments.second, Within::Relative(1e-4));
        }
    }
}

/// Runs `check` on every row of a list in `ops/cases.json`.
fn check_rows(list: &str, title: &str, mut check: impl FnMut(&mut Golden, &str, &Value)) {
    let cases = std::fs::read_to_string(golden_path("ops").join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let mut golden = Golden::open("ops", &format!("{list}, {title}"));
    for row in cases[list].as_array().unwrap() {
        check(&mut golden, row["name"].as_str().unwrap(), row);
    }
    golden.finish(|key| key.starts_with(&format!("{list}.")));
}

/// The same on all executors, and in bf16 on the simulated GPU.
fn check_layers(list: &str, check: fn(&mut Golden, &str, &Value, Build)) {
    for (title, build) in executors() {
        check_rows(list, title, |golden, name, row| check(golden, name, row, build));
    }
    if is_simulated() {
        check_rows(list, "the CUDA executor in bf16", |golden, name, row| {
            golden.set_least_limit(if DISCONTINUOUS.contains(&name) { 0.5 } else { BF16 });
            check(golden, name, row, |layers| Ok(on_simulated_gpu(layers, Precision::Bf16)));
        });
    }
}

/// Maps, filters and the gradients of maps have eight bits each, and sums of a few of them are taken.
const BF16: f64 = 2e-2;

/// Rows where rounding to eight bits moves more: values that vary little around a large mean, a rectifier near 0, and
/// the maximum of values that are then equal.
const DISCONTINUOUS: [&str; 3] = ["norm.33", "parts.10", "parts.34"];

#[test]
fn convolutions_and_their_transposes() {
    check_layers("linear", |golden, name, row, build| {
        let number = |field: &str| from_value::<usize>(row[field].clone()).unwrap();
        let layer = Layer {
            kind: match row["kind"].as_str().unwrap() {
                "conv" => Kind::Conv,
                "conv_transpose" => Kind::ConvTranspose,
                other => panic!("{name}: unknown kind {other}"),
            },
            output: from_value(row["output"].clone()).unwrap(),
            kernel: from_value(row["kernel"].clone()).unwrap(),
            stride: number("stride"),
            padding: (number("padding"), number("padding")),
            output_padding: number("output_padding"),
            ..pointwise(from_value(row["input"].clone()).unwrap())
        };
        let mut network = network(layer, build);
        let weight = golden.input(&format!("{name}.weight"));
        network.parameters_mut().set(&Tensors::from([("layer.conv.weight".to_owned(), weight)])).unwrap();
        let (x, dy) = (golden.input(&format!("{name}.x")), golden.input(&format!("{name}.dy")));
        let y = network.train(&maps(&x), Keep::Tape).unwrap().output.to_tensor().unwrap();
        let dx = network.backward(&maps(&dy), WithRespectTo::Both).unwrap().unwrap().to_tensor().unwrap();
        let dweight = &network.parameters().gradients().unwrap()["layer.conv.weight"];
        for (key, found) in [("y", &y), ("dx", &dx), ("dweight", dweight)] {
            golden.compare(key, &format!("{name}.{key}"), found, Within::Relative(2e-6));
        }
    });
}

/// A 1x1 convolution from one map to another of its shape, without batch norm or activation.
fn pointwise(map: MapShape) -> Layer {
    Layer::plain("layer", Kind::Conv, map, map)
}

#[test]
fn batch_norm_and_activations() {
    check_layers("norm", |golden, name, row, build| {
        let map: MapShape = from_value(row["input"].clone()).unwrap();
        let axes: Option<NormAxes> = from_value(row["axes"].clone()).unwrap();
        let (affine, eps) = (row["affine"].as_bool().unwrap(), row["eps"].as_f64().unwrap());
        let layer = Layer {
            norm: axes.map(|axes| Norm { axes, affine, eps }),
            activation: from_value(row["activation"].clone()).unwrap(),
            ..pointwise(map)
        };
        let mut input = |suffix: &str| golden.optional_input(&format!("{name}.{suffix}"));
        let (x, dy) = (input("x").unwrap(), input("dy").unwrap());
        // The identity of every channel: what reaches batch norm is x.
        let mut identity = vec![0.0_f32; map.channels * map.channels];
        identity.iter_mut().step_by(map.channels + 1).for_each(|value| *value = 1.0);
        let shape = (map.channels, map.channels, 1, 1);
        let mut parameters = Tensors::new();
        let identity = Tensor::from_vec(identity, shape, &Device::Cpu).unwrap();
        parameters.insert("layer.conv.weight".into(), identity);
        for suffix in ["norm.weight", "norm.bias"] {
            let given = input(&suffix.replace('.', "_"));
            parameters.extend(given.map(|tensor| (format!("layer.{suffix}"), tensor)));
        }
        let mut given = Statistics::new();
        let mode = if row["mode"] == "eval" {
            let (mean, var) = (input("mean").unwrap(), input("variance").unwrap());
            given.insert("layer".into(), NormStatistics { mean, var, count: 0 });
            Mode::Eval(&given)
        } else {
            Mode::Train
        };
        let mut network = network(layer, build);
        network.parameters_mut().set(&parameters).unwrap();
        let pass = network.forward(&maps(&x), mode, Keep::Tape).unwrap();
        let dx = network.backward(&maps(&dy), WithRespectTo::Both).unwrap().unwrap();
        let gradients = network.parameters().gradients().unwrap();
        // The row whose mean is 50 times its spread has lost two digits before batch norm begins.
        let within = Within::Relative(1e-4);
        golden.compare_maps("y", &format!("{name}.y"), &pass.output, within);
        golden.compare_maps("dx", &format!("{name}.dx"), &dx, within);
        if affine {
            let (weight, bias) = (&gradients["layer.norm.weight"], &gradients["layer.norm.bias"]);
            golden.compare("dnorm_weight", &format!("{name}.dnorm_weight"), weight, within);
            golden.compare("dnorm_bias", &format!("{name}.dnorm_bias"), bias, within);
        }
        for statistics in pass.statistics.values() {
            golden.compare("mean", &format!("{name}.mean"), &statistics.mean, within);
            golden.compare("variance", &format!("{name}.variance"), &statistics.var, within);
        }
    });
}

#[test]
fn biases_label_channels_and_padding_pairs() {
    check_layers("parts", |golden, name, row, build| {
        let number = |field: &str| from_value::<usize>(row[field].clone()).unwrap();
        let axes: Option<NormAxes> = from_value(row["axes"].clone()).unwrap();
        let (affine, eps) = (row["affine"].as_bool().unwrap_or(false), row["eps"].as_f64().unwrap_or(1e-5));
        let layer = Layer {
            kind: if row["kind"] == "conv" { Kind::Conv } else { Kind::ConvTranspose },
            output: from_value(row["output"].clone()).unwrap(),
            kernel: from_value(row["kernel"].clone()).unwrap(),
            stride: number("stride"),
            padding: from_value(row["padding"].clone()).unwrap(),
            output_padding: number("output_padding"),
            bias: row["bias"].as_bool().unwrap(),
            label_channels: number("classes"),
            resample: row.get("resample").map(|given| {
                let (kind, factor): (String, usize) = from_value(given.clone()).unwrap();
                if kind == "max_pool" { Resample::MaxPool(factor) } else { Resample::Nearest(factor) }
            }),
            norm: axes.map(|axes| Norm { axes, affine, eps }),
            activation: from_value(row["activation"].clone()).unwrap(),
            ..pointwise(from_value(row["input"].clone()).unwrap())
        };
        let mut input = |suffix: &str| golden.optional_input(&format!("{name}.{suffix}"));
        let (x, dy) = (maps(&input("x").unwrap()), maps(&input("dy").unwrap()));
        let labels = input("labels").map(|rows| Maps::rows(values(&rows), layer.label_channels).unwrap());
        let mut parameters = Tensors::new();
        for (role, suffix) in PARAMETERS {
            parameters.extend(input(suffix).map(|tensor| (layer.tensor_name(role), tensor)));
        }
        let mut given = Statistics::new();
        let eval = row["mode"] == "eval";
        if let (true, Some(mean), Some(var)) = (eval, input("mean"), input("variance")) {
            given.insert("layer".into(), NormStatistics { mean, var, count: 0 });
        }
        let mode = if eval { Mode::Eval(&given) } else { Mode::Train };
        let mut network = network(layer.clone(), build);
        network.parameters_mut().set(&parameters).unwrap();
        let pass = network.forward(Input { maps: &x, labels: labels.as_ref() }, mode, Keep::Tape).unwrap();
        let dx = network.backward(&dy, WithRespectTo::Both).unwrap().unwrap();
        let gradients = network.parameters().gradients().unwrap();
        let within = Within::Relative(1e-5);
        golden.compare_maps("y", &format!("{name}.y"), &pass.output, within);
        golden.compare_maps("dx", &format!("{name}.dx"), &dx, within);
        for (role, suffix) in PARAMETERS {
            if let Some(gradient) = gradients.get(&layer.tensor_name(role)) {
                // Batch norm by minibatch statistics subtracts a bias: its gradient is zero but for rounding.
                let is_zero = role == Role::Bias && layer.norm.is_some() && !eval;
                let within = if is_zero { Within::Absolute(1e-4) } else { within };
                golden.compare("gradients", &format!("{name}.d{suffix}"), gradient, within);
            }
        }
        for statistics in pass.statistics.values() {
            golden.compare("mean", &format!("{name}.mean"), &statistics.mean, within);
            golden.compare("variance", &format!("{name}.variance"), &statistics.var, within);
        }
    });
}

/// Parameters of a layer, and their names in the golden file.
const PARAMETERS: [(Role, &str); 4] = [
    (Role::Weight, "weight"),
    (Role::Bias, "bias"),
    (Role::NormWeight, "norm_weight"),
    (Role::NormBias, "norm_bias"),
];

#[test]
fn binary_cross_entropy() {
    check_rows("bce", "on the CPU", |golden, name, row| {
        let target = row["target"].as_f64().unwrap();
        let logits = golden.input(&format!("{name}.logits"));
        let logits = values(&logits);
        let bce = bce_with_logits(&logits, target);
        let losses: Vec<f32> = logits.iter().map(|&logit| bce_with_logits(&[logit], target).loss).collect();
        let losses = Tensor::new(losses, &Device::Cpu).unwrap();
        // A loss of 100 has steps of 8e-6.
        golden.compare("losses", &format!("{name}.losses"), &losses, Within::Absolute(8e-6));
        golden.compare("loss", &format!("{name}.loss"), &scalar(bce.loss), Within::Absolute(8e-6));
        let gradient = Tensor::new(bce.gradient, &Device::Cpu).unwrap();
        for (key, found) in [("probability", &scalar(bce.probability)), ("gradient", &gradient)] {
            golden.compare(key, &format!("{name}.{key}"), found, Within::Absolute(2e-7));
        }
    });
}

#[test]
fn adam() {
    check_layers("adam", |golden, name, row, build| {
        let number = |field: &str| row[field].as_f64().unwrap();
        let config = AdamConfig {
            learning_rate: number("learning_rate"),
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
        };
        let start = golden.input(&format!("{name}.start"));
        let gradients = golden.input(&format!("{name}.gradients"));
        let n = start.dim(0).unwrap();
        // On an input of 1 the gradient of the kernel is that of the output.
        let one = MapShape::new(1, 1, 1);
        let mut network = network(Layer { output: MapShape::new(n, 1, 1), ..pointwise(one) }, build);
        let weight = start.reshape((n, 1, 1, 1)).unwrap();
        network.parameters_mut().set(&Tensors::from([("layer.conv.weight".to_owned(), weight)])).unwrap();
        let x = Maps::rows(vec![1.0], 1).unwrap();
        let mut after: BTreeMap<&'static str, Vec<f32>> = BTreeMap::new();
        let steps = gradients.dim(0).unwrap();
        for k in 0..steps {
            network.parameters_mut().zero_gradients();
            network.train(&x, Keep::Tape).unwrap();
            let gradient = Maps::rows(values(&gradients.get(k).unwrap()), n).unwrap();
            network.backward(&gradient, WithRespectTo::Parameters).unwrap();
            network.adam_step(&config);
            let state = network.parameters().adam_state().unwrap();
            assert_eq!(state.step, k as u64 + 1);
            let moments = &state.moments["layer.conv.weight"];
            let parameters = &network.parameters().tensors().unwrap()["layer.conv.weight"];
            for (key, tensor) in
                [("parameters", parameters), ("first", &moments.first), ("second", &moments.second)]
            {
                after.entry(key).or_default().extend(values(tensor));
            }
        }
        for (key, values) in after {
            let found = Tensor::from_vec(values, (steps, n), &Device::Cpu).unwrap();
            // Parameters move by a thousandth of themselves: only a bound of a few roundings sees a wrong step.
            let limit = if key == "parameters" { 3e-7 } else { 2e-6 };
            golden.compare(key, &format!("{name}.{key}"), &found, Within::Relative(limit));
        }
    });
}
