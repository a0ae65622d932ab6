//! What the networks of a DCGAN learned: the latent space and the feature maps (paper, section 6).
//!
//! The latent space: [`latent`] (sets of z, their files), [`series`] (walks between z), [`arithmetic`] (concepts as means),
//! [`mod@invert`] (z of a given image), [`neighbours`] (nearest training images). The networks inside: [`parts`] (a part
//! of a network by itself), [`guided`] (guided backpropagation), [`maximal`] (what excites a feature), [`ablate`] (feature
//! maps removed), [`concept`] (z found by an attribute of real images). Images are laid out by [`dcgan_data::grid`]; [`gif`] makes animations of them.
//!
//! Everything is computed in evaluation mode, and is the same for the same seed.

pub mod ablate;
pub mod arithmetic;
pub mod attributes;
pub mod boxes;
pub mod concept;
pub mod gif;
pub mod guided;
pub mod invert;
pub mod json;
pub mod latent;
pub mod logistic;
pub mod maximal;
pub mod neighbours;
pub mod parts;
pub mod series;
