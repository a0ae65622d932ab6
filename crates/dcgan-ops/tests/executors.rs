//! The fused CPU executor against candle's autograd: every output, statistic and gradient, over odd shapes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use candle_core::{Device, Tensor};
use dcgan_ops::{
    Activation, AdamConfig, CandleExecutor, CpuExecutor, Executor, Isa, Keep, Kind, Layer, MapShape, Mode,
    Norm, NormAxes, NormStatistics, OpsError, Precision, Statistics, Tensors, Want, bce_with_logits,
    free_spare_values, give_back, spare_values,
};

/// Numbers in [-1, 1) from a fixed linear congruence.
fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// max|a - b| / max|b|
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let max =
        |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    max(&(a.contiguous().unwrap() - b.contiguous().unwrap()).unwrap()) / max(b).max(1e-20)
}

#[derive(Clone, Copy, Debug)]
struct Row {
    kind: Kind,
    channels: (usize, usize),
    side: (usize, usize),
    kernel: (usize, usize),
    stride: usize,
    padding: usize,
    extra: usize,
    norm: Option<(NormAxes, bool)>,
    activation: Activation,
}

fn layer(name: &str, row: Row) -> Layer {
    let Row { kind, channels, side, kernel, stride, padding, extra, .. } = row;
    let out = |side, kernel| Layer::output_side(kind, side, kernel, stride, padding, extra).unwrap();
    Layer {
        name: name.into(),
        kind,
        input: MapShape::new(channels.0, side.0, side.1),
        output: MapShape::new(channels.1, out(side.0, kernel.0), out(side.1, kernel.1)),
        kernel,
        stride,
        padding,
        output_padding: extra,
        norm: row.norm.map(|(scope, affine)| Norm { scope, affine, eps: 1e-5 }),
        activation: row.activation,
    }
}

fn check_same(layers: &[Layer], n: usize) {
    // Winograd's algorithm rounds a little more, and both are single precision.
    let tolerance =
        if layers.iter().all(|l| l.input.channels < 8 || l.output.channels < 8) { 2e-5 } else { 5e-5 };
    check_within(layers, n, Precision::F32, tolerance);
}

