//! Explores what the networks of a DCGAN learned: latent space and feature maps (paper, section 6).
//!
//! Latent space:
//!
//! - [`latent`]: sets of z, drawn by seed or read from files, and their images
//! - [`interpolation`]: walks between z (figure 4)
//! - [`arithmetic`]: concepts as means of z, vector arithmetic, the "turn" vector (figures 7 and 8)
//! - [`mod@invert`]: z of given images, by gradient descent
//! - [`neighbours`]: the training images nearest to samples, which a memorizing generator would copy
//! - [`concept`] and [`attributes`]: z of a concept, from attributes of real images
//!
//! Feature maps:
//!
//! - [`subnetwork`]: consecutive layers of a network
//! - [`guided`]: guided backpropagation (figure 5)
//! - [`max_activations`]: the images with the largest activations, and their receptive fields
//! - [`ablate`], [`bounding_boxes`] and [`logistic`]: feature maps of an object, found and removed (figure 6)
//!
//! Output: [`dcgan_data::image_grid`] lays out images as PNG, [`dcgan_data::gif`] encodes animations, [`json`] writes
//! files to edit.
//!
//! Networks run in evaluation mode; results depend on the seed only.
//!
//! # Example
//!
//! A walk between two concepts, and its images:
//!
//! ```
//! use candle_core::Device;
//! use dcgan_explore::arithmetic::combine;
//! use dcgan_explore::interpolation::{Interpolation, walks};
//! use dcgan_explore::latent::{LatentSet, concat};
//! use dcgan_model::{Classes, Generator, ModelFiles};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let files = ModelFiles::embedded_digits()?;
//! let config = files.model.config();
//!
//! // A concept is the mean of several z: here a - b + c, each the mean of three samples of seed 0.
//! let mean_of = |samples: [usize; 3]| LatentSet::draw_indices(0, samples, config, Classes::InTurn);
//! let (a, b, c) = (mean_of([0, 1, 2])?, mean_of([3, 4, 5])?, mean_of([6, 7, 8])?);
//! let sum = combine(&[a, c], &[b])?;
//!
//! // Linear and spherical interpolation share both ends.
//! let ends = concat(&[LatentSet::draw(1, 1, config, Classes::InTurn)?, sum])?;
//! let linear = walks(&ends, 5, Interpolation::Linear)?;
//! let spherical = walks(&ends, 5, Interpolation::Spherical)?;
//! assert_eq!(linear.len(), 5);
//! assert_eq!(linear.rows().next(), spherical.rows().next());
//! assert_eq!(linear.rows().last(), spherical.rows().last());
//!
//! // Images, u8 (n, h, w, c).
//! let weights = files.generator.as_ref().ok_or("no generator")?;
//! let mut generator = Generator::new(&files.model, weights, &Device::Cpu)?;
//! let images = linear.images(&mut generator, &mut |_| ())?;
//! assert_eq!(images.len(), 5 * 28 * 28);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/walk.rs` writes such a walk as a PNG. The feature `cli`, on by default, builds the binary `dcgan-explore`,
//! whose commands combine these modules; the library alone needs none of its dependencies.

pub mod ablate;
pub mod arithmetic;
pub mod attributes;
pub mod bounding_boxes;
pub mod concept;
pub mod guided;
pub mod interpolation;
pub mod invert;
pub mod json;
pub mod latent;
pub mod logistic;
pub mod max_activations;
pub mod neighbours;
pub mod subnetwork;
