//! A random-feature Fréchet distance that needs no download, and the diversity of a grid.
//!
//! The metric is the Fréchet distance, with diagonal covariances, between features of 2,048 real and 2,048 generated
//! images. The features come from a fixed convolutional network with random weights: the same for every run on images
//! of one size, whatever the seed. It serves to compare checkpoints of one dataset (lower is better; it rises when
//! samples blur, lose colors or collapse). Its scale is the distance between two disjoint halves of the real images,
//! which perfect samples would have. It is **not** the FID of the literature, which uses a trained Inception network:
//! the two scales have nothing to do with each other.

use candle_core::Tensor;
use dcgan_data::{DataError, Dataset, ImageShape};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Latents, ModelConfig, NetworkError, pixels};
use dcgan_ops::{
    Activation, BufferPool, Device, ExecutorOptions, Keep, Kind, Layer, MapShape, Maps, Mode, Network,
    OpsError, Statistics,
};
use rayon::prelude::*;

/// Images on each side, where the dataset has as many.
pub const IMAGES: usize = 2048;
const BATCH: usize = 64;
/// Channels of the random network's layers.
const CHANNELS: [usize; 3] = [32, 64, 128];
/// The network and the choice of images do not depend on the run's seed: values of two runs can be compared.
const SEED: u64 = 0;

/// Mean and variance of features.
#[derive(Clone, Debug)]
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

/// The metric for images of one shape, with the real images' moments.
#[derive(Debug)]
pub struct RandomFeatureFrechet {
    network: Network,
    real: Moments,
    count: usize,
    /// Class labels of the real images, which samples of a conditional generator take.
    labels: Option<Vec<u32>>,
    real_frechet: Option<f64>,
}

/// Why the distance could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum FrechetError {
    /// An image could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl From<OpsError> for FrechetError {
    fn from(error: OpsError) -> Self {
        Self::Network(error.into())
    }
}

impl From<candle_core::Error> for FrechetError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

impl RandomFeatureFrechet {
    /// Builds the random network and measures the real images, of the shape of `config`'s: up to [`IMAGES`] for the
    /// comparison with samples, and as many others to compare real images with real ones.
    ///
    /// # Errors
    /// An image that cannot be read; memory.
    pub fn new(data: &Dataset, config: &ModelConfig, device: &Device) -> Result<Self, FrechetError> {
        let shape = data.shape();
        let mut network = Network::new(layers(shape), &ExecutorOptions::new(device))?;
        let mut weights = dcgan_ops::Tensors::new();
        for (i, spec) in (0..).zip(layers(shape).iter().flat_map(Layer::parameters)) {
            let n: usize = spec.shape.iter().product();
            let fan_in = n / spec.shape[0];
            // He et al. 2015: keeps the size of activations from layer to layer.
            let std = (2.0 / fan_in as f32).sqrt();
            let values = random::normal(&mut random::stream(SEED, Purpose::FrechetWeights, i), n, 0.0, std);
            weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &candle_core::Device::Cpu)?);
        }
        network.parameters_mut().set(&weights)?;
        let pool = BufferPool::new();
        let mut moments = |chosen: &[usize]| real_moments(data, config, &mut network, &pool, chosen);
        let drawn = draw(data.len(), 2 * IMAGES);
        let count = drawn.len().min(IMAGES);
        let real = moments(&drawn[..count])?;
        let half = drawn.len() / 2;
        let real_frechet = if half == 0 {
            None
        } else {
            let first = if half == count { real.clone() } else { moments(&drawn[..half])? };
            let between = distance(&first, &moments(&drawn[half..2 * half])?);
            // The expected distance between two sets of one distribution is about proportional to 1 / size.
            Some(between * half as f64 / count as f64)
        };
        let labels = data.labels().map(|labels| drawn[..count].iter().map(|&i| labels[i]).collect());
        Ok(Self { network, real, count, labels, real_frechet })
    }

    /// The distance between two disjoint sets of real images of [`IMAGES`] each, which perfect samples would have. Of
    /// fewer than 2 [`IMAGES`] images, the distance between halves of the dataset is scaled to the number of samples.
    /// None for a dataset of one image.
    pub fn real_frechet(&self) -> Option<f64> {
        self.real_frechet
    }

    /// Fréchet distance of as many generated images, drawn in evaluation mode from z that depend on `seed` alone. A
    /// conditional generator draws the classes of the real images.
    ///
    /// # Errors
    /// A generator without statistics; memory.
    pub fn frechet(&mut self, generator: &mut Generator, seed: u64) -> Result<f64, FrechetError> {
        let (latent, classes) = {
            let config = generator.model().config();
            (config.latent.clone(), config.classes)
        };
        let z = random::latent_each(seed, Purpose::FrechetLatent, self.count, &latent);
        let mut sums = Sums::default();
        let labels = self.labels.as_deref().filter(|_| classes > 0);
        for (i, z) in z.chunks(BATCH * latent.size).enumerate() {
            let mut latents = Latents::new(z.to_vec(), latent.size)?;
            if let Some(labels) = labels {
                let images = i * BATCH..i * BATCH + latents.n();
                latents = latents.with_labels(&labels[images], classes)?;
            }
            sums.add(&features(&mut self.network, &generator.sample(&latents)?)?);
        }
        Ok(distance(&self.real, &sums.moments()))
    }
}

