//! Images from a generator, by seed or of given latents.

use crate::random::{self, Purpose};
use crate::{Classes, Generator, Latents, NetworkError, pixels};
use std::ops::Range;

/// Maximum number of images of one forward pass.
const BATCH: usize = 64;

/// The images of a forward pass are a multiple of this, so that an image is the same to the last bit whatever is drawn
/// beside it: products of fewer rows are summed in another order.
const ROUND: usize = 16;

/// Latents from which batch norm of a generator without running statistics is recalibrated, and of one batch of them.
const RECALIBRATION_LATENTS: usize = 4096;
const RECALIBRATION_BATCH: usize = 128;

impl Generator {
    /// Draws `n` images in evaluation mode, bytes `(n, h, w, c)`: the same for the same model and seed, and the first n
    /// of any more. A conditional generator draws its classes in turn.
    ///
    /// # Errors
    /// A generator without statistics; memory.
    pub fn draw(&mut self, seed: u64, n: usize) -> Result<Vec<u8>, NetworkError> {
        self.draw_range(seed, 0..n, Classes::InTurn)
    }

    /// Draws the images `range` of all that [`Generator::draw`] can draw of a seed, bytes `(n, h, w, c)`: any number of
    /// images in bounded memory.
    ///
    /// # Errors
    /// Those of [`Generator::draw`].
    pub fn draw_range(
        &mut self,
        seed: u64,
        range: Range<usize>,
        classes: Classes,
    ) -> Result<Vec<u8>, NetworkError> {
        let drawn = (seed, Purpose::SampleLatent);
        let latents = Latents::of_range(drawn, range, self.model().config(), classes)?;
        self.draw_latents(&latents, &mut |_| ())
    }

    /// Draws the images of `latents` in evaluation mode, bytes `(n, h, w, c)`: each the same whatever the others are.
    /// `progress` is called with the number of images done.
    ///
    /// # Errors
    /// Latents of another size; a generator without statistics; memory.
    pub fn draw_latents(
        &mut self,
        latents: &Latents,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<u8>, NetworkError> {
        let config = self.model().config().clone();
        let mut bytes = Vec::new();
        for first in (0..latents.n()).step_by(BATCH) {
            let count = BATCH.min(latents.n() - first);
            let batch = latents.padded(first, count, count.next_multiple_of(ROUND))?;
            let images = self.sample(&batch)?;
            bytes.extend(pixels::to_bytes(&images.values()[..count * images.shape().len()], &config));
            progress(first + count);
        }
        Ok(bytes)
    }

    /// Gives G batch norm statistics where it has none: recalibrated on 4,096 seeded z, in batches of 128. Returns
    /// whether it did.
    ///
    /// # Errors
    /// Memory; a network that fails.
    pub fn ensure_statistics(&mut self) -> Result<bool, NetworkError> {
        if self.network().running_stats().is_some() {
            return Ok(false);
        }
        let config = self.model().config().clone();
        let batches = (0..RECALIBRATION_LATENTS / RECALIBRATION_BATCH).map(|i| -> Result<_, NetworkError> {
            let mut rng = random::stream(0, Purpose::StatisticsLatent, i as u64);
            let z = random::latent(&mut rng, RECALIBRATION_BATCH, &config.latent);
            let latents = Latents::new(z, config.latent.size)?;
            // Every batch has as many classes as it can.
            Ok(latents.with_classes(&config, Classes::InTurn, i * RECALIBRATION_BATCH)?.into_maps())
        });
        self.network_mut().alone(|network| network.recalibrate(batches))?;
        Ok(true)
    }
}
