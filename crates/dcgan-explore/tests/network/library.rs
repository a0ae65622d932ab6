//! The library against PyTorch, against definitions, and against computations step by step.

use crate::support::{guided_case, latent_maps, latents, networks, noise, samples, values};
use candle_core::{Device, Tensor};
use dcgan_explore::ablate::{Filters, Positions, find_feature_maps, sample_positions};
use dcgan_explore::bounding_boxes::{BoundingBox, BoundingBoxes};
use dcgan_explore::guided::{GuidedBackprop, to_bytes};
use dcgan_explore::max_activations::{
    ActivationIndex, MaxActivations, MaxActivationsError, ReceptiveField, crop_resized, receptive_field,
};
use dcgan_explore::subnetwork::{Subnetwork, find_block};
use dcgan_model::{Discriminator, Model, Preset, pixels};
use dcgan_ops::{Keep, Maps};

/// Images of the guided golden as tensors, `(n, c, h, w)`.
fn images(model: &Model, n: usize) -> Tensor {
    let (height, width, channels) = model.config().image_shape();
    pixels::to_tensor(&noise(n * height * width * channels), model.config(), &Device::Cpu).unwrap()
}

#[test]
fn guided_gradients_are_pytorchs() {
    let (model, mut case) = guided_case();
    let (expected, indices, largest) =
        (case.remove("gradients").unwrap(), case.remove("places").unwrap(), case.remove("largest").unwrap());
    let weights =
        case.into_iter().map(|(name, t)| (name.strip_prefix("d.").unwrap().to_owned(), t)).collect();
    let discriminator = Discriminator::new(&model, &weights, &Device::Cpu).unwrap();
    let n = expected.shape[0];
    let x = images(&model, n);
    let last = model.discriminator_layers().len() - 2;
    // The indices of the golden are those of the largest activations.
    let mut lower = Subnetwork::up_to(discriminator.network(), last).unwrap();
    let mut maxima = MaxActivations::new(model.discriminator_layers()[last].output.channels, n);
    maxima.add(&lower.eval(&x, Keep::Nothing).unwrap(), 0).unwrap();
    let indices: Vec<ActivationIndex> = indices
        .data
        .chunks(3)
        .map(|p| ActivationIndex { channel: p[0] as usize, row: p[1] as usize, column: p[2] as usize })
        .collect();
    for (i, index) in indices.iter().enumerate() {
        let found = maxima.of(index.channel).iter().find(|maximum| maximum.image == i).unwrap();
        assert_eq!(found.index, *index);
        assert!((found.value - largest.data[i]).abs() <= 1e-5 * largest.data[i].abs());
    }
    let gradients = GuidedBackprop::new(&discriminator, last).unwrap().gradients(&x, &indices).unwrap();
    assert_eq!(gradients.dims(), expected.shape);
    let scale = expected.data.iter().fold(0.0_f32, |scale, v| scale.max(v.abs()));
    assert!(scale > 0.01, "the golden is not all zeros");
    for (found, expected) in values(&gradients).iter().zip(&expected.data) {
        assert!((found - expected).abs() <= 1e-5 * scale, "{found} {expected}");
    }
    let bytes = to_bytes(&gradients).unwrap();
    assert!(bytes.contains(&1) || bytes.contains(&255), "the largest gradient is at an end of the range");
}

