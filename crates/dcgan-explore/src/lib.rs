//! Explores what the networks of a DCGAN learned: latent space and feature maps (paper, section 6).
//!
//! Latent space: [`latent`] (sets of z and their files), [`interpolation`] (walks between z), [`arithmetic`] (concepts as means of
//! z), [`mod@invert`] (z of a given image), [`neighbours`] (nearest training images), [`concept`] (z of an attribute of real
//! images). Feature maps: [`subnetwork`] (consecutive layers of a network), [`guided`] (guided backpropagation),
//! [`max_activations`] (images with the largest activations), [`ablate`] (removal of feature maps). [`dcgan_data::image_grid`]
//! lays out images, [`gif`] encodes animations.
//!
//! Networks run in evaluation mode; results depend on the seed only.

pub mod ablate;
pub mod arithmetic;
pub mod attributes;
pub mod bounding_boxes;
pub mod concept;
pub mod gif;
pub mod guided;
pub mod interpolation;
pub mod invert;
pub mod json;
pub mod latent;
pub mod logistic;
pub mod max_activations;
pub mod neighbours;
pub mod subnetwork;
