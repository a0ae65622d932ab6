//! The presets as a form needs them.

use dcgan_model::{Preset, PresetError};
use serde_json::{Value, json};

/// Every preset: its name, networks and training settings, each as in `dcgan-train presets NAME`.
pub(crate) fn list() -> Result<Vec<Value>, PresetError> {
    let view = |name| {
        let preset = Preset::named(name)?;
        let model = &preset.model;
        Ok(json!({
            "name": name,
            "height": model.height,
            "width": model.width,
            "channels": model.channels,
            "latent": model.latent,
            "training": preset.training,
            "text": Preset::text(name)?,
        }))
    };
    Preset::names().map(view).collect()
}
