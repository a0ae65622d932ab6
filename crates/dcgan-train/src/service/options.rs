//! The body of `POST /v1/jobs`: the options of `dcgan-train run` with `-` as `_`, read so that every fault is told at once.

use super::AppState;
use crate::config::{Fault, Plan, RunOptions, parse_size};
use crate::inputs::{self, InputsError};
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;

/// Name, JSON schema type, and what it says, of each option.
pub(crate) const OPTIONS: [(&str, &str, &str); 26] = [
    ("preset", "string", "Networks and settings by name [default: digits]"),
    (
        "config",
        "string",
        "Networks and settings: the text of a TOML file, as `dcgan-train presets NAME` prints it",
    ),
    ("data", "string", "Images: a path below --data-root, see GET /v1/data [default: the embedded digits]"),
    ("images", "integer", "Length of the run in real images read"),
    ("epochs", "integer", "Length of the run in passes over the data"),
    ("steps", "integer", "Length of the run in minibatches read"),
    ("batch_size", "integer", "Images in a minibatch"),
    ("size", "string", "Height and width of the images, N or HxW"),
    ("seed", "integer", "Seed of every random number [default: 0]"),
    ("device", "string", "auto, or the service's own device: it trains on no other"),
    ("threads", "integer", "Threads [default: one per core]"),
    ("dtype", "string", "What products are computed with: f32 or bf16"),
    ("crop", "integer", "Cut the N x N centre out of every image before resizing"),
    ("skip_bad", "boolean", "Leave out images that cannot be read"),
    ("init_from", "string", "Start from the weights of this model: an id of GET /v1/models"),
    ("log_every", "integer", "Steps between two events of kind step [default: 50]"),
    ("checkpoint_every", "integer", "Steps between two checkpoints [default: 500]"),
    ("sample_every", "integer", "Steps between two sample grids [default: 500]"),
    ("keep", "integer", "How many of the newest checkpoints to keep, beside the best [default: 3]"),
    ("learning_rate", "number", "Adam's step size"),
    ("learning_rate_decay", "string", "none, or linear: to zero over the second half of the run"),
    ("weight_decay", "number", "L2 added to the gradient of every parameter"),
    ("label_smoothing", "number", "How far below 1 the target of real images is"),
    ("ema", "number", "Decay of the moving average of G's weights that samples and checkpoints use (0: off)"),
    ("mirror", "boolean", "Show images mirrored left to right half of the time"),
    ("order", "string", "both (D, then G, on every minibatch) or alternate (G and D in turn)"),
];

/// Bytes of a `config`: presets are a page of text, and what a job was asked for is kept with it.
const CONFIG_BYTES: usize = 64 * 1024;

/// The body as it came. A name given twice is refused: readers of JSON differ in which of the two they take.
#[derive(Debug)]
pub(crate) struct Options(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Options;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object of options")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Options, A::Error> {
                let mut options = Map::new();
                while let Some((name, value)) = object.next_entry::<String, Value>()? {
                    if options.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name} is given twice")));
                    }
                    options.insert(name, value);
                }
                Ok(Options(options))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Options that there are not: as many are told one by one, so that the answer is not many times the request.
const UNKNOWN: usize = 20;

/// Fields of a JSON object, taken one by one; what does not fit is kept as a fault.
struct Fields {
    left: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Fields {
    /// The field's value; null is as good as absent.
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.left.remove(name).filter(|value| !value.is_null())?;
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => self.fault(name, format!("{name}: {error}")),
        }
    }

    /// The field's value by way of `parse`.
    fn parsed<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text: String = self.take(name)?;
        parse(&text).map_or_else(|message| self.fault(name, message), Some)
    }

    fn fault<T>(&mut self, name: &str, message: impl Into<String>) -> Option<T> {
        self.faults.push(Fault::new(name, message));
        None
    }
}

/// `64`, `"64"` or `"48x80"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected N or \"HxW\"")]
enum Size {
    Side(usize),
    Text(String),
}