/// Every instruction set of this machine against candle's autograd.
fn check_within(layers: &[Layer], n: usize, precision: Precision, tolerance: f32) {
    let isas: Vec<_> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    let reference: Box<dyn Executor> = Box::new(CandleExecutor::new(layers.to_vec(), &Device::Cpu).unwrap());
    let ours = isas
        .iter()
        .map(|&isa| -> Box<dyn Executor> { Box::new(CpuExecutor::with(layers.to_vec(), isa, precision)) });
    let mut executors: Vec<_> = std::iter::once(reference).chain(ours).collect();
    let parameters: Tensors = layers
        .iter()
        .flat_map(Layer::parameters)
        .enumerate()
        .map(|(i, spec)| (spec.name, numbers(i as u64 + 7, &spec.shape)))
        .collect();
    let given: Statistics = layers
        .iter()
        .filter_map(|layer| {
            let shape = layer.norm_shape()?;
            let variance = (numbers(5, &shape).abs().unwrap() + 0.5).unwrap();
            Some((layer.name.clone(), NormStatistics { mean: numbers(3, &shape), variance, count: 9 }))
        })
        .collect();
    let (first, last) = (layers[0].input, layers[layers.len() - 1].output);
    let x = numbers(1, &[n, first.channels, first.height, first.width]);
    let d = numbers(2, &[n, last.channels, last.height, last.width]);
    for mode in [Mode::Train, Mode::Eval(&given)] {
        let mut results = Vec::new();
        for executor in &mut executors {
            executor.set_parameters(&parameters).unwrap();
            executor.zero_gradients().unwrap();
            let activations = executor.forward(&x, mode, Keep::Activations).unwrap().activations;
            let forward = executor.forward(&x, mode, Keep::Tape).unwrap();
            let dx = executor.backward(&d, Want::Both).unwrap().unwrap();
            // Input alone: the same derivative, parameters' gradients untouched.
            let alone = executor.backward(&d, Want::Input).unwrap().unwrap();
            assert!(distance(&alone, &dx) < 1e-6);
            let mut named = executor.gradients().unwrap();
            for (name, s) in &forward.statistics {
                named.insert(format!("{name}.mean"), s.mean.clone());
                named.insert(format!("{name}.variance"), s.variance.clone());
                named.insert(
                    format!("{name}.count"),
                    Tensor::full(s.count as f32, (1,), &Device::Cpu).unwrap(),
                );
            }
            named.insert("output".into(), forward.output);
            named.insert("dx".into(), dx);
            named.extend(activations.into_iter().enumerate().map(|(i, a)| (format!("activation {i}"), a)));
            results.push(named);
        }
        let (reference, ours) = results.split_first().unwrap();
        for (isa, ours) in isas.iter().zip(ours) {
            assert_eq!(ours.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
            for (name, ours) in ours {
                let distance = distance(ours, &reference[name]);
                assert!(
                    distance < tolerance,
                    "{name} differs by {distance} ({isa:?}, {precision:?}, {mode:?}, batch {n}) in {layers:?}"
                );
            }
        }
    }
}

#[test]
fn single_layers_agree() {
    use Activation::{Identity, LeakyRelu, Relu, Sigmoid, Tanh};
    use Kind::{Conv, ConvTranspose};
    let (channel, unit) = (NormAxes::PerChannel, NormAxes::PerActivation);
    let row = |kind, channels, side, kernel, (stride, padding, extra), norm, activation| Row {
        kind,
        channels,
        side,
        kernel,
        stride,
        padding,
        extra,
        norm,
        activation,
    };
    let rows = [
        row(Conv, (3, 5), (8, 8), (4, 4), (2, 1, 0), None, LeakyRelu(0.2)),
        row(Conv, (5, 7), (6, 10), (4, 4), (2, 1, 0), Some((channel, true)), LeakyRelu(0.2)),
        row(Conv, (1, 3), (7, 7), (5, 5), (2, 2, 0), Some((channel, true)), Relu),
        row(Conv, (17, 4), (8, 4), (5, 5), (2, 2, 0), None, Identity),
        row(Conv, (2, 3), (5, 5), (3, 3), (1, 1, 0), Some((channel, false)), LeakyRelu(0.1)),
        row(Conv, (19, 3), (6, 6), (3, 3), (2, 1, 0), Some((unit, true)), Relu),
        row(Conv, (3, 1), (4, 3), (4, 3), (1, 0, 0), None, Identity),
        row(Conv, (16, 2), (40, 36), (4, 4), (2, 1, 0), Some((channel, true)), LeakyRelu(0.2)),
        row(Conv, (3, 2), (3, 3), (1, 1), (1, 0, 0), None, Sigmoid),
        row(ConvTranspose, (10, 6), (1, 1), (4, 4), (1, 0, 0), Some((unit, true)), Relu),
        row(ConvTranspose, (10, 6), (1, 1), (3, 5), (1, 0, 0), Some((channel, true)), Relu),
        row(ConvTranspose, (6, 3), (4, 4), (4, 4), (2, 1, 0), None, Tanh),
        row(ConvTranspose, (5, 2), (5, 3), (5, 5), (2, 2, 1), Some((channel, true)), Relu),
        row(ConvTranspose, (4, 3), (4, 4), (3, 3), (2, 1, 1), None, Sigmoid),
        row(ConvTranspose, (4, 18), (5, 4), (3, 3), (1, 1, 0), Some((channel, false)), Relu),
        row(ConvTranspose, (3, 2), (20, 18), (4, 4), (2, 1, 0), None, Tanh),
        // Few channels beside many: every kernel and stride, sides that blocks do not divide.
        row(Conv, (3, 16), (8, 8), (4, 4), (2, 1, 0), None, LeakyRelu(0.2)),
        row(Conv, (1, 80), (7, 11), (5, 5), (2, 2, 0), Some((channel, true)), Relu),
        row(Conv, (4, 32), (6, 5), (3, 3), (1, 1, 0), None, Identity),
        row(Conv, (2, 48), (9, 5), (3, 5), (2, 0, 0), None, Identity),
        row(ConvTranspose, (16, 3), (5, 6), (4, 4), (2, 1, 0), None, Tanh),
        row(ConvTranspose, (32, 1), (4, 7), (5, 5), (2, 2, 1), None, Sigmoid),
        row(ConvTranspose, (64, 3), (5, 8), (3, 3), (1, 1, 0), None, Tanh),
        row(ConvTranspose, (16, 2), (3, 4), (4, 3), (1, 0, 0), None, Identity),
        // Winograd's algorithm: every kernel, panels that are not full, tiles that reach over the edges.
        row(Conv, (8, 16), (8, 8), (4, 4), (2, 1, 0), None, Identity),
        row(Conv, (9, 17), (11, 13), (4, 4), (2, 1, 0), Some((channel, true)), LeakyRelu(0.2)),
        row(Conv, (20, 80), (16, 10), (5, 5), (2, 2, 0), Some((channel, true)), LeakyRelu(0.2)),
        row(Conv, (70, 12), (7, 9), (3, 3), (1, 1, 0), None, LeakyRelu(0.2)),
        row(Conv, (96, 33), (9, 7), (3, 3), (2, 1, 0), None, Identity),
        row(Conv, (11, 8), (10, 7), (2, 2), (1, 0, 0), None, Identity),
        row(Conv, (8, 8), (12, 12), (6, 6), (2, 0, 0), None, Identity),
        row(ConvTranspose, (16, 9), (4, 4), (4, 4), (2, 1, 0), Some((channel, true)), Relu),
        row(ConvTranspose, (40, 24), (5, 3), (5, 5), (2, 2, 1), Some((channel, true)), Relu),
        row(ConvTranspose, (8, 65), (6, 7), (3, 3), (1, 1, 0), None, Relu),
        row(ConvTranspose, (17, 8), (9, 4), (3, 3), (2, 1, 1), None, Sigmoid),
    ];
    for row in rows {
        // Over two values batch-norm gives +-1 whatever they are, and its derivative is rounding error: at least three.
        for n in [3, 13] {
            check_same(&[layer("only", row)], n);
        }
        if row.norm.is_none_or(|(scope, _)| scope == NormAxes::PerChannel) && row.side != (1, 1) {
            check_same(&[layer("only", row)], 1);
        }
    }
}

#[test]
fn batch_norm_between_kernels_agrees() {
    let (norm, channel) = (Some((NormAxes::PerChannel, true)), NormAxes::PerChannel);
    // A value near zero may be rounded to the other side of a rectifier's kink: in bf16 the slopes are alike.
    for (precision, slope, tolerance) in [(Precision::F32, 0.2, 1e-4), (Precision::Bf16, 0.95, 2e-2)] {
        let row = |kind, channels, side, (kernel, stride, padding, extra), norm, activation| Row {
            kind,
            channels,
            side,
            kernel: (kernel, kernel),
            stride,
            padding,
            extra,
            norm,
            activation,
        };
        let leaky = Activation::LeakyRelu(slope);
        for (kernel, extra) in [((4, 2, 1), 0), ((5, 2, 2), 1), ((3, 1, 1), 0)] {
            let (k, stride, padding) = kernel;
            let (down, up) = ((k, stride, padding, 0), (k, stride, padding, extra));
            let half = |(height, width): (usize, usize)| (height / stride, width / stride);
            let sides = [(24, 16), half((24, 16)), half(half((24, 16)))];
            let discriminator = [
                row(Kind::Conv, (3, 16), sides[0], down, None, leaky),
                row(Kind::Conv, (16, 24), sides[1], down, norm, leaky),
                row(Kind::Conv, (24, 80), sides[2], down, Some((channel, false)), leaky),
            ];
            let generator = [
                row(Kind::ConvTranspose, (20, 32), sides[2], up, norm, leaky),
                row(Kind::ConvTranspose, (32, 16), sides[1], up, norm, leaky),
                row(Kind::ConvTranspose, (16, 3), sides[0], up, None, Activation::Identity),
            ];
            for rows in [discriminator, generator] {
                let layers: Vec<_> =
                    rows.into_iter().enumerate().map(|(i, row)| layer(&format!("blocks.{i}"), row)).collect();
                check_within(&layers, 4, precision, tolerance);
            }
        }
    }
}

#[test]
fn small_networks_agree_and_learn_alike() {
    let norm = Some((NormAxes::PerChannel, true));
    let conv = |channels, side, norm, kernel, (stride, padding), activation| Row {
        kind: Kind::Conv,
        channels,
        side: (side, side),
        kernel: (kernel, kernel),
        stride,
        padding,
        extra: 0,
        norm,
        activation,
    };
    let leaky = Activation::LeakyRelu(0.2);
    let layers = [
        layer("blocks.0", conv((3, 4), 16, None, 4, (2, 1), leaky)),
        layer("blocks.1", conv((4, 6), 8, norm, 4, (2, 1), leaky)),
        layer("head", conv((6, 1), 4, None, 4, (1, 0), Activation::Identity)),
    ];
    check_same(&layers, 5);

    // Ten Adam steps on a fixed batch.
    let adam = AdamConfig { learning_rate: 2e-3, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 };
    let mut losses = Vec::new();
    let executors: [Box<dyn Executor>; 2] = [
        Box::new(CpuExecutor::new(layers.to_vec())),
        Box::new(CandleExecutor::new(layers.to_vec(), &Device::Cpu).unwrap()),
    ];
    for mut executor in executors {
        let specs = layers.iter().flat_map(Layer::parameters).enumerate();
        let start: Tensors =
            specs.map(|(i, s)| (s.name, (numbers(i as u64, &s.shape) * 0.3).unwrap())).collect();
        executor.set_parameters(&start).unwrap();
        executor.set_ema(&start).unwrap();
        let mut by_hand = start["head.weight"].clone();
        let mut curve = Vec::new();
        for _ in 0..10 {
            let x = numbers(11, &[6, 3, 16, 16]);
            let logits = executor.forward(&x, Mode::Train, Keep::Tape).unwrap().output.reshape(6).unwrap();
            let bce = bce_with_logits(&logits, 1.0).unwrap();
            executor.zero_gradients().unwrap();
            executor.backward(&bce.gradient.reshape((6, 1, 1, 1)).unwrap(), Want::Parameters).unwrap();
            executor.adam_step(&adam).unwrap();
            executor.update_ema(0.75).unwrap();
            let now = &executor.parameters().unwrap()["head.weight"];
            by_hand = ((by_hand * 0.75).unwrap() + (now * 0.25).unwrap()).unwrap();
            curve.push(bce.loss.to_scalar::<f32>().unwrap());
        }
        assert!(curve[9] < curve[0] * 0.9, "did not learn: {curve:?}");
        assert_eq!(executor.adam_state().unwrap().step, 10);
        let average = &executor.average().unwrap().unwrap()["head.weight"];
        assert!(distance(average, &by_hand) < 1e-6);
        assert!(distance(average, &executor.parameters().unwrap()["head.weight"]) > 1e-4);
        losses.push(curve);
    }
    for (a, b) in losses[0].iter().zip(&losses[1]) {
        assert!((a - b).abs() < 1e-3 * b.abs(), "{losses:?}");
    }
}

#[test]
fn visits_see_the_activations() {
    let row = Row {
        kind: Kind::Conv,
        channels: (3, 16),
        side: (12, 12),
        kernel: (4, 4),
        stride: 2,
        padding: 1,
        extra: 0,
        norm: None,
        activation: Activation::LeakyRelu(0.2),
    };
    let normed = Row { norm: Some((NormAxes::PerChannel, true)), channels: (16, 20), side: (6, 6), ..row };
    let unit = Row {
        norm: Some((NormAxes::PerActivation, true)),
        channels: (20, 5),
        side: (3, 3),
        kernel: (3, 3),
        padding: 0,
        ..row
    };
    let layers = vec![layer("a", row), layer("b", normed), layer("c", unit)];
    let x = numbers(4, &[5, 3, 12, 12]);
    let executors: [Box<dyn Executor>; 2] = [
        Box::new(CpuExecutor::new(layers.clone())),
        Box::new(CandleExecutor::new(layers.clone(), &Device::Cpu).unwrap()),
    ];
    for mut executor in executors {
        let specs = layers.iter().flat_map(Layer::parameters).enumerate();
        let parameters = specs.map(|(i, s)| (s.name, numbers(i as u64, &s.shape))).collect();
        executor.set_parameters(&parameters).unwrap();
        let statistics = executor.forward(&x, Mode::Train, Keep::Nothing).unwrap().statistics;
        let whole = executor.forward(&x, Mode::Eval(&statistics), Keep::Activations).unwrap();
        let seen = std::sync::Mutex::new(vec![vec![Vec::new(); 5]; 3]);
        let note = |layer: usize, image: usize, map: &[f32]| {
            seen.lock().unwrap()[layer][image].extend_from_slice(map);
        };
        let output = executor.forward_with_hook(&x, &statistics, &note).unwrap();
        assert!(distance(&output, &whole.output) < 1e-6);
        for (seen, expected) in seen.into_inner().unwrap().into_iter().zip(whole.activations) {
            let expected =
                expected.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let seen = seen.concat();
            assert_eq!(seen.len(), expected.len(), "each image once");
            let off = seen.iter().zip(&expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off < 1e-6, "off by {off}");
        }
    }
}

#[test]
fn memory_that_was_given_back_serves_the_next_tensor_and_no_other() {
    let row = Row {
        kind: Kind::Conv,
        channels: (3, 5),
        side: (67, 83),
        kernel: (3, 3),
        stride: 1,
        padding: 1,
        extra: 0,
        norm: None,
        activation: Activation::LeakyRelu(0.2),
    };
    let layers = vec![layer("a", row)];
    let executors: [Box<dyn Executor>; 2] = [
        Box::new(CpuExecutor::new(layers.clone())),
        Box::new(CandleExecutor::new(layers, &Device::Cpu).unwrap()),
    ];
    for mut executor in executors {
        // Channels-last memory is read where it is, other memory may be copied.
        for x in [numbers(1, &[2, 3, 67, 83]), numbers(1, &[2, 67, 83, 3]).permute((0, 3, 1, 2)).unwrap()] {
            let output = executor.forward(&x, Mode::Train, Keep::Tape).unwrap().output;
            give_back(x.clone());
            let forward = executor.forward(&x, Mode::Train, Keep::Nothing);
            assert!(matches!(forward, Err(OpsError::GivenBack)), "{forward:?}");
            give_back(output.clone());
            let backward = executor.backward(&output, Want::Both);
            assert!(matches!(backward, Err(OpsError::GivenBack | OpsError::NoTape)), "{backward:?}");
        }
        // A tensor may have more values than memory.
        let one = numbers(1, &[1, 3, 67, 83]).broadcast_as((2, 3, 67, 83)).unwrap();
        executor.forward(&one, Mode::Train, Keep::Nothing).unwrap();
    }
    // What was left in memory shows that it is the same; fresh values are zero. No other test gives back as many.
    let kept = |len: usize| spare_values(len)[0] > 0.0;
    for (len, next) in [(100_003, None), (100_003, Some(100_019)), (7, None)] {
        give_back(Tensor::full(8.0_f32, len, &Device::Cpu).unwrap());
        next.into_iter().for_each(|next| give_back(Tensor::full(8.0_f32, next, &Device::Cpu).unwrap()));
        assert_eq!(kept(len), len > 7 && next.is_none(), "{len} values, then {next:?}");
        assert!(!kept(len), "{len} values twice");
    }
    give_back(Tensor::full(8.0_f32, 100_003, &Device::Cpu).unwrap());
    free_spare_values();
    assert!(!kept(100_003));
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    use Kind::{Conv, ConvTranspose};
    let all = [Precision::F32, Precision::Bf16];
    for (kind, channels, kernel, stride, padding, path, precisions) in [
        (Conv, (20, 24), 5, 2, 2, "Winograd", &all[..]),
        (Conv, (20, 24), 4, 2, 1, "Winograd", &all),
        (Conv, (24, 20), 3, 1, 1, "Winograd", &all),
        (ConvTranspose, (24, 20), 4, 2, 1, "Winograd", &all),
        (Conv, (3, 32), 4, 2, 1, "direct", &all[..1]),
        (ConvTranspose, (32, 3), 4, 2, 1, "direct", &all[..1]),
        (Conv, (5, 6), 4, 2, 1, "patches", &all[..1]),
        (ConvTranspose, (6, 5), 5, 2, 2, "patches", &all[..1]),
        (Conv, (40, 3), 24, 1, 0, "product", &all[..1]),
    ] {
        let row = Row {
            kind,
            channels,
            side: (24, 24),
            kernel: (kernel, kernel),
            stride,
            padding,
            extra: 0,
            norm: Some((NormAxes::PerChannel, true)),
            activation: Activation::LeakyRelu(0.2),
        };
        for &precision in precisions {
            check_threads(&[layer("a", row)], path, precision);
        }
    }
}

fn check_threads(layers: &[Layer], path: &str, precision: Precision) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut executor = CpuExecutor::with(layers.to_vec(), Isa::best(), precision);
            assert!(executor.timings()[0].1.contains(path), "{:?}", executor.timings());
            let specs = layers.iter().flat_map(Layer::parameters).enumerate();
            executor
                .set_parameters(&specs.map(|(i, s)| (s.name, numbers(i as u64, &s.shape))).collect())
                .unwrap();
            let shape = |map: MapShape| [11, map.channels, map.height, map.width];
            let x = numbers(4, &shape(layers[0].input));
            executor.forward(&x, Mode::Train, Keep::Tape).unwrap();
            let d = numbers(6, &shape(layers[0].output));
            let dx = executor.backward(&d, Want::Both).unwrap().unwrap();
            let adam =
                AdamConfig { learning_rate: 2e-3, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
            executor.adam_step(&adam).unwrap();
            let bits = |t: &Tensor| {
                t.flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
                    .into_iter()
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            };
            let mut all = bits(&dx);
            executor.parameters().unwrap().values().for_each(|p| all.extend(bits(p)));
            all
        })
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(
            run(threads) == one,
            "{threads} threads give other bytes than one in {precision:?}: {layers:?}"
        );
    }
}
