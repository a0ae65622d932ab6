//! The presets as JSON.

use dcgan_model::{Preset, PresetError};
use serde_json::{Value, json};

/// All presets with their networks and training settings.
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