#[test]
fn gradients_of_negative_activations_are_zero_and_invalid_indices_are_refused() {
    let (model, _, discriminator) = networks(3);
    let x = images(&model, 2);
    let mut guided = GuidedBackprop::new(&discriminator, 1).unwrap();
    let maps = Subnetwork::up_to(discriminator.network(), 1).unwrap().eval(&x, Keep::Nothing).unwrap();
    let (_, channels, height, width) = maps.dims4().unwrap();
    let all = values(&maps);
    let index = |i: usize| {
        let within = i % (channels * height * width);
        ActivationIndex {
            channel: within / (height * width),
            row: within / width % height,
            column: within % width,
        }
    };
    let negative = all[..all.len() / 2].iter().position(|&v| v < 0.0).unwrap();
    let positive = all[all.len() / 2..].iter().position(|&v| v > 0.0).unwrap();
    let gradients = guided.gradients(&x, &[index(negative), index(positive)]).unwrap();
    let gradients = values(&gradients);
    let (first, second) = gradients.split_at(gradients.len() / 2);
    assert!(first.iter().all(|&v| v == 0.0), "a negative activation passes nothing");
    assert!(second.iter().any(|&v| v != 0.0));
    let outside = ActivationIndex { channel: channels, row: 0, column: 0 };
    assert!(guided.gradients(&x, &[outside, outside]).is_err());
    assert!(guided.gradients(&x, &[index(0)]).is_err());
    let zeros = Tensor::zeros((1, 4, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(to_bytes(&zeros).unwrap(), [128, 128, 128, 255]);
    // Alpha does not affect the scale.
    let colors =
        Tensor::new(&[0.5_f32, -1.0, 0.0, 100.0], &Device::Cpu).unwrap().reshape((1, 4, 1, 1)).unwrap();
    assert_eq!(to_bytes(&colors).unwrap(), [192, 1, 128, 255]);
}

#[test]
fn split_networks_compose_to_the_whole() {
    let (model, mut generator, mut discriminator) = networks(5);
    let z = latents(&model, 2, 3);
    let samples = samples(&mut generator, &z);
    let x = images(&model, 3);
    let logits = discriminator.score(&Maps::from_tensor(&x).unwrap()).unwrap();
    let logits = Tensor::new(logits, &Device::Cpu).unwrap();
    let maps = latent_maps(&z);
    let networks = [
        (generator.network(), model.generator_layers(), &maps, &samples),
        (discriminator.network(), model.discriminator_layers(), &x, &logits),
    ];
    for (network, layers, input, whole) in networks {
        for layer in 0..layers.len() {
            let (mut lower, mut upper) = Subnetwork::split_after(network, layer).unwrap();
            let middle = lower.eval(input, Keep::Nothing).unwrap();
            let end = upper.eval(&middle, Keep::Nothing).unwrap();
            // Batch norm may be fused into the layer or into the next one: equal up to rounding.
            assert_eq!(values(&end).len(), values(whole).len());
            for (end, whole) in values(&end).iter().zip(values(whole)) {
                assert!((end - whole).abs() <= 1e-5, "split after {layer}: {end} {whole}");
            }
        }
    }
    let layers = model.generator_layers();
    for (name, expected) in
        [("project", Some(0)), ("blocks.0", Some(1)), ("0", Some(1)), ("1", None), ("head", None)]
    {
        assert_eq!(find_block(layers, name).ok(), expected, "{name}");
    }
    let message = find_block(layers, "blocks.7").unwrap_err().to_string();
    assert_eq!(message, "there is no block \"blocks.7\", expected one of project, blocks.0");
}

/// A pixel is in the receptive field if and only if the gradient with respect to it is not zero.
#[test]
fn receptive_fields_match_gradients() {
    let (model, _, discriminator) = networks(7);
    let x = images(&model, 1);
    for layer in 0..model.discriminator_layers().len() - 1 {
        let mut lower = Subnetwork::up_to(discriminator.network(), layer).unwrap();
        let maps = lower.eval(&x, Keep::Tape).unwrap();
        let (_, channels, height, width) = maps.dims4().unwrap();
        for (row, column) in [(0, 0), (height - 1, 0), (height / 2, width - 1)] {
            let mut grad_output = vec![0.0_f32; channels * height * width];
            grad_output[row * width + column] = 1.0;
            let grad_output =
                Tensor::from_vec(grad_output, (1, channels, height, width), &Device::Cpu).unwrap();
            let grad_input = lower.backward(&grad_output).unwrap();
            let field = receptive_field(&model.discriminator_layers()[..=layer], row, column);
            let side = 12;
            for (i, &value) in values(&grad_input).iter().enumerate() {
                let (y, x) = ((i / side % side) as i64, (i % side) as i64);
                let inside = (field.top..field.top + field.height as i64).contains(&y)
                    && (field.left..field.left + field.width as i64).contains(&x);
                assert_eq!(value != 0.0, inside, "layer {layer}, ({row}, {column}), pixel ({y}, {x})");
            }
        }
    }
    // pytorch64: 4, then 4 + 3 * 2, + 3 * 4, + 3 * 8.
    let layers = Preset::named("pytorch64").unwrap().model().unwrap();
    let sides: Vec<usize> =
        (0..4).map(|layer| receptive_field(&layers.discriminator_layers()[..=layer], 0, 0).height).collect();
    assert_eq!(sides, [4, 10, 22, 46]);
}

#[test]
fn crops_are_resized_to_the_largest_size_that_fits() {
    let shape = (4, 6, 1).into();
    let image: Vec<u8> = (1..=24).collect();
    let field = |top, left, height, width| ReceptiveField { top, left, height, width };
    let rows: &[(ReceptiveField, [u8; 24])] = &[
        (field(0, 0, 4, 6), std::array::from_fn(|i| i as u8 + 1)),
        // 2 x 2 from the corner, twice as large, in the center of the columns.
        (field(0, 0, 2, 2), [0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2, 0, 0, 7, 7, 8, 8, 0, 0, 7, 7, 8, 8, 0]),
        // Half of the rows and columns beyond the upper left corner.
        (field(-1, -1, 2, 2), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0]),
        (field(0, 0, 0, 2), [0; 24]),
    ];
    for (field, expected) in rows {
        assert_eq!(crop_resized(&image, shape, *field, 0), expected, "{field:?}");
    }
}

#[test]
fn max_activations_are_in_order() {
    // Two channels of 1 x 2 over four images in two batches.
    let batch = |values: &[f32]| {
        Tensor::from_vec(values.to_vec(), (values.len() / 4, 2, 1, 2), &Device::Cpu).unwrap()
    };
    let mut maxima = MaxActivations::new(2, 3);
    maxima.add(&batch(&[1.0, 2.0, -1.0, -3.0, 5.0, 5.0, 0.0, 0.5]), 0).unwrap();
    maxima.add(&batch(&[2.0, 0.0, 7.0, 8.0, 0.0, 3.0, 0.5, 0.5]), 2).unwrap();
    let found = |channel: usize| -> Vec<(f32, usize, usize)> {
        maxima.of(channel).iter().map(|m| (m.value, m.image, m.index.column)).collect()
    };
    assert_eq!(found(0), [(5.0, 1, 0), (3.0, 3, 1), (2.0, 0, 1)]);
    assert_eq!(found(1), [(8.0, 2, 1), (0.5, 1, 1), (0.5, 3, 0)]);
    assert_eq!((maxima.most_active(1), maxima.most_active(9)), (vec![0], vec![0, 1]));
    assert!(maxima.of(2).is_empty());
    let other = Tensor::zeros((1, 3, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(matches!(maxima.add(&other, 0), Err(MaxActivationsError::Channels { expected: 2, found: 3 })));
}

/// Removing feature maps equals multiplying them by zero between the two subnetworks.
#[test]
fn removed_feature_maps_are_zero() {
    for (block, layer) in [("project", 0), ("blocks.0", 1)] {
        let (model, mut generator, _) = networks(11);
        let z = latents(&model, 4, 5);
        let whole = values(&samples(&mut generator, &z));
        let (mut lower, mut upper) = Subnetwork::split_after(generator.network(), layer).unwrap();
        let maps = latent_maps(&z);
        let middle = lower.eval(&maps, Keep::Nothing).unwrap();
        let channels = middle.dim(1).unwrap();
        let mask: Vec<f32> = (0..channels).map(|c| if c == 1 { 0.0 } else { 1.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, channels, 1, 1), &Device::Cpu).unwrap();
        let masked = middle.broadcast_mul(&mask).unwrap();
        let expected = values(&upper.eval(&masked, Keep::Nothing).unwrap());

        let none = Filters { block: block.to_owned(), channels, maps: vec![] };
        none.remove_from(&mut generator).unwrap();
        assert_eq!(values(&samples(&mut generator, &z)), whole, "nothing removed");
        let filters = Filters { block: block.to_owned(), channels, maps: vec![1] };
        filters.remove_from(&mut generator).unwrap();
        let removed = values(&samples(&mut generator, &z));
        assert_ne!(removed, whole, "feature map 1 of {block} has an effect");
        for (removed, expected) in removed.iter().zip(&expected) {
            assert!((removed - expected).abs() <= 1e-5, "{block}: {removed} {expected}");
        }
        let beyond = Filters { block: block.to_owned(), channels, maps: vec![0, channels] };
        let message = beyond.remove_from(&mut generator).unwrap_err().to_string();
        assert!(message.contains(&format!("there is no map {channels}")), "{message}");
    }
}

#[test]
fn positions_are_activations_inside_and_outside_boxes() {
    let (model, generator, _) = networks(13);
    let object = |sample, x, y, width, height| BoundingBox { sample, x, y, width, height };
    // Sample 6 first: the order of the boxes does not matter. The map of blocks.0 is 6 x 6, a position 2 x 2 pixels.
    let boxes = BoundingBoxes { seed: 9, boxes: vec![object(6, 0, 0, 12, 10), object(2, 4, 6, 2, 4)] };
    let found = sample_positions(&generator, 1, &model, &boxes).unwrap();
    let insides: Vec<usize> = found.inside.iter().map(|&inside| usize::from(inside)).collect();
    // Sample 2: two positions inside and two of the 34 outside. Sample 6: 30 inside, and all 6 outside.
    assert_eq!(insides, [vec![1; 2], vec![0; 2], vec![1; 30], vec![0; 6]].concat());
    let z = latent_maps(&latents(&model, 9, 7));
    let maps = Subnetwork::up_to(generator.network(), 1).unwrap().eval(&z, Keep::Nothing).unwrap();
    let at = |sample: usize, row: usize, column: usize| -> Vec<f32> {
        (0..found.channels)
            .map(|map| {
                maps.get(sample)
                    .unwrap()
                    .get(map)
                    .unwrap()
                    .get(row)
                    .unwrap()
                    .get(column)
                    .unwrap()
                    .to_scalar()
                    .unwrap()
            })
            .collect()
    };
    let rows: Vec<&[f32]> = found.values.chunks(found.channels).collect();
    assert_eq!((rows[0], rows[1]), (at(2, 3, 2).as_slice(), at(2, 4, 2).as_slice()));
    assert_eq!(rows[4], at(6, 0, 0));
    let mut outside: Vec<Vec<f32>> = rows[34..].iter().map(|row| row.to_vec()).collect();
    let mut expected: Vec<Vec<f32>> = (0..6).map(|column| at(6, 5, column)).collect();
    let order = |a: &Vec<f32>, b: &Vec<f32>| a.partial_cmp(b).unwrap();
    outside.sort_by(order);
    expected.sort_by(order);
    assert_eq!(outside, expected);
    assert_eq!(sample_positions(&generator, 1, &model, &boxes).unwrap(), found, "the same again");
    let everything = BoundingBoxes { seed: 9, boxes: vec![object(0, 0, 0, 12, 12)] };
    assert!(sample_positions(&generator, 1, &model, &everything).unwrap_err().to_string().contains("cover"));
}

#[test]
fn feature_maps_that_correlate_with_boxes_are_found() {
    // Map 0 is high outside, map 2 high inside, map 3 slightly higher inside, map 1 uncorrelated.
    let inside: Vec<bool> = (0..40).map(|i| i % 2 == 0).collect();
    let row = |(i, &inside): (usize, &bool)| {
        let sign = if inside { 1.0 } else { -1.0 };
        [
            -sign + (i % 5) as f32 * 0.1,
            (i / 2 % 3) as f32,
            sign + (i % 7) as f32 * 0.1,
            0.3 * sign + (i % 3) as f32,
        ]
    };
    let values = inside.iter().enumerate().flat_map(row).collect();
    let positions = Positions { values, channels: 4, inside };
    let (all, regression) = find_feature_maps(&positions, 1.0, None).unwrap();
    assert!(all.contains(&2) && !all.contains(&0), "{all:?}");
    assert_eq!(regression.accuracy, 1.0);
    assert_eq!(find_feature_maps(&positions, 1.0, Some(1)).unwrap().0, [2]);
    let alone = Positions {
        values: positions.values.chunks(4).map(|row| row[0]).collect(),
        channels: 1,
        inside: positions.inside.clone(),
    };
    assert!(find_feature_maps(&alone, 1.0, None).unwrap_err().to_string().contains("positive weight"));
}
