//! Names of tensors in files: their parts, their order, and the network that they suggest.

use std::fmt::{self, Display};

use crate::weights::HostTensor;

/// Which of the two networks of a DCGAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// G, from z to an image.
    Generator,
    /// D, from an image to a logit.
    Discriminator,
}

impl Display for NetworkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Generator => "generator",
            Self::Discriminator => "discriminator",
        })
    }
}

impl NetworkKind {
    /// The network that a key, a prefix or a file name suggests, if any: `netG`, `generator`, `disc.main`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        name.split(['/', '.']).find_map(|part| {
            let part = part.to_ascii_lowercase();
            let is = |whole: &str, starts: [&str; 2]| {
                part == whole || starts.iter().any(|start| part.starts_with(start))
            };
            if is("g", ["gen", "g_"]) || part.starts_with("netg") {
                Some(Self::Generator)
            } else if is("d", ["dis", "d_"]) || part.starts_with("netd") {
                Some(Self::Discriminator)
            } else {
                None
            }
        })
    }
}

/// The last part of the names of batch norm's tensors, in PyTorch's files as in this program's.
pub(crate) const NORM_LEAVES: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The name of a tensor in the file and the tensor, in the order of the file.
pub(crate) type NamedTensor<'a> = (&'a str, &'a HostTensor);

/// `main.0` of `main.0.weight`.
pub(crate) fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

/// `weight` of `main.0.weight`.
pub(crate) fn leaf(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, leaf)| leaf)
}

/// The longest common prefix of all names that ends with a dot: `module.main.`.
pub(crate) fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some((first, others)) = names.split_first() else { return "" };
    let mut ends = first.match_indices('.').map(|(at, _)| at + 1);
    let shared = ends.rfind(|end| others.iter().all(|other| other.starts_with(&first[..*end])));
    &first[..shared.unwrap_or(0)]
}

/// A sort key that orders `main.10` after `main.2`, and `conv10` after `conv2`.
pub(crate) fn natural_key(name: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    for part in name.split('.') {
        let mut rest = part;
        while let Some(letter) = rest.chars().next() {
            let is_digit = letter.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            parts.push((run.parse().unwrap_or(usize::MAX), run));
            rest = after;
        }
        parts.push((0, ""));
    }
    parts
}

/// The prefix and the number of a module in a Sequential: `main.` and `3` of `main.3`.
pub(crate) fn numbered(module: &str) -> Option<(&str, usize)> {
    let start = module.rfind('.').map_or(0, |dot| dot + 1);
    Some((&module[..start], module[start..].parse().ok()?))
}
