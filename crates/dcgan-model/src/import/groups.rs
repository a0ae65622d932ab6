//! The networks in files: tensors that belong together, and which of them are the generator and the discriminator.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::chain;
use super::error::ImportError;
use super::modules::Modules;
use super::names::{NamedTensor, NetworkKind};
use super::reparametrize::{self, OwnedTensor};
use super::sources::{self, Content, Source};
use super::state_dict::ModuleRef;
use super::{location, short_list};
use crate::weights::HostTensor;

/// The tensors of one network.
pub(crate) struct Group {
    pub(crate) path: PathBuf,
    /// Where it is in its file, for messages: `netG/main`.
    pub(crate) location: String,
    pub(crate) content: GroupContent,
    /// Its modules, if the network itself was saved.
    pub(crate) modules: Modules,
    /// The network that its shapes form without fault.
    pub(crate) whole: Option<NetworkKind>,
    /// The network that its location or its file suggest.
    pub(crate) by_name: Option<NetworkKind>,
}

/// The tensors of a group.
pub(crate) enum GroupContent {
    /// By name, in the order of the file.
    Tensors(Vec<OwnedTensor>),
    /// Without names, in the order of the layers.
    Arrays(Vec<HostTensor>),
}

impl Group {
    /// Names and tensors.
    pub(crate) fn named(&self) -> Vec<NamedTensor<'_>> {
        match &self.content {
            GroupContent::Tensors(tensors) => tensors.iter().map(|(name, t)| (name.as_str(), t)).collect(),
            GroupContent::Arrays(_) => Vec::new(),
        }
    }

    /// Whether its location says that it is an average of the weights of training.
    fn is_average(&self) -> bool {
        let is_ema = |part: &str| part.eq_ignore_ascii_case("ema");
        let file = sources::file_name(&self.path);
        [self.location.as_str(), file.as_str()]
            .iter()
            .any(|name| name.split(|c: char| !c.is_ascii_alphanumeric()).any(is_ema))
    }
}

/// The networks in a file, those with averaged weights first. What is not a network becomes a note.
///
/// # Errors
/// Parametrizations that cannot be folded.
pub(crate) fn groups(source: Source, notes: &mut Vec<String>) -> Result<Vec<Group>, ImportError> {
    let Source { path, content, modules, .. } = source;
    let by_file = sources::by_file_name(&path);
    let group = |location: String, content, whole| {
        let by_name = NetworkKind::from_name(&location).or(by_file);
        Group { path: path.clone(), location, content, modules: Modules::new(), whole, by_name }
    };
    let tensors = match content {
        Content::Arrays(arrays) => {
            let location = sources::file_name(&path);
            return Ok(vec![group(location, GroupContent::Arrays(arrays), None)]);
        }
        Content::Tensors(tensors) => tensors,
    };
    let mut scopes: BTreeMap<String, Vec<OwnedTensor>> = BTreeMap::new();
    for tensor in tensors {
        scopes.entry(tensor.scope).or_default().push((tensor.name, tensor.tensor));
    }
    let mut groups = Vec::new();
    for (scope, tensors) in &scopes {
        let named: Vec<NamedTensor> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        for (prefix, part) in chain::networks(&named) {
            let place = location(scope, &prefix);
            let convolutions = chain::convolutions(&part);
            if convolutions.is_empty() {
                let names: Vec<&str> = part.iter().map(|(name, _)| *name).collect();
                notes.push(format!("skipped {} in {place}: not a network", short_list(&names)));
                continue;
            }
            let shapes: Vec<&[usize]> = convolutions.iter().map(|(_, shape)| *shape).collect();
            let whole = chain::whole_network(&part);
            let kind = whole.or_else(|| chain::resembled(&shapes));
            // Tensors outside the network, such as noise to draw samples from.
            let (inside, outside): (Vec<NamedTensor>, Vec<NamedTensor>) =
                part.iter().copied().partition(|(name, _)| prefix.is_empty() || name.starts_with(&prefix));
            if !outside.is_empty() {
                let names: Vec<&str> = outside.iter().map(|(name, _)| *name).collect();
                notes.push(format!("skipped {} beside {place}: not a network", short_list(&names)));
            }
            let owned = inside.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())).collect();
            let (tensors, folded) = reparametrize::weights(owned, kind).map_err(|unfit| {
                let (tensor, problem) = (unfit.tensor, unfit.problem);
                ImportError::Reparametrized { path: path.clone(), tensor, problem }
            })?;
            notes.extend(folded.into_iter().map(|note| format!("{place}: {note}")));
            let is_inside = |module: &&ModuleRef| {
                let rest = module.name.strip_prefix(&prefix);
                module.scope == *scope
                    && rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('.'))
            };
            let modules = modules.iter().filter(is_inside);
            let modules = modules.map(|module| (module.name.clone(), module.module.clone())).collect();
            groups.push(Group { modules, ..group(place, GroupContent::Tensors(tensors), whole) });
        }
    }
    groups.sort_by_key(|group| !group.is_average());
    Ok(groups)
}

/// Removes groups that are not needed: of several networks of one kind in a file, the first one is kept, and networks
/// of other kinds are skipped beside those of a DCGAN.
///
/// # Errors
/// Two files that hold the same network.
pub(crate) fn select(groups: Vec<Group>, notes: &mut Vec<String>) -> Result<Vec<Group>, ImportError> {
    let mut taken: Vec<Group> = Vec::new();
    let (whole, others): (Vec<Group>, Vec<Group>) =
        groups.into_iter().partition(|group| group.whole.is_some());
    for group in whole {
        let same = taken.iter().find(|other| other.whole == group.whole);
        match same {
            Some(other) if other.path != group.path => {
                let network = group.whole.unwrap_or(NetworkKind::Generator);
                let (first, second) = (other.path.clone(), group.path);
                return Err(ImportError::SameNetwork { network, first, second });
            }
            Some(other) => {
                let why = if other.is_average() { "the average of its weights" } else { "the first one" };
                notes.push(format!("skipped {}: {} is taken, {why}", group.location, other.location));
            }
            None => taken.push(group),
        }
    }
    for group in others {
        if taken.iter().any(|other| other.path == group.path && other.by_name != group.by_name)
            && group.by_name.is_none()
        {
            notes.push(format!("skipped {}: neither network of a DCGAN", group.location));
        } else {
            taken.push(group);
        }
    }
    Ok(taken)
}
