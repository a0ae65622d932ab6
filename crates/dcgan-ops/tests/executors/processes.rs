//! Batches in several processes: the values of one process, and the same bytes where the batch is in the same shards.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{PLAIN, Row, cpu, distance, layer, maps, parameters};
use dcgan_ops::{
    Activation, AdamConfig, BatchNormOver, CpuExecutor, Device, ExecutorOptions, Input, Keep, Kind, Layer,
    MapShape, Maps, Mode, Network, NormAxes, OpsError, Precision, ProcessGroup, Receivers, Statistics,
    WithRespectTo, in_turn,
};
use std::sync::Arc;

#[path = "../threads/mod.rs"]
mod threads;
use threads::in_processes;

/// The maps of one of `size` processes.
fn part_of(maps: &Maps, rank: usize, size: usize) -> Maps {
    let len = maps.values().len() / size;
    Maps::new(maps.values()[rank * len..][..len].to_vec(), maps.n() / size, maps.shape()).unwrap()
}

#[test]
fn two_processes_compute_the_whole_batch() {
    let row = |channels, side, norm| Row {
        channels,
        side: (side, side),
        kernel: (4, 4),
        stride: 2,
        padding: 1,
        bias: true,
        norm,
        ..PLAIN
    };
    let per_activation =
        Row { kernel: (3, 3), stride: 1, ..row((8, 5), 4, Some((NormAxes::PerActivation, true))) };
    let layers = [
        layer("a", row((3, 8), 16, None)),
        layer("b", row((8, 8), 8, Some((NormAxes::PerChannel, true)))),
        layer("c", per_activation),
    ];
    let (x, d) = (maps(1, 6, layers[0].input), maps(2, 6, layers[2].output));
    let run = |network: &mut Network, x: &Maps, d: &Maps| {
        network.parameters_mut().set(&parameters(&layers, 3, 0.5)).unwrap();
        let forward = network.train(x, Keep::Tape).unwrap();
        let dx = network.backward(d, WithRespectTo::Both).unwrap().unwrap();
        network.reduce_gradients().unwrap();
        (forward, dx, network.parameters().gradients().unwrap())
    };
    let (whole, whole_dx, whole_gradients) = run(&mut cpu(&layers), &x, &d);
    let half = |maps: &Maps, rank: usize| part_of(maps, rank, 2);
    let parts = in_processes(2, |group, rank| {
        let executor = CpuExecutor::new(layers.to_vec()).in_group(group);
        run(&mut Network::with_executor(Box::new(executor)), &half(&x, rank), &half(&d, rank))
    });
    let off = |a: &[f32], b: &[f32]| {
        let largest = b.iter().fold(1e-20_f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
    };
    for (rank, (forward, dx, gradients)) in parts.iter().enumerate() {
        assert!(off(forward.output.values(), half(&whole.output, rank).values()) < 1e-5);
        assert!(off(dx.values(), half(&whole_dx, rank).values()) < 1e-5);
        for (name, statistics) in &whole.statistics {
            assert_eq!(forward.statistics[name].count, statistics.count);
            assert!(distance(&forward.statistics[name].mean, &statistics.mean) < 1e-5);
            assert!(distance(&forward.statistics[name].var, &statistics.var) < 1e-5);
        }
        for (name, gradient) in &whole_gradients {
            // Zero under batch norm.
            if !["b.conv.bias", "c.conv.bias"].contains(&name.as_str()) {
                assert!(distance(&gradients[name], gradient) < 1e-5, "{name}");
            }
        }
    }
    assert_eq!(parts[0].2["a.conv.weight"].to_string(), parts[1].2["a.conv.weight"].to_string());
}

/// What two training steps of one process give: its outputs and input gradients, and what all processes have.
type Found = (Vec<u32>, Vec<u32>);

/// Two steps on the images of one process, whose batch is in `shards`.
fn two_steps(
    (layers, precision): (&[Layer], Precision),
    (group, shards, batch_norm): (Arc<dyn ProcessGroup>, usize, BatchNormOver),
    (x, labels, d): (&Maps, Option<&Maps>, &Maps),
) -> Found {
    let options = ExecutorOptions::new(Device::Cpu).with_precision(precision);
    let options = ExecutorOptions { group, shards, batch_norm, ..options };
    let mut network = Network::new(layers.to_vec(), &options).unwrap();
    network.parameters_mut().set(&parameters(layers, 3, 0.5)).unwrap();
    let adam = AdamConfig { learning_rate: 2e-3, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 1e-4 };
    let (mut own, mut common) = (Vec::new(), Vec::new());
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for _ in 0..2 {
        network.parameters_mut().zero_gradients();
        // Two passes before the sums, as the discriminator has.
        for _ in 0..2 {
            let forward = network.train(Input { maps: x, labels }, Keep::Tape).unwrap();
            let dx = network.backward(d, WithRespectTo::Both).unwrap().unwrap();
            own.extend(bits(forward.output.values()));
            own.extend(bits(dx.values()));
            for statistics in forward.statistics.values() {
                for tensor in [&statistics.mean, &statistics.var] {
                    common.extend(bits(&tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()));
                }
            }
        }
        network.reduce_gradients().unwrap();
        network.adam_step(&adam);
        common.extend(bits(network.parameters().flat_gradients()));
        common.extend(bits(network.parameters().values().flat));
    }
    (own, common)
}

#[test]
fn shards_give_the_same_bytes_in_any_number_of_processes() {
    let row = |kind, channels, side: usize, (kernel, stride, padding), norm| Row {
        kind,
        channels,
        side: (side, side),
        kernel: (kernel, kernel),
        stride,
        padding,
        bias: true,
        norm,
        ..PLAIN
    };
    let (down, up) = (Kind::Conv, Kind::ConvTranspose);
    let per_channel = Some((NormAxes::PerChannel, true));
    let dense = |layer: Layer| Layer { label_inputs: 3, ..layer };
    // Every algorithm, and every kind of layer of the presets.
    let networks: [Vec<Layer>; 3] = [
        vec![
            layer("a", row(down, (3, 32), 16, (4, 2, 1), None)),
            layer("b", row(down, (32, 20), 8, (4, 2, 1), per_channel)),
            layer("c", row(down, (20, 24), 4, (3, 1, 1), Some((NormAxes::PerActivation, true)))),
            dense(layer("head", row(down, (24, 1), 4, (4, 1, 0), None))),
        ],
        vec![
            layer("project", row(up, (10, 24), 1, (4, 1, 0), per_channel)),
            layer("b", row(up, (24, 20), 4, (4, 2, 1), per_channel)),
            layer("c", Row { activation: Activation::Tanh, ..row(up, (20, 3), 8, (4, 2, 1), None) }),
        ],
        vec![
            dense(layer("dense", row(down, (5, 6), 1, (1, 1, 0), Some((NormAxes::PerActivation, false))))),
            layer("b", Row { labels: 3, ..row(up, (6, 5), 1, (5, 1, 0), per_channel) }),
        ],
    ];
    for layers in networks {
        for precision in [Precision::F32, Precision::Bf16] {
            let n = 8;
            let (x, d) = (maps(1, n, layers[0].input), maps(2, n, layers.last().unwrap().output));
            let rows = maps(3, n, MapShape::new(3, 1, 1));
            let has_labels = layers.iter().any(|layer| layer.label_channels + layer.label_inputs > 0);
            let run = |processes: usize, shards: usize, over: BatchNormOver| -> Found {
                let parts = in_processes(processes, |group, rank| {
                    let part = |maps: &Maps| part_of(maps, rank, processes);
                    let labels = has_labels.then(|| part(&rows));
                    let images = (&part(&x), labels.as_ref(), &part(&d));
                    two_steps((&layers, precision), (group, shards / processes, over), images)
                });
                let common = parts[0].1.clone();
                assert!(parts.iter().all(|part| part.1 == common), "processes have different parameters");
                (own_in_order(&parts), common)
            };
            for over in [BatchNormOver::Batch, BatchNormOver::Shard] {
                let whole = run(1, 4, over);
                for processes in [2, 4] {
                    let same = run(processes, 4, over) == whole;
                    assert!(same, "{processes} processes, {precision:?}, {over:?}: {layers:?}");
                }
                assert!(run(1, 1, over).0.len() == whole.0.len());
            }
        }
    }
}

/// Outputs and input gradients of all processes, sorted by value: which process has which does not matter here.
fn own_in_order(parts: &[Found]) -> Vec<u32> {
    let mut all: Vec<u32> = parts.iter().flat_map(|part| part.0.iter().copied()).collect();
    all.sort_unstable();
    all
}

#[test]
fn batches_that_cannot_be_divided_are_refused() {
    let layers = [Layer::plain("a", Kind::Conv, MapShape::new(2, 1, 1), MapShape::new(3, 1, 1))];
    let mut network = Network::with_executor(Box::new(CpuExecutor::new(layers.to_vec()).in_shards(4)));
    let error = network.train(&maps(1, 6, layers[0].input), Keep::Tape).unwrap_err().to_string();
    assert!(error.contains("6 images cannot be divided into 4 equal shards"), "{error}");
}

#[test]
fn batch_norm_of_shards_is_that_of_small_batches() {
    let row = |channels, side, norm| Row {
        channels,
        side: (side, side),
        kernel: (4, 4),
        stride: 2,
        padding: 1,
        norm,
        ..PLAIN
    };
    let layers = [
        layer("a", row((3, 8), 16, Some((NormAxes::PerChannel, true)))),
        layer("b", row((8, 5), 8, Some((NormAxes::PerActivation, true)))),
    ];
    let (n, shards) = (12, 4);
    let (x, d) = (maps(1, n, layers[0].input), maps(2, n, layers[1].output));
    let network = |shards| {
        let batch_norm = BatchNormOver::Shard;
        let options = ExecutorOptions { shards, batch_norm, ..ExecutorOptions::new(Device::Cpu) };
        let mut network = Network::new(layers.to_vec(), &options).unwrap();
        network.parameters_mut().set(&parameters(&layers, 3, 0.5)).unwrap();
        network
    };
    let run = |network: &mut Network, x: &Maps, d: &Maps| {
        let forward = network.train(x, Keep::Tape).unwrap();
        let dx = network.backward(d, WithRespectTo::Both).unwrap().unwrap();
        network.reduce_gradients().unwrap();
        (forward, dx, network.parameters().flat_gradients().to_vec())
    };
    let mut whole = network(shards);
    let (forward, dx, gradients) = run(&mut whole, &x, &d);
    let mut sums = vec![0.0_f64; gradients.len()];
    let (mut mean, mut square) = (0.0, 0.0);
    for shard in 0..shards {
        let (x, d) = (part_of(&x, shard, shards), part_of(&d, shard, shards));
        let (small, small_dx, small_gradients) = run(&mut network(1), &x, &d);
        assert_eq!(small.output.values(), part_of(&forward.output, shard, shards).values());
        assert_eq!(small_dx.values(), part_of(&dx, shard, shards).values());
        sums.iter_mut().zip(&small_gradients).for_each(|(sum, value)| *sum += f64::from(*value));
        let first = |statistics: &Statistics| {
            let value =
                |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
            let found = &statistics["a"];
            (f64::from(value(&found.mean)), f64::from(value(&found.var)))
        };
        let (m, v) = first(&small.statistics);
        (mean, square) = (mean + m / shards as f64, square + (v + m * m) / shards as f64);
        if shard + 1 == shards {
            // Running statistics are those of all images.
            let (all_mean, all_var) = first(&forward.statistics);
            assert!((all_mean - mean).abs() < 1e-5 && (all_var - (square - mean * mean)).abs() < 1e-5);
            assert_eq!(forward.statistics["a"].count, n * 8 * 8);
        }
    }
    let largest = sums.iter().fold(0.0_f64, |largest, sum| largest.max(sum.abs()));
    assert!(sums.iter().zip(&gradients).all(|(sum, value)| (sum - f64::from(*value)).abs() < 1e-5 * largest));
    // Evaluation and passes of one process alone are those of the whole batch.
    whole.set_running_stats(forward.statistics.clone());
    let mut plain = Network::with_executor(Box::new(CpuExecutor::new(layers.to_vec())));
    plain.parameters_mut().set(&parameters(&layers, 3, 0.5)).unwrap();
    let mode = Mode::Eval(&forward.statistics);
    let expected = plain.forward(&x, mode, Keep::Activations).unwrap();
    assert_eq!(whole.eval(&x, Keep::Nothing).unwrap().output.values(), expected.output.values());
    let found = whole.forward(&x, mode, Keep::Activations).unwrap();
    assert_eq!(found.activations[0].values(), expected.activations[0].values());
    let together = plain.train(&x, Keep::Nothing).unwrap();
    let alone = whole.alone(|network| network.train(&x, Keep::Nothing).unwrap());
    assert_eq!(alone.output.values(), together.output.values());
}

#[test]
fn work_in_turn_has_the_order_of_one_process() {
    let run = |processes: usize, batches: usize, receivers: Receivers, bad: Option<usize>| {
        in_processes(processes, |group, _| {
            let mut found = Vec::new();
            let mut compute = |batch: usize| match Some(batch) == bad {
                true => Err(OpsError::NoTape),
                // The last batch is smaller.
                false => Ok(vec![batch as f32; if batch + 1 == batches { 2 } else { 5 }]),
            };
            let mut sink = |batch: usize, values: &[f32]| {
                found.push((batch, values.to_vec()));
                Ok(())
            };
            let end = in_turn(group.as_ref(), batches, receivers, &mut compute, &mut sink);
            (end.map_err(|error| error.to_string()), found)
        })
    };
    for batches in [0, 1, 4, 7] {
        let whole = run(1, batches, Receivers::First, None).remove(0);
        assert!(whole.0.is_ok() && whole.1.len() == batches);
        for receivers in [Receivers::First, Receivers::All] {
            for (rank, found) in run(3, batches, receivers, None).into_iter().enumerate() {
                let receives = rank == 0 || receivers == Receivers::All;
                assert_eq!(found, if receives { whole.clone() } else { (Ok(()), Vec::new()) });
            }
        }
    }
    // Batch 4 is that of rank 1: the others say so, and none waits.
    let ends = run(3, 7, Receivers::First, Some(4));
    let error = |rank: usize| ends[rank].0.clone().unwrap_err();
    assert_eq!([error(0), error(2)].map(|error| error.contains("rank 1 failed")), [true; 2]);
    assert_eq!(error(1), OpsError::NoTape.to_string());
    assert_eq!(ends[0].1.len(), 3);
}
