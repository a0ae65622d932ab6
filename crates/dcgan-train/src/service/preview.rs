//! What a job would train: the networks that its options name or its images choose, and what does not fit.

use super::AppState;
use super::options::{json_names, resolve};
use crate::config::Fault;
use crate::inputs::check_classes;
use crate::options::parse_size;
use crate::preset_choice::{PresetChoice, color_name, warnings};
use dcgan_data::Probe;
use serde_json::{Map, Value, json};

/// The preset that the images of a request chose.
#[derive(Debug)]
pub(crate) struct ChosenPreset {
    pub(crate) preset: PresetChoice,
    /// The images.
    probe: Probe,
}

/// Sets the preset, size and channels of a request that names neither a preset nor a configuration, by its images.
pub(crate) fn choose_preset(shared: &AppState, body: &mut Map<String, Value>) -> Option<ChosenPreset> {
    let is_given = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
    if is_given("preset") || is_given("config") {
        return None;
    }
    let path = shared.find_data(body.get("data").and_then(Value::as_str)?).ok()?;
    let probe = dcgan_data::probe(&path).ok()?;
    let integer = |name: &str| body.get(name).and_then(|value| value.as_u64()?.try_into().ok());
    let size = match body.get("size") {
        None | Some(Value::Null) => None,
        // An invalid size is a fault whatever the preset.
        Some(Value::String(text)) => Some(parse_size(text).ok()?),
        Some(side) => {
            let side = side.as_u64()?.try_into().ok()?;
            Some((side, side))
        }
    };
    let preset = PresetChoice::by_images(&probe, integer("crop"), size, integer("channels"))?;
    let (height, width) = preset.size;
    body.insert("preset".to_owned(), preset.preset.into());
    body.insert("size".to_owned(), format!("{height}x{width}").into());
    body.insert("channels".to_owned(), preset.channels.into());
    Some(ChosenPreset { preset, probe })
}

/// The answer to `POST /v1/jobs/preview`.
///
/// # Errors
/// Every fault, as for a job.
pub(crate) fn preview(shared: &AppState, mut body: Map<String, Value>) -> Result<Value, Vec<Fault>> {
    let choice = choose_preset(shared, &mut body);
    let plan = resolve(shared, body)?;
    let shape = plan.image_shape();
    let (found, probe) = match choice {
        Some(ChosenPreset { preset, probe }) => (Some(preset.found), Some(Ok(probe))),
        None => (None, plan.run.data.as_deref().map(dcgan_data::probe)),
    };
    let mut warnings = match &probe {
        None => Vec::new(),
        Some(Ok(probe)) if probe.sizes.is_empty() => {
            vec!["no image that can be read was found: the job would fail".to_owned()]
        }
        Some(Ok(probe)) => {
            let texts = warnings(probe, plan.run.crop, shape);
            texts.iter().map(|text| json_names(text)).collect()
        }
        // The job would fail.
        Some(Err(error)) => vec![shared.public_message(&error.to_string(), None)],
    };
    if let Some(Ok(probe)) = &probe
        && plan.training.conditional
        && let Err(error) = check_classes(probe.classes)
    {
        warnings.push(format!("{}: the job would fail", json_names(&error.to_string())));
    }
    Ok(json!({
        "networks": plan.model.name,
        "chosen_by_images": found.is_some(),
        "images": found,
        "height": shape.height,
        "width": shape.width,
        "channels": shape.channels,
        "color": color_name(shape.channels),
        "latent": plan.model.latent,
        "training": plan.training,
        "warnings": warnings,
    }))
}
