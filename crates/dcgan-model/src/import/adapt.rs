//! Biases that a file has and the configuration given does not.

use super::groups::Group;
use super::layers::FileNetwork;
use super::names::NetworkKind;
use crate::config::OnLayers;
use crate::{Model, ModelConfig};
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
