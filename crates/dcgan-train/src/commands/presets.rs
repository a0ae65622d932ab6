//! `dcgan-train presets`.

use dcgan_cli::{Outcome, UsageError, print_result};
use dcgan_model::{ModelConfig, Preset};

pub(crate) fn run(name: Option<&str>) -> anyhow::Result<Outcome> {
    if let Some(name) = name {
        print_result(Preset::text(name).map_err(UsageError::because)?.trim_end())?;
        return Ok(Outcome::Done);
    }
    print_result(&format!("{:<12} {:>9} {:>12} {:>12}  {:<10}", "preset", "images", "G", "D", "z"))?;
    for name in Preset::names() {
        let model = Preset::named(name)?.model()?;
        let ModelConfig { height, width, channels, latent, .. } = model.config();
        let count = |layers: &[dcgan_ops::Layer]| -> usize {
            layers.iter().flat_map(|l| l.parameters()).map(|p| p.shape.iter().product::<usize>()).sum()
        };
        let (g, d) = (count(model.generator_layers()), count(model.discriminator_layers()));
        let images = format!("{height}x{width}x{channels}");
        let z = format!("{} {:?}", latent.size, latent.distribution).to_lowercase();
        print_result(&format!("{name:<12} {images:>9} {g:>12} {d:>12}  {z:<10}"))?;
    }
    print_result(
        "\nG and D: trainable parameters. `dcgan-train presets NAME` prints one as a file for --config.",
    )?;
    Ok(Outcome::Done)
}
