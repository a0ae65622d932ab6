//! Every path of the CPU executor against plain sums in f64, on every instruction set of this machine, over many
//! shapes.

#![allow(clippy::unwrap_used, reason = "a test fails at the first error")]

use candle_core::{Device, Tensor};
use dcgan_ops::{
    CpuExecutor, Isa, Keep, Kind, Layer, MapShape, Maps, Mode, Network, Precision, Role, Statistics,
    WithRespectTo,
};
use proptest::prelude::*;

/// Largest allowed max|a - b| / max|b|, of Winograd's algorithm too.
const TOLERANCES: [(Precision, f64); 2] = [(Precision::F32, 1e-4), (Precision::Bf16, 2e-2)];

/// Values in [-1, 1) from a fixed linear congruence.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| draw()).collect()
}

fn layer(
    kind: Kind,
    channels: (usize, usize),
    side: (usize, usize),
    kernel: (usize, usize),
    stride: usize,
    padding: (usize, usize),
) -> Option<Layer> {
    let out = |side, kernel, padding| {
        Layer::output_side(kind, side, kernel, stride, padding, 0).filter(|&side| side > 0)
    };
    let input = MapShape::new(channels.0, side.0, side.1);
    let (height, width) = (out(side.0, kernel.0, padding.0)?, out(side.1, kernel.1, padding.1)?);
    let output = MapShape::new(channels.1, height, width);
    Some(Layer { kernel, stride, padding, ..Layer::plain("only", kind, input, output) })
}

/// Output, input gradient and weight gradient, `(n, c, h, w)`, from the definition: each product of the convolution
/// pairs one value of the fine map, one of the coarse map and one weight.
fn plain(layer: &Layer, n: usize, x: &[f32], w: &[f32], d: &[f32]) -> [Vec<f64>; 3] {
    let (fine, coarse) = match layer.kind {
        Kind::Conv => (layer.input, layer.output),
        Kind::ConvTranspose => (layer.output, layer.input),
    };
    let (kh, kw) = layer.kernel;
    let mut out = [vec![0.0; n * layer.output.len()], vec![0.0; x.len()], vec![0.0; w.len()]];
    let at = |map: MapShape, i: usize, c: usize, y: usize, x: usize| {
        ((i * map.channels + c) * map.height + y) * map.width + x
    };
    for i in 0..n {
        for (cy, cx) in (0..coarse.height).flat_map(|y| (0..coarse.width).map(move |x| (y, x))) {
            for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                let inside = |at: usize, k: usize, padding: usize, side: usize| {
                    (at * layer.stride + k).checked_sub(padding).filter(|&at| at < side)
                };
                let (rows, columns) = layer.padding;
                let (fy, fx) = (inside(cy, ky, rows, fine.height), inside(cx, kx, columns, fine.width));
                let Some((fy, fx)) = fy.zip(fx) else {
                    continue;
                };
                for cc in 0..coarse.channels {
                    for cf in 0..fine.channels {
                        let (f, c) = (at(fine, i, cf, fy, fx), at(coarse, i, cc, cy, cx));
                        // Both kinds have the coarse channel first.
                        let weight = ((cc * fine.channels + cf) * kh + ky) * kw + kx;
                        let (input, output) = if layer.kind == Kind::Conv { (f, c) } else { (c, f) };
                        let (x, d, w) = (f64::from(x[input]), f64::from(d[output]), f64::from(w[weight]));
                        out[0][output] += x * w;
                        out[1][input] += d * w;
                        out[2][weight] += x * d;
                    }
                }
            }
        }
    }
    out
}

