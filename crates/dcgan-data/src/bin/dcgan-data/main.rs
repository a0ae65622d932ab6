//! `dcgan-data`: looks at, packs and verifies data sets.
fn main() {}