/// Three 4x4 convolutions with stride 2 (fewer for tiny images), LeakyReLU 0.2.
fn layers(shape: ImageShape) -> Vec<Layer> {
    let mut input = MapShape::new(shape.channels, shape.height, shape.width);
    let mut layers = Vec::new();
    for (i, channels) in CHANNELS.into_iter().enumerate() {
        let side = |side| Layer::output_side(Kind::Conv, side, 4, 2, 1, 0).filter(|&side| side > 0);
        let (Some(height), Some(width)) = (side(input.height), side(input.width)) else { break };
        let output = MapShape::new(channels, height, width);
        layers.push(Layer {
            kernel: (4, 4),
            stride: 2,
            padding: (1, 1),
            activation: Activation::LeakyRelu(0.2),
            ..Layer::plain(format!("blocks.{i}"), Kind::Conv, input, output)
        });
        input = output;
    }
    layers
}

/// The real images of a metric: at most `count` below `n`, the same for every run.
pub(crate) fn draw(n: usize, count: usize) -> Vec<usize> {
    random::choose(&mut random::stream(SEED, Purpose::FrechetImages, 0), n, count)
}

/// Moments of the features of some images. The order of `chosen` does not matter.
fn real_moments(
    data: &Dataset,
    config: &ModelConfig,
    network: &mut Network,
    pool: &BufferPool,
    chosen: &[usize],
) -> Result<Moments, FrechetError> {
    let mut chosen = chosen.to_vec();
    chosen.sort_unstable();
    let mut sums = Sums::default();
    let len = data.shape().bytes();
    for part in chosen.chunks(BATCH) {
        let mut bytes = vec![0; part.len() * len];
        let images = part.par_iter().zip(bytes.par_chunks_mut(len));
        images.try_for_each(|(&index, image)| data.read(index, image))?;
        sums.add(&features(network, &pixels::to_maps(&bytes, config, pool)?)?);
    }
    Ok(sums.moments())
}

/// Mean of every feature map over each quarter of the image, `(n, d)`: colors and textures, and roughly where.
fn features(network: &mut Network, x: &Maps) -> Result<Vec<Vec<f32>>, OpsError> {
    let forward = network.forward(x, Mode::Eval(&Statistics::new()), Keep::Activations)?;
    let mut rows = vec![Vec::new(); x.n()];
    for maps in forward.activations {
        let map = maps.to_tensor()?;
        let (_, _, height, width) = map.dims4()?;
        for (rows_of, columns_of) in halves(height).into_iter().flat_map(|h| halves(width).map(|w| (h, w))) {
            let part = map.narrow(2, rows_of.0, rows_of.1)?.narrow(3, columns_of.0, columns_of.1)?;
            let means = part.contiguous()?.mean((2, 3))?.to_vec2::<f32>()?;
            rows.iter_mut().zip(means).for_each(|(row, means)| row.extend(means));
        }
    }
    Ok(rows)
}

/// Start and length of both halves of a side; of a side of one, that one twice.
fn halves(side: usize) -> [(usize, usize); 2] {
    let half = side.div_ceil(2);
    [(0, half), (side - half, half)]
}

