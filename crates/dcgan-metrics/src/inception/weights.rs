//! Files of Inception weights: PyTorch's names, those of TensorFlow's graph, in every format that dcgan-model reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dcgan_base::digest::file_sha256;
use dcgan_model::import::tensors;
use dcgan_model::weights::HostTensor;

use super::architecture::{CLASSES, Conv, FEATURES, convolutions};
use crate::error::MetricsError;

/// The weights of the network.
#[derive(Clone, Debug)]
pub struct InceptionWeights {
    pub(crate) convs: BTreeMap<String, ConvWeights>,
    /// `(classes, features)`; the logits of the Inception score have no bias.
    pub(crate) logits: HostTensor,
    sha256: String,
}

/// A convolution and its batch norm.
#[derive(Clone, Debug)]
pub(crate) struct ConvWeights {
    /// `(out, in, kh, kw)`.
    pub(crate) weight: HostTensor,
    /// Batch norm weight; none where the network has no such parameter.
    pub(crate) norm_weight: Option<HostTensor>,
    pub(crate) norm_bias: HostTensor,
    pub(crate) mean: HostTensor,
    pub(crate) var: HostTensor,
}

/// How a file names the tensors of a convolution.
#[derive(Clone, Copy, Debug)]
enum Naming {
    /// `Mixed_5b.branch1x1.conv.weight`, `.bn.running_mean` and so on.
    PyTorch,
    /// `layers.mixed.conv.weight`, `.beta`, `.mean`, `.var`.
    Graph,
}

impl InceptionWeights {
    /// Reads `pt_inception-2015-12-05-6726825d.pth`, torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`,
    /// NVIDIA's `inception-2015-12-05.pt`, or the same tensors as safetensors.
    ///
    /// # Errors
    /// A file that cannot be read; [`MetricsError::Weights`] with every tensor that is missing or has another shape.
    pub fn read(path: &Path) -> Result<Self, MetricsError> {
        let mut found: BTreeMap<String, HostTensor> =
            tensors(path)?.into_iter().map(|(name, tensor)| (plain(&name), tensor)).collect();
        let naming = if found.keys().any(|name| name.starts_with("mixed_") || name.contains("layers_mixed_"))
        {
            Naming::Graph
        } else {
            Naming::PyTorch
        };
        let mut faults = Vec::new();
        let mut take = |name: &str, shape: &[usize], is_needed: bool| {
            let name = plain(name);
            match found.remove(&name) {
                Some(tensor) if tensor.shape == shape => Some(tensor),
                Some(tensor) => {
                    faults.push(format!("{name} has the shape {:?}, expected {shape:?}", tensor.shape));
                    None
                }
                None => {
                    if is_needed {
                        faults.push(format!("{name} is missing, expected the shape {shape:?}"));
                    }
                    None
                }
            }
        };
        let mut convs = BTreeMap::new();
        for (conv, inputs) in convolutions() {
            if let Some(weights) = conv_weights(&conv, inputs, naming, &mut take) {
                convs.insert(conv.name.clone(), weights);
            }
        }
        let name = match naming {
            Naming::PyTorch => "fc.weight",
            Naming::Graph => "output.weight",
        };
        let logits = take(name, &[CLASSES, FEATURES], true);
        match logits {
            Some(logits) if faults.is_empty() => {
                let sha256 =
                    file_sha256(path).map_err(|source| MetricsError::Io { path: path.to_owned(), source })?;
                Ok(Self { convs, logits, sha256 })
            }
            _ => Err(MetricsError::Weights { path: path.to_owned(), faults }),
        }
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// Where the weights can be had, for messages.
pub const WEIGHTS_SOURCE: &str = "the Inception weights are a file of your own: pt_inception-2015-12-05-6726825d.pth \
     of github.com/mseitzer/pytorch-fid/releases, or weights-inception-2015-12-05-6726825d.pth of \
     github.com/toshas/torch-fidelity/releases";

fn conv_weights(
    conv: &Conv,
    inputs: usize,
    naming: Naming,
    take: &mut impl FnMut(&str, &[usize], bool) -> Option<HostTensor>,
) -> Option<ConvWeights> {
    let (prefix, names) = match naming {
        Naming::PyTorch => {
            (conv.name.clone(), ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"])
        }
        Naming::Graph => (format!("layers.{}", conv.graph_name), ["weight", "gamma", "beta", "mean", "var"]),
    };
    let [weight, norm_weight, norm_bias, mean, var] = names.map(|name| format!("{prefix}.{name}"));
    let channels = [conv.outputs];
    let weight = take(&weight, &[conv.outputs, inputs, conv.kernel.0, conv.kernel.1], true);
    let is_norm_weight_needed = matches!(naming, Naming::PyTorch);
    let norm_weight = take(&norm_weight, &channels, is_norm_weight_needed);
    let norm_bias = take(&norm_bias, &channels, true);
    let mean = take(&mean, &channels, true);
    let var = take(&var, &channels, true);
    Some(ConvWeights { weight: weight?, norm_weight, norm_bias: norm_bias?, mean: mean?, var: var? })
}

/// A name with `_` for every separator: files differ in them.
fn plain(name: &str) -> String {
    name.replace(['.', '/'], "_")
}

/// Name of the environment variable that names the weights file.
pub const WEIGHTS_VARIABLE: &str = "DCGAN_INCEPTION";

/// The weights file that the environment names.
pub fn default_weights() -> Option<PathBuf> {
    std::env::var_os(WEIGHTS_VARIABLE).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
}
