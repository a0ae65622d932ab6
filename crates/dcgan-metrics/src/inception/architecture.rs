//! The Inception network of the Fréchet Inception distance as data (Szegedy et al. 2015, "Rethinking the Inception
//! Architecture"; weights `inception-2015-12-05` of TensorFlow).
//!
//! It differs from torchvision's `inception_v3`: average pools do not count padding, and the last block takes a maximum
//! where the one before it takes an average.

/// Rows and columns of the input.
pub(crate) const SIDE: usize = 299;

/// Length of a feature vector: the mean of the last feature maps.
pub const FEATURES: usize = 2048;

/// Classes of the logits.
pub const CLASSES: usize = 1008;

/// A convolution without bias, batch norm (eps 1e-3) and ReLU.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    /// The name in PyTorch's files, such as `Mixed_5b.branch1x1`.
    pub(crate) name: String,
    /// The name in TensorFlow's graph, with `_`, such as `mixed_tower_conv_1`.
    pub(crate) graph_name: String,
    pub(crate) outputs: usize,
    /// Rows and columns.
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: usize,
    /// Zero rows above and below, zero columns left and right.
    pub(crate) padding: (usize, usize),
}

/// A part of the network.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Convolutions, one after the other.
    Convs(Vec<Conv>),
    /// The maximum of 3x3 windows.
    MaxPool { stride: usize, padding: usize },
    /// The average of 3x3 windows, stride 1, over the cells that are inside.
    AveragePool,
    /// Paths with the same input, whose outputs are concatenated along the channels.
    Branches(Vec<Vec<Part>>),
}

/// All parts in order. The features are the mean over rows and columns of the output.
pub(crate) fn parts() -> Vec<Part> {
    let stem = |name: &str, graph_name: &str, outputs, side, stride, padding| Conv {
        name: name.to_owned(),
        graph_name: graph_name.to_owned(),
        outputs,
        kernel: (side, side),
        stride,
        padding: (padding, padding),
    };
    vec![
        Part::Convs(vec![
            stem("Conv2d_1a_3x3", "conv", 32, 3, 2, 0),
            stem("Conv2d_2a_3x3", "conv_1", 32, 3, 1, 0),
            stem("Conv2d_2b_3x3", "conv_2", 64, 3, 1, 1),
        ]),
        Part::MaxPool { stride: 2, padding: 0 },
        Part::Convs(vec![
            stem("Conv2d_3b_1x1", "conv_3", 80, 1, 1, 0),
            stem("Conv2d_4a_3x3", "conv_4", 192, 3, 1, 0),
        ]),
        Part::MaxPool { stride: 2, padding: 0 },
        block_a(&Block("Mixed_5b", "mixed"), 32),
        block_a(&Block("Mixed_5c", "mixed_1"), 64),
        block_a(&Block("Mixed_5d", "mixed_2"), 64),
        block_b(&Block("Mixed_6a", "mixed_3")),
        block_c(&Block("Mixed_6b", "mixed_4"), 128),
        block_c(&Block("Mixed_6c", "mixed_5"), 160),
        block_c(&Block("Mixed_6d", "mixed_6"), 160),
        block_c(&Block("Mixed_6e", "mixed_7"), 192),
        block_d(&Block("Mixed_7a", "mixed_8")),
        block_e(&Block("Mixed_7b", "mixed_9"), Part::AveragePool),
        block_e(&Block("Mixed_7c", "mixed_10"), Part::MaxPool { stride: 1, padding: 1 }),
    ]
}

/// The names of a block in both kinds of files.
struct Block(&'static str, &'static str);

impl Block {
    /// A convolution with stride 1 that keeps the size.
    fn conv(&self, name: &str, graph_name: &str, outputs: usize, kernel: (usize, usize)) -> Conv {
        Conv {
            name: format!("{}.{name}", self.0),
            graph_name: format!("{}_{graph_name}", self.1),
            outputs,
            kernel,
            stride: 1,
            padding: (kernel.0 / 2, kernel.1 / 2),
        }
    }

    /// A 3x3 convolution with stride 2, without padding.
    fn halving(&self, name: &str, graph_name: &str, outputs: usize) -> Conv {
        Conv { stride: 2, padding: (0, 0), ..self.conv(name, graph_name, outputs, (3, 3)) }
    }

    fn pooled(&self, pool: Part, outputs: usize) -> Vec<Part> {
        vec![pool, Part::Convs(vec![self.conv("branch_pool", "tower_2_conv", outputs, (1, 1))])]
    }
}

fn block_a(block: &Block, pool_outputs: usize) -> Part {
    Part::Branches(vec![
        vec![Part::Convs(vec![block.conv("branch1x1", "conv", 64, (1, 1))])],
        vec![Part::Convs(vec![
            block.conv("branch5x5_1", "tower_conv", 48, (1, 1)),
            block.conv("branch5x5_2", "tower_conv_1", 64, (5, 5)),
        ])],
        vec![Part::Convs(vec![
            block.conv("branch3x3dbl_1", "tower_1_conv", 64, (1, 1)),
            block.conv("branch3x3dbl_2", "tower_1_conv_1", 96, (3, 3)),
            block.conv("branch3x3dbl_3", "tower_1_conv_2", 96, (3, 3)),
        ])],
        block.pooled(Part::AveragePool, pool_outputs),
    ])
}