#[derive(Default)]
struct Sums {
    n: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn add(&mut self, rows: &[Vec<f32>]) {
        for row in rows {
            self.sum.resize(row.len(), 0.0);
            self.squares.resize(row.len(), 0.0);
            for ((s, q), &value) in self.sum.iter_mut().zip(&mut self.squares).zip(row) {
                *s += f64::from(value);
                *q += f64::from(value) * f64::from(value);
            }
            self.n += 1.0;
        }
    }

    fn moments(&self) -> Moments {
        let mean: Vec<f64> = self.sum.iter().map(|s| s / self.n).collect();
        let variance = self.squares.iter().zip(&mean).map(|(q, m)| (q / self.n - m * m).max(0.0)).collect();
        Moments { mean, variance }
    }
}

/// Fréchet distance of two Gaussians with diagonal covariances: `|m1 - m2|^2 + |s1 - s2|^2`.
fn distance(a: &Moments, b: &Moments) -> f64 {
    let squares = |a: f64, b: f64| (a - b) * (a - b);
    let means: f64 = a.mean.iter().zip(&b.mean).map(|(&a, &b)| squares(a, b)).sum();
    let deviations: f64 =
        a.variance.iter().zip(&b.variance).map(|(&a, &b)| squares(a.sqrt(), b.sqrt())).sum();
    means + deviations
}

/// Mean Euclidean distance between two of the images, bytes `(n, h, w, c)`, `len` bytes each.
pub fn mean_distance(images: &[u8], len: usize) -> f64 {
    let images: Vec<&[u8]> = images.chunks_exact(len.max(1)).collect();
    let (mut sum, mut pairs) = (0.0, 0.0_f64);
    for (i, a) in images.iter().enumerate() {
        for b in &images[i + 1..] {
            let squares: u64 = a.iter().zip(*b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
            sum += (squares as f64).sqrt();
            pairs += 1.0;
        }
    }
    sum / pairs.max(1.0)
}

/// Mean standard deviation of the values of an image, for `images` of `len` bytes each.
pub fn contrast(images: &[u8], len: usize) -> f64 {
    let images = images.chunks_exact(len.max(1));
    let n = images.len().max(1) as f64;
    let deviation = |image: &[u8]| {
        let mean = image.iter().map(|&value| f64::from(value)).sum::<f64>() / len as f64;
        (image.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / len as f64).sqrt()
    };
    images.map(deviation).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        let a = Moments { mean: vec![0.0, 1.0], variance: vec![1.0, 4.0] };
        let b = Moments { mean: vec![3.0, 1.0], variance: vec![4.0, 4.0] };
        assert_eq!(distance(&a, &b), 9.0 + 1.0);
        assert_eq!(distance(&a, &a), 0.0);
        let mut sums = Sums::default();
        sums.add(&[vec![1.0, 2.0], vec![3.0, 2.0]]);
        let Moments { mean, variance } = sums.moments();
        assert_eq!((mean, variance), (vec![2.0, 2.0], vec![1.0, 0.0]));
        assert_eq!(mean_distance(&[0, 0, 3, 4, 0, 0], 2), 10.0 / 3.0);
        assert_eq!(contrast(&[0, 2, 5, 5, 10, 20], 2), 2.0);
        let mut all = draw(5, 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        let some = draw(1000, 20);
        assert!(some.iter().max() > Some(&300) && some[..10] == draw(1000, 10));
    }

    #[test]
    fn real_images_are_near_each_other() {
        let mut config = dcgan_model::Preset::named("digits").unwrap().model;
        (config.height, config.width) = (8, 8);
        let digits = Dataset::embedded_digits(config.image_shape().into()).unwrap();
        let mut measure = RandomFeatureFrechet::new(&digits, &config, &Device::Cpu).unwrap();
        let real = measure.real_frechet().unwrap();
        // An untrained generator is far away.
        let model = dcgan_model::Model::new(config).unwrap();
        let weights = model.initial_generator(0, 0.02, 0.02);
        let mut generator = Generator::new(&model, &weights, &Device::Cpu).unwrap();
        generator.ensure_statistics().unwrap();
        let generated = measure.frechet(&mut generator, 0).unwrap();
        assert!(real > 0.0 && real < generated / 50.0, "{real} against {generated}");
    }
}