/// Reads, resolves and checks a request's options. Paths are those of this machine afterwards.
///
/// # Errors
/// Every fault, each with its field.
pub(crate) fn resolve(shared: &AppState, body: Map<String, Value>) -> Result<Plan, Vec<Fault>> {
    let mut fields = Fields { left: body, faults: Vec::new() };
    let size = fields.take("size").and_then(|size| match size {
        Size::Side(side) => Some((side, side)),
        Size::Text(text) => parse_size(&text).map_or_else(|message| fields.fault("size", message), Some),
    });
    let device = fields.parsed("device", |text| shared.check_device(text));
    let names_data = fields.left.get("data").is_some_and(|data| !data.is_null());
    let data = fields.parsed("data", |name| shared.find_data(name));
    let init_from: Option<PathBuf> = fields.parsed("init_from", |id| shared.find_model(id));
    let config: Option<String> = fields.take("config");
    let config = match config {
        Some(text) if text.len() > CONFIG_BYTES => fields
            .fault("config", format!("config is {} bytes long, expected at most {CONFIG_BYTES}", text.len())),
        config => config,
    };
    let options = RunOptions {
        preset: fields.take("preset"),
        config: config.map(|text| (PathBuf::from("config"), text)),
        // Data that was refused is still data: it makes no other option wrong.
        data: data.or(names_data.then(PathBuf::new)),
        images: fields.take("images"),
        epochs: fields.take("epochs"),
        steps: fields.take("steps"),
        batch_size: fields.take("batch_size"),
        size,
        seed: fields.take("seed"),
        device: device.unwrap_or_else(|| shared.device_choice()),
        threads: fields.take("threads"),
        crop: fields.take("crop"),
        skip_bad: fields.take("skip_bad").unwrap_or(false),
        init_from,
        log_every: fields.take("log_every"),
        checkpoint_every: fields.take("checkpoint_every"),
        sample_every: fields.take("sample_every"),
        keep: fields.take("keep"),
        learning_rate: fields.take("learning_rate"),
        learning_rate_decay: fields.take("learning_rate_decay"),
        weight_decay: fields.take("weight_decay"),
        label_smoothing: fields.take("label_smoothing"),
        ema: fields.take("ema"),
        mirror: fields.take("mirror").unwrap_or(false),
        order: fields.take("order"),
        dtype: fields.take("dtype"),
    };
    let Fields { left, mut faults } = fields;
    let known = OPTIONS.map(|(name, ..)| name).join(", ");
    let unknown = |name| Fault::new(name, format!("there is no option {name:?}; options: {known}"));
    faults.extend(left.keys().take(UNKNOWN).map(unknown));
    if left.len() > UNKNOWN {
        faults.push(Fault::new("", format!("{} more options that there are not", left.len() - UNKNOWN)));
    }
    let plan = Plan::resolve(&options);
    if let Err(found) = &plan {
        faults.extend(found.iter().cloned());
        if found.iter().any(|fault| fault.field == "preset" || fault.field == "config") {
            // Without its networks the rest is checked against the default's.
            let rest = RunOptions { preset: None, config: None, size: None, ..options };
            faults.extend(Plan::resolve(&rest).err().unwrap_or_default());
        }
    }
    if let Ok(plan) = &plan {
        let refused = inputs::check_precision(plan.training.dtype, &shared.device).err();
        faults.extend(refused.map(|error| Fault::new("dtype", error.to_string())));
        let refused = inputs::check_memory(plan, &shared.device).err();
        faults.extend(refused.map(|error| {
            let few = matches!(error, InputsError::Memory { fits_few: true, .. });
            Fault::new(if few { "batch_size" } else { "model" }, error.to_string())
        }));
        // They would only take turns, and those that answer requests with them.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let many = plan.run.threads.filter(|&threads| threads > cores);
        faults.extend(many.map(|threads| {
            Fault::new("threads", format!("threads is {threads}, this machine runs {cores} at a time"))
        }));
    }
    let networks = if size.is_some() { "size" } else { "config" };
    match plan {
        Ok(plan) if faults.is_empty() => Ok(plan),
        _ => Err(faults.into_iter().map(|fault| in_json(fault, networks)).collect()),
    }
}

/// The fault with the names that the request uses: `checkpoint_every` for `--checkpoint-every`; `networks` is what said their
/// shape.
fn in_json(fault: Fault, networks: &str) -> Fault {
    let field = if fault.field == "model" { networks.to_owned() } else { fault.field };
    let words = fault.message.split(' ').map(|word| {
        let Some(option) = word.strip_prefix("--") else { return word.to_owned() };
        let option = option.replace('-', "_");
        let name = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        // Other words with dashes are options of the service, which a request does not have.
        if OPTIONS.iter().any(|(known, ..)| *known == name) { option } else { word.to_owned() }
    });
    Fault { field, message: words.collect::<Vec<_>>().join(" ") }
}

/// The JSON schema of the request.
pub(crate) fn schema() -> Value {
    let property = |(name, kind, description): &(&str, &str, &str)| {
        ((*name).to_owned(), json!({ "type": kind, "description": description }))
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "The options of `dcgan-train run`; none is required",
        "properties": OPTIONS.iter().map(property).collect::<Map<_, _>>(),
    })
}
