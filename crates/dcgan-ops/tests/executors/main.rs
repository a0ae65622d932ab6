//! The fused CPU executor against candle's autograd: every output, statistic and gradient, over odd shapes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod processes;
#[cfg(feature = "cuda")]
#[path = "../simulated/mod.rs"]
mod simulated;
mod support;

use dcgan_ops::{
    Activation, AdamConfig, CpuExecutor, Isa, Keep, Kind, Layer, MapShape, Maps, Mode, Network, Norm,
    NormAxes, Precision, Resample, WithRespectTo, bce_with_logits,
};

use support::*;

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
        bias: false,
        labels: 0,
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
        // Over two values batch norm gives +-1 whatever they are, and its derivative is rounding error: at least three.
        for n in [3, 13] {
            check_same(&[layer("only", row)], n);
        }
        check_same(&[layer("only", Row { bias: true, ..row })], 5);
        check_same(&[layer("only", Row { labels: 6, ..row })], 5);
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
            bias: false,
            labels: 0,
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
fn pooled_and_upsampled_networks_agree() {
    let norm = Some(Norm { axes: NormAxes::PerChannel, affine: true, eps: 1e-5 });
    let block = |name: &str, kind, input, resample: Option<Resample>, channels, norm, activation| {
        let read = resample.map_or(input, |resample: Resample| resample.output(input).unwrap());
        let output = MapShape { channels, ..read };
        let plain = Layer::plain(name, kind, input, output);
        Layer { kernel: (3, 3), padding: (1, 1), resample, norm, activation, ..plain }
    };
    for channels in [3, 16] {
        let pool = Some(Resample::MaxPool(2));
        let first =
            block("blocks.0", Kind::Conv, MapShape::new(3, 8, 12), None, channels, None, Activation::Relu);
        let leaky = Activation::LeakyRelu(0.2);
        let second = block("blocks.1", Kind::Conv, first.output, pool, channels, norm, leaky);
        let third = block("blocks.2", Kind::Conv, second.output, pool, channels, norm, leaky);
        let head = Layer {
            kernel: (2, 3),
            ..Layer::plain("head", Kind::Conv, third.output, MapShape::new(1, 1, 1))
        };
        let discriminator = [first, second, third, head];
        let near = Some(Resample::Nearest(2));
        let up = Kind::ConvTranspose;
        let first =
            block("blocks.0", up, MapShape::new(channels, 2, 3), near, channels, norm, Activation::Relu);
        let last = block("blocks.1", up, first.output, near, 3, None, Activation::Tanh);
        for layers in [&discriminator[..], &[first, last]] {
            check_same(layers, 5);
            let joined: Vec<Layer> =
                layers.iter().map(|layer| Layer { bias: true, label_channels: 3, ..layer.clone() }).collect();
            check_same(&joined, 5);
        }
    }
    let odd = Layer {
        resample: Some(Resample::MaxPool(2)),
        ..Layer::plain("odd", Kind::Conv, MapShape::new(1, 3, 4), MapShape::new(1, 1, 2))
    };
    for mut network in [cpu(std::slice::from_ref(&odd)), candle(std::slice::from_ref(&odd))] {
        let error = network.train(&maps(1, 2, odd.input), Keep::Nothing).unwrap_err().to_string();
        assert!(
            error.contains("layer odd resamples its input by MaxPool(2), which does not divide 3x4"),
            "{error}"
        );
    }
}