fn check(layer: &Layer, n: usize) {
    let x = numbers(1, n * layer.input.len());
    let d = numbers(2, n * layer.output.len());
    let weight_shape = layer.tensor_shape(Role::Weight).unwrap();
    let w = numbers(3, weight_shape.iter().product());
    let expected = plain(layer, n, &x, &w, &d);
    let map = |values: &[f32], shape: MapShape| {
        let MapShape { channels, height, width } = shape;
        let tensor = Tensor::from_slice(values, (n, channels, height, width), &Device::Cpu).unwrap();
        Maps::from_tensor(&tensor).unwrap()
    };
    let (x, d) = (map(&x, layer.input), map(&d, layer.output));
    let weight = Tensor::from_slice(&w, weight_shape, &Device::Cpu).unwrap();
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    for (isa, (precision, tolerance)) in isas.flat_map(|isa| TOLERANCES.map(|row| (isa, row))) {
        let executor = CpuExecutor::with(vec![layer.clone()], isa, precision);
        let mut network = Network::with_executor(Box::new(executor));
        let parameters = [("only.conv.weight".to_owned(), weight.clone())].into();
        network.parameters_mut().set(&parameters).unwrap();
        let path = network.timings().remove(0).algorithm;
        let evaluated = Statistics::new();
        let output = network.forward(&x, Mode::Eval(&evaluated), Keep::Tape).unwrap().output;
        let grad_input = network.backward(&d, WithRespectTo::Both).unwrap().unwrap();
        let alone = network.backward(&d, WithRespectTo::Input).unwrap().unwrap();
        assert_eq!(alone.values(), grad_input.values());
        // Gradients accumulate: this one is added twice.
        network.backward(&d, WithRespectTo::Parameters).unwrap();
        let grad_weight = network.parameters().gradients().unwrap().remove("only.conv.weight").unwrap();
        let [output, grad_input] = [output, grad_input].map(|maps| maps.to_tensor().unwrap());
        let grad_weight = (grad_weight * 0.5).unwrap();
        let found = [output, grad_input, grad_weight];
        for ((found, expected), what) in found.iter().zip(&expected).zip(["output", "input", "weight"]) {
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            let largest = expected.iter().fold(1e-20_f64, |m, v| m.max(v.abs()));
            let off = found.iter().zip(expected).fold(0.0_f64, |m, (a, b)| m.max((f64::from(*a) - b).abs()));
            assert!(
                off <= tolerance * largest,
                "{what}: relative error {:.1e} ({path}, {}, batch {n}) in {layer:?}",
                off / largest,
                isa.name()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_shape(
        transpose in any::<bool>(),
        channels in (1_usize..34, 1_usize..34),
        side in (1_usize..14, 1_usize..14),
        kernel in 1_usize..7,
        stride in 1_usize..4,
        padding in 0_usize..4,
        n in 1_usize..4,
    ) {
        let kind = if transpose { Kind::ConvTranspose } else { Kind::Conv };
        let padding = padding.min(kernel - 1);
        if let Some(layer) = layer(kind, channels, side, (kernel, kernel), stride, (padding, padding)) {
            check(&layer, n);
        }
    }

    #[test]
    fn any_non_square_kernel_and_padding(
        transpose in any::<bool>(),
        channels in (1_usize..34, prop_oneof![1_usize..34, Just(16_usize)]),
        side in (1_usize..14, 1_usize..14),
        kernel in prop_oneof![
            Just((1, 7)), Just((7, 1)), Just((3, 1)), Just((1, 3)), Just((2, 5)), (1_usize..8, 1_usize..8)
        ],
        stride in 1_usize..3,
        padding in (0_usize..4, 0_usize..4),
        n in 1_usize..4,
    ) {
        let kind = if transpose { Kind::ConvTranspose } else { Kind::Conv };
        let padding = (padding.0.min(kernel.0 - 1), padding.1.min(kernel.1 - 1));
        if let Some(layer) = layer(kind, channels, side, kernel, stride, padding) {
            check(&layer, n);
        }
    }
}

#[test]
fn patches_inside_the_padding() {
    check(&layer(Kind::Conv, (16, 1), (1, 1), (5, 5), 1, (4, 4)).unwrap(), 1);
    check(&layer(Kind::ConvTranspose, (1, 16), (5, 5), (5, 5), 1, (4, 4)).unwrap(), 2);
}

#[test]
fn weights_packed_in_groups_of_panels() {
    // 121 points of 256 x 288 channel pairs exceed the cache; in both directions the last group is smaller.
    for (kind, channels) in [(Kind::Conv, (256, 288)), (Kind::ConvTranspose, (288, 256))] {
        let side = if kind == Kind::Conv { (7, 8) } else { (4, 4) };
        check(&layer(kind, channels, side, (5, 5), 2, (2, 2)).unwrap(), 2);
    }
}

#[test]
fn preset_kernels_over_panels_and_tiles() {
    // Kernel, stride, padding of the presets; channels that fill panels, fill them partly, or are few; prime sizes.
    for (kernel, stride, padding) in [(4, 2, 1), (5, 2, 2), (3, 1, 1), (3, 2, 1)] {
        for channels in [(3, 16), (1, 64), (64, 80), (96, 20), (17, 130)] {
            for (side, n) in [((13, 11), 1), ((8, 17), 2), ((4, 4), 7)] {
                for (kind, channels) in
                    [(Kind::Conv, channels), (Kind::ConvTranspose, (channels.1, channels.0))]
                {
                    if let Some(layer) =
                        layer(kind, channels, side, (kernel, kernel), stride, (padding, padding))
                    {
                        check(&layer, n);
                    }
                }
            }
        }
    }
}
