//! What a file has and the configuration given does not: biases, and the strides of saved modules.

use super::geometry;
use super::groups::Group;
use super::layers::FileNetwork;
use super::modules;
use super::names::NetworkKind;
use crate::config::OnLayers;
use crate::{BlockConfig, Model, ModelConfig};
use dcgan_ops::Layer;

/// `model` with a bias in every layer without batch norm that has one in the file, and sentences on them. The bias of a
/// layer with batch norm needs no change, since it is folded into the mean.
pub(crate) fn with_biases(model: &Model, groups: &[Group]) -> Option<(Model, Vec<String>)> {
    let mut config: ModelConfig = model.config().clone();
    let mut notes = Vec::new();
    for group in groups {
        let network = FileNetwork::new(&group.named(), group.by_name);
        let Some(kind) = network.kind else { continue };
        let (layers, bias) = match kind {
            NetworkKind::Generator => (model.generator_layers(), &mut config.generator.bias),
            NetworkKind::Discriminator => (model.discriminator_layers(), &mut config.discriminator.bias),
        };
        let is_added = |(i, layer): (usize, &Layer)| {
            let in_file = network.layers.get(i).and_then(|layer| layer.bias);
            let is_zero = in_file.is_none_or(|bias| bias.data.iter().all(|value| *value == 0.0));
            !is_zero && !layer.bias && layer.norm.is_none() && network.layers.len() == layers.len()
        };
        let added: Vec<bool> = layers.iter().enumerate().map(is_added).collect();
        if added.contains(&true) {
            let each: Vec<bool> =
                layers.iter().zip(&added).map(|(layer, added)| layer.bias || *added).collect();
            *bias = OnLayers::from(each.as_slice());
            let names: Vec<&str> = layers
                .iter()
                .zip(&added)
                .filter(|(_, added)| **added)
                .map(|(l, _)| l.name.as_str())
                .collect();
            notes.push(format!(
                "{kind}: the file has a bias in {}, the configuration given does not: it is added",
                names.join(", ")
            ));
        }
    }
    if notes.is_empty() { None } else { Some((Model::new(config).ok()?, notes)) }
}

/// Sentences on modules in the file that compute something else than the configuration given, which is used.
pub(crate) fn differences(config: &ModelConfig, groups: &[Group]) -> Vec<String> {
    let mut notes = Vec::new();
    for group in groups.iter().filter(|group| !group.modules.is_empty()) {
        let network = FileNetwork::new(&group.named(), group.by_name);
        let Some(kind) = network.kind else { continue };
        let known = match modules::known(&network, &group.modules, kind) {
            Ok(known) => known,
            Err(problem) => {
                notes.push(format!("{problem}: the configuration given is used"));
                continue;
            }
        };
        let (blocks, skipped, norm) = match kind {
            NetworkKind::Generator => {
                let generator = &config.generator;
                let first = network.layers.len().saturating_sub(generator.blocks.len());
                (&generator.blocks, first, &generator.norm)
            }
            NetworkKind::Discriminator => (&config.discriminator.blocks, 0, &config.discriminator.norm),
        };
        let differs = |(steps, block): (&Option<geometry::Steps>, &BlockConfig)| {
            steps.is_some_and(|steps| steps != (block.stride, block.padding, block.output_padding))
        };
        let layers = network.layers.iter().zip(&known.steps).skip(skipped).zip(blocks);
        let mut found: Vec<String> = layers
            .filter(|((_, steps), block)| differs((steps, block)))
            .map(|((layer, _), _)| format!("the stride or padding of {}", layer.module))
            .collect();
        let is_other = |value: Option<f64>, given: f64| value.is_some_and(|value| value != given);
        if is_other(known.eps, norm.eps) {
            found.push("eps".to_owned());
        }
        if is_other(known.negative_slope, config.discriminator.negative_slope) {
            found.push("negative_slope".to_owned());
        }
        if known.output.is_some_and(|output| output != config.generator.output) {
            found.push("the last activation".to_owned());
        }
        if !found.is_empty() {
            let found = found.join(", ");
            notes.push(format!(
                "{kind}: the modules in the file have other values than the configuration given, which is used: \
                 {found}; without --preset and --config those of the file are used"
            ));
        }
    }
    notes
}