#[test]
fn small_networks_agree_and_learn_alike() {
    let norm = Some((NormAxes::PerChannel, true));
    let conv = |channels, side, norm, kernel, (stride, padding), activation| Row {
        channels,
        side: (side, side),
        kernel: (kernel, kernel),
        stride,
        padding,
        norm,
        activation,
        ..PLAIN
    };
    let leaky = Activation::LeakyRelu(0.2);
    let layers = [
        layer("blocks.0", conv((3, 4), 16, None, 4, (2, 1), leaky)),
        layer("blocks.1", conv((4, 6), 8, norm, 4, (2, 1), leaky)),
        layer("head", conv((6, 1), 4, None, 4, (1, 0), Activation::Identity)),
    ];
    check_same(&layers, 5);

    // The same with biases and labels in every layer.
    let joined = layers.clone().map(|layer| Layer { bias: true, label_channels: 3, ..layer });
    check_same(&joined, 5);

    // Dense layers on a map with the labels joined to the flattened map, with and without batch norm.
    for norm in [None, Some(Norm { axes: NormAxes::PerChannel, affine: false, eps: 1e-5 })] {
        let [mut first, mut second, _] = joined.clone();
        second.norm = None;
        let dense = |name: &str, input: MapShape, units, kernel| Layer {
            kernel,
            label_inputs: 3,
            activation: leaky,
            ..Layer::plain(name, Kind::Conv, input, MapShape::new(units, 1, 1))
        };
        let side = (second.output.height, second.output.width);
        let hidden = Layer { norm, bias: norm.is_none(), ..dense("dense.0", second.output, 7, side) };
        let head = Layer { activation: Activation::Identity, ..dense("head", hidden.output, 1, (1, 1)) };
        (first.bias, second.bias) = (false, false);
        check_same(&[first, second, hidden, head], 5);
    }

    // Ten Adam steps on a fixed batch.
    let adam = AdamConfig { learning_rate: 2e-3, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 };
    let mut losses = Vec::new();
    for mut network in [cpu(&layers), candle(&layers)] {
        let start = parameters(&layers, 0, 0.3);
        network.parameters_mut().set(&start).unwrap();
        network.parameters_mut().set_ema(&start).unwrap();
        let mut by_hand = start["head.conv.weight"].clone();
        let mut curve = Vec::new();
        for _ in 0..10 {
            let logits = network.train(&maps(11, 6, layers[0].input), Keep::Tape).unwrap().output;
            let bce = bce_with_logits(logits.values(), 1.0);
            network.parameters_mut().zero_gradients();
            network.backward(&Maps::rows(bce.gradient, 1).unwrap(), WithRespectTo::Parameters).unwrap();
            network.adam_step(&adam);
            network.parameters_mut().update_ema(0.75);
            let now = &network.parameters().tensors().unwrap()["head.conv.weight"];
            by_hand = ((by_hand * 0.75).unwrap() + (now * 0.25).unwrap()).unwrap();
            curve.push(bce.loss);
        }
        assert!(curve[9] < curve[0] * 0.9, "did not learn: {curve:?}");
        assert_eq!(network.parameters().adam_state().unwrap().step, 10);
        let ema = &network.parameters().ema().unwrap().unwrap()["head.conv.weight"];
        assert!(distance(ema, &by_hand) < 1e-6);
        assert!(distance(ema, &network.parameters().tensors().unwrap()["head.conv.weight"]) > 1e-4);
        losses.push(curve);
    }
    for (a, b) in losses[0].iter().zip(&losses[1]) {
        assert!((a - b).abs() < 1e-3 * b.abs(), "{losses:?}");
    }
}

#[test]
fn forward_hooks_get_the_activations() {
    let row = Row {
        kind: Kind::Conv,
        channels: (3, 16),
        side: (12, 12),
        kernel: (4, 4),
        stride: 2,
        padding: 1,
        extra: 0,
        bias: false,
        labels: 0,
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
    let x = maps(4, 5, layers[0].input);
    for mut network in [cpu(&layers), candle(&layers)] {
        network.parameters_mut().set(&parameters(&layers, 0, 1.0)).unwrap();
        let statistics = network.train(&x, Keep::Nothing).unwrap().statistics;
        let expected = network.forward(&x, Mode::Eval(&statistics), Keep::Activations).unwrap();
        network.set_running_stats(statistics);
        let seen = std::sync::Mutex::new(vec![vec![Vec::new(); 5]; 3]);
        let record = |layer: usize, image: usize, map: &[f32]| {
            seen.lock().unwrap()[layer][image].extend_from_slice(map);
        };
        let output = network.eval_with_hook(&x, &record).unwrap();
        assert_eq!(output.values(), expected.output.values());
        for (seen, expected) in seen.into_inner().unwrap().into_iter().zip(expected.activations) {
            let seen = seen.concat();
            assert_eq!(seen.len(), expected.values().len(), "each image once");
            let off = seen.iter().zip(expected.values()).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off < 1e-6, "off by {off}");
        }
    }
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
            bias: false,
            labels: 0,
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
            let executor = CpuExecutor::with(layers.to_vec(), Isa::best(), precision);
            let mut network = Network::with_executor(Box::new(executor));
            let timings = network.timings();
            assert!(timings[0].algorithm.contains(path), "{timings:?}");
            network.parameters_mut().set(&parameters(layers, 0, 1.0)).unwrap();
            network.train(&maps(4, 11, layers[0].input), Keep::Tape).unwrap();
            let d = maps(6, 11, layers[0].output);
            let dx = network.backward(&d, WithRespectTo::Both).unwrap().unwrap();
            let adam =
                AdamConfig { learning_rate: 2e-3, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
            network.adam_step(&adam);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            [bits(dx.values()), bits(network.parameters().values().flat)].concat()
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

/// Runs the comparisons of this file again in a process that loads the driver and the cuDNN of `simulated_gpu/`, which
/// run the kernels of the CUDA executor on the CPU, in shuffled orders.
#[cfg(feature = "cuda")]
#[test]
fn cuda_agrees_on_a_simulated_gpu() {
    if simulated_gpu().is_some() {
        return;
    }
    let (libraries, program) =
        (simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref()), std::env::current_exe().unwrap());
    let mut command = std::process::Command::new(program);
    let tests = ["single_layers_agree", "batch_norm_between", "pooled_and", "small_networks"];
    command.args(tests).arg("--test-threads=1").env("LD_LIBRARY_PATH", libraries).env("SIMULATED_GPU", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("4 passed"), "{text}");
}