fn block_b(block: &Block) -> Part {
    Part::Branches(vec![
        vec![Part::Convs(vec![block.halving("branch3x3", "conv", 384)])],
        vec![Part::Convs(vec![
            block.conv("branch3x3dbl_1", "tower_conv", 64, (1, 1)),
            block.conv("branch3x3dbl_2", "tower_conv_1", 96, (3, 3)),
            block.halving("branch3x3dbl_3", "tower_conv_2", 96),
        ])],
        vec![Part::MaxPool { stride: 2, padding: 0 }],
    ])
}

fn block_c(block: &Block, inner: usize) -> Part {
    Part::Branches(vec![
        vec![Part::Convs(vec![block.conv("branch1x1", "conv", 192, (1, 1))])],
        vec![Part::Convs(vec![
            block.conv("branch7x7_1", "tower_conv", inner, (1, 1)),
            block.conv("branch7x7_2", "tower_conv_1", inner, (1, 7)),
            block.conv("branch7x7_3", "tower_conv_2", 192, (7, 1)),
        ])],
        vec![Part::Convs(vec![
            block.conv("branch7x7dbl_1", "tower_1_conv", inner, (1, 1)),
            block.conv("branch7x7dbl_2", "tower_1_conv_1", inner, (7, 1)),
            block.conv("branch7x7dbl_3", "tower_1_conv_2", inner, (1, 7)),
            block.conv("branch7x7dbl_4", "tower_1_conv_3", inner, (7, 1)),
            block.conv("branch7x7dbl_5", "tower_1_conv_4", 192, (1, 7)),
        ])],
        block.pooled(Part::AveragePool, 192),
    ])
}

fn block_d(block: &Block) -> Part {
    Part::Branches(vec![
        vec![Part::Convs(vec![
            block.conv("branch3x3_1", "tower_conv", 192, (1, 1)),
            block.halving("branch3x3_2", "tower_conv_1", 320),
        ])],
        vec![Part::Convs(vec![
            block.conv("branch7x7x3_1", "tower_1_conv", 192, (1, 1)),
            block.conv("branch7x7x3_2", "tower_1_conv_1", 192, (1, 7)),
            block.conv("branch7x7x3_3", "tower_1_conv_2", 192, (7, 1)),
            block.halving("branch7x7x3_4", "tower_1_conv_3", 192),
        ])],
        vec![Part::MaxPool { stride: 2, padding: 0 }],
    ])
}

fn block_e(block: &Block, pool: Part) -> Part {
    let split =
        |a: Conv, b: Conv| Part::Branches(vec![vec![Part::Convs(vec![a])], vec![Part::Convs(vec![b])]]);
    Part::Branches(vec![
        vec![Part::Convs(vec![block.conv("branch1x1", "conv", 320, (1, 1))])],
        vec![
            Part::Convs(vec![block.conv("branch3x3_1", "tower_conv", 384, (1, 1))]),
            split(
                block.conv("branch3x3_2a", "tower_mixed_conv", 384, (1, 3)),
                block.conv("branch3x3_2b", "tower_mixed_conv_1", 384, (3, 1)),
            ),
        ],
        vec![
            Part::Convs(vec![
                block.conv("branch3x3dbl_1", "tower_1_conv", 448, (1, 1)),
                block.conv("branch3x3dbl_2", "tower_1_conv_1", 384, (3, 3)),
            ]),
            split(
                block.conv("branch3x3dbl_3a", "tower_1_mixed_conv", 384, (1, 3)),
                block.conv("branch3x3dbl_3b", "tower_1_mixed_conv_1", 384, (3, 1)),
            ),
        ],
        block.pooled(pool, 192),
    ])
}

/// All convolutions with the channels that they read.
pub(crate) fn convolutions() -> Vec<(Conv, usize)> {
    let mut found = Vec::new();
    outputs(&parts(), 3, &mut found);
    found
}

/// The names and the shape of one convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvolutionShape {
    /// In PyTorch's files.
    pub name: String,
    /// In TensorFlow's graph, with `_` between parts.
    pub graph_name: String,
    /// `(out, in, kh, kw)`.
    pub weight: [usize; 4],
}

/// The convolutions of the network.
pub fn convolution_shapes() -> Vec<ConvolutionShape> {
    let shape = |(conv, inputs): (Conv, usize)| ConvolutionShape {
        weight: [conv.outputs, inputs, conv.kernel.0, conv.kernel.1],
        name: conv.name,
        graph_name: conv.graph_name,
    };
    convolutions().into_iter().map(shape).collect()
}

/// Channels after `parts`; adds their convolutions to `found`.
fn outputs(parts: &[Part], inputs: usize, found: &mut Vec<(Conv, usize)>) -> usize {
    parts.iter().fold(inputs, |inputs, part| match part {
        Part::Convs(convs) => convs.iter().fold(inputs, |inputs, conv| {
            found.push((conv.clone(), inputs));
            conv.outputs
        }),
        Part::MaxPool { .. } | Part::AveragePool => inputs,
        Part::Branches(branches) => branches.iter().map(|branch| outputs(branch, inputs, found)).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_has_94_convolutions() {
        let found = convolutions();
        assert_eq!(found.len(), 94);
        let values: usize = found
            .iter()
            .map(|(conv, inputs)| conv.outputs * (inputs * conv.kernel.0 * conv.kernel.1 + 4))
            .sum();
        // 95.5 MB with the last layer.
        assert_eq!((values + CLASSES * (FEATURES + 1)) * 4 / 100_000, 955);
        assert_eq!(outputs(&parts(), 3, &mut Vec::new()), FEATURES);
    }
}
