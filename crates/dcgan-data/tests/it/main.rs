//! Tests of `dcgan-data` through its public API and its binary, on small generated files.
//!
//! The modules have `cfg(test)` of their own so that clippy treats them as test code.

#[cfg(test)]
#[cfg(feature = "cli")]
mod command;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod images;
#[cfg(test)]
mod index;
#[cfg(test)]
mod labels;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod layouts;
#[cfg(test)]
mod loader;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod pack;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod unreadable;
#[cfg(test)]
mod written;
