//! The body of `POST /v1/jobs`: the options of `dcgan-train run` with `_` in place of `-`, read so that every fault is
//! reported.

use super::AppState;
use super::devices::cores;
use super::launched;
use crate::config::{ConfigFile, Fault, Plan, RunOptions};
use crate::inputs::{self, InputsError};
use crate::options::{self, Kind, MAX_INTEGER, TrainOption, Values, parse_size};
use crate::skip_bad::SkipBad;
use dcgan_metrics::default_weights;
use dcgan_model::DeviceChoice;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Largest `config` in bytes: presets are a page of text, and the options of a job are stored with it.
const CONFIG_BYTES: usize = 64 * 1024;

/// Characters of a job's name.
const NAME_CHARS: usize = 100;

/// Unknown options that are listed one by one; more are counted, so that an answer is not many times its request.
pub(super) const LISTED_UNKNOWN: usize = 20;

/// The body as received. Duplicate names are refused: JSON readers differ in which of the two they take.
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

/// `64`, `"64"` or `"48x80"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected N or \"HxW\"")]
enum Size {
    Side(usize),
    Text(String),
}

/// Reads the JSON value of an option.
pub(super) fn read(option: &TrainOption, value: Value) -> Result<Value, String> {
    fn typed<T: DeserializeOwned>(option: &TrainOption, value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| format!("{}: {error}", option.name))
    }
    Ok(match option.kind {
        // A number that is no such integer: the message has the limits.
        Kind::Integer(..) if value.is_number() && value.as_u64().is_none() => {
            option.check(&value)?;
            value
        }
        Kind::Integer(..) => typed::<u64>(option, value)?.into(),
        Kind::Float(..) => typed::<f64>(option, value)?.into(),
        Kind::Flag => typed::<bool>(option, value)?.into(),
        Kind::FlagOrCount => match typed::<SkipBad>(option, value)? {
            SkipBad::Flag(flag) => flag.into(),
            SkipBad::AtMost(count) => count.into(),
        },
        Kind::Size => {
            let (height, width) = match typed(option, value)? {
                Size::Side(side) => (side, side),
                Size::Text(text) => parse_size(&text)?,
            };
            format!("{height}x{width}").into()
        }
        Kind::Choice(_) => {
            let value = typed::<String>(option, value)?.into();
            option.check(&value)?;
            value
        }
        Kind::Path(_) | Kind::Text(_) => typed::<String>(option, value)?.into(),
    })
}

/// Reads, resolves and checks the options of a request. The paths of the plan are those of this machine.
///
/// # Errors
/// Every fault, each with its field.
pub(crate) fn resolve(shared: &AppState, mut body: Map<String, Value>) -> Result<Plan, Vec<Fault>> {
    let (mut values, mut faults) = (Values::new(), Vec::new());
    for option in options::all() {
        let Some(value) = body.remove(option.name).filter(|value| !value.is_null()) else { continue };
        match read(option, value) {
            Ok(value) => drop(values.insert(option.name, value)),
            Err(message) => {
                faults.push(Fault::new(option.name, message));
                if option.name == "data" {
                    // Invalid data is still data: it makes no other option invalid.
                    values.insert("data", "".into());
                }
            }
        }
    }
    let config = values.get("config").and_then(|text| text.as_str()).map(str::to_owned);
    let config = config.filter(|text| {
        let is_short = text.len() <= CONFIG_BYTES;
        if !is_short {
            let message = format!("config is {} bytes long, expected at most {CONFIG_BYTES}", text.len());
            faults.push(Fault::new("config", message));
        }
        is_short
    });
    resolve_names(shared, config.as_deref(), &mut values, &mut faults);
    let known: Vec<&str> = options::all().map(|option| option.name).collect();
    let unknown = |name| Fault::new(name, format!("unknown option {name:?}; options: {}", known.join(", ")));
    faults.extend(body.keys().take(LISTED_UNKNOWN).map(unknown));
    if body.len() > LISTED_UNKNOWN {
        faults.push(Fault::new("", format!("{} more unknown options", body.len() - LISTED_UNKNOWN)));
    }
    let config = config.map(|text| (PathBuf::from("config"), text));
    let options = match RunOptions::new(values, config) {
        Ok(options) => options,
        Err(fault) => {
            faults.push(fault);
            return Err(faults.into_iter().map(|fault| in_json(fault, "config")).collect());
        }
    };
    let networks = if options.size.is_some() { "size" } else { "config" };
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
        faults.extend(machine_faults(shared, plan));
    }
    match plan {
        Ok(plan) if faults.is_empty() => Ok(plan),
        _ => Err(faults.into_iter().map(|fault| in_json(fault, networks)).collect()),
    }
}

/// Finds what a name stands for.
type Find<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Replaces names of data, models and the device by what they stand for here. Those of `[run]` in `config` are names as
/// well: a request must not reach files outside the roots.
pub(super) fn resolve_names(
    shared: &AppState,
    config: Option<&str>,
    values: &mut Values,
    faults: &mut Vec<Fault>,
) {
    let run = config.and_then(|text| ConfigFile::parse(text).ok()).map(|file| file.run).unwrap_or_default();
    let in_file = |path: &Option<PathBuf>| path.as_deref().map(Path::to_string_lossy).map(String::from);
    let in_text = |path: PathBuf| path.to_string_lossy().into_owned();
    let find_data = |name: &str| shared.find_data(name).map(in_text);
    let find_file = |name: &str| shared.find_file(name).map(in_text);
    let find_model = |id: &str| shared.find_model(id).map(in_text);
    let check_device = |name: &str| shared.check_device(name).map(|device| device.to_string());
    let names: [(_, _, Find<'_>); 5] = [
        ("device", Some(run.device.clone()), &check_device),
        ("data", in_file(&run.data), &find_data),
        ("exclude", in_file(&run.exclude), &find_file),
        ("inception", in_file(&run.inception), &find_file),
        ("init_from", in_file(&run.init_from), &find_model),
    ];
    for (option, in_file, find) in names {
        let is_refused = faults.iter().any(|fault| fault.field == option);
        let name = values.get(option).and_then(|name| name.as_str()).map(str::to_owned).or(in_file);
        let Some(name) = name.filter(|_| !is_refused) else { continue };
        let found = find(&name).unwrap_or_else(|message| {
            faults.push(Fault::new(option, message));
            if option == "device" { shared.any_device().to_string() } else { name }
        });
        values.insert(option, found.into());
    }
}

/// What this machine cannot train.
pub(super) fn machine_faults(shared: &AppState, plan: &Plan) -> Vec<Fault> {
    let device = plan.run.device.parse::<DeviceChoice>().ok();
    let devices = shared
        .devices
        .iter()
        .filter(|other| device.is_none_or(|device| device == shared.any_device() || device == other.choice));
    let devices: Vec<_> = devices.map(|other| &other.device).collect();
    // Any of these devices may run the job.
    let precision =
        devices.iter().find_map(|device| inputs::check_precision(plan.training.dtype, device).err());
    let precision = precision.map(|error| Fault::new("dtype", error.to_string()));
    let shards =
        devices.iter().find_map(|device| inputs::check_shards(plan.training.shards, device, 1).err());
    let shards = shards.map(|error| Fault::new("shards", error.to_string()));
    let memory = devices.iter().find_map(|device| inputs::check_memory(plan, device).err()).map(|error| {
        let smaller_batch = matches!(error, InputsError::Memory { smaller_batch_fits: true, .. });
        Fault::new(if smaller_batch { "batch_size" } else { "model" }, error.to_string())
    });
    // More threads than cores would only take turns, at the expense of the thread that answers requests.
    let cores = cores();
    let threads = plan.run.threads.filter(|&threads| threads > cores).map(|threads| {
        Fault::new("threads", format!("threads is {threads}, this machine runs {cores} at a time"))
    });
    let processes = plan.run.processes.filter(|&processes| processes > 1);
    let processes = processes.and_then(|processes| {
        let on_gpu = devices.iter().any(|device| !device.is_cpu());
        let fault = on_gpu.then(|| format!("processes is {processes}; several processes train on the CPU"));
        fault.or_else(|| launched::fault(processes, cores))
    });
    let processes = processes.map(|message| Fault::new("processes", message));
    let has_inception = plan.run.inception.is_some() || default_weights().is_some();
    let inception = plan.run.metrics_every.filter(|_| !has_inception).map(|_| {
        let message = "metrics_every needs the Inception weights: name them by inception, or start the service with \
                       DCGAN_INCEPTION";
        Fault::new("metrics_every", message)
    });
    [precision, shards, memory, threads, processes, inception].into_iter().flatten().collect()
}

/// The fault with the names of a request: `checkpoint_every` for `--checkpoint-every`; `networks` is the option that
/// determined the shape of the networks.
pub(super) fn in_json(fault: Fault, networks: &str) -> Fault {
    let field = if fault.field == "model" { networks.to_owned() } else { fault.field };
    Fault { field, message: json_names(&fault.message) }
}

/// A message with the names of options in requests.
pub(crate) fn json_names(message: &str) -> String {
    let words = message.split(' ').map(|word| {
        let start = word.len() - word.trim_start_matches(['(', '"', '`']).len();
        let (before, rest) = word.split_at(start);
        let Some(option) = rest.strip_prefix("--") else { return word.to_owned() };
        let option = option.replace('-', "_");
        let name = option.split('=').next().unwrap_or_default();
        let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        // Other words with dashes are options of the service, which a request does not have.
        let is_option = |name: &str| options::all().any(|known| known.name == name);
        if is_option(name) {
            return format!("{before}{option}");
        }
        match name.strip_prefix("no_") {
            Some(flag) if is_option(flag) => {
                format!("{before}{}", option.replacen(name, &format!("{flag} = false"), 1))
            }
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Takes the name of a job out of a request. None if there is none.
///
/// # Errors
/// A name that is not a text, too long, or has control characters.
pub(crate) fn take_name(body: &mut Map<String, Value>) -> Result<Option<String>, Fault> {
    let name = match body.remove("name") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => name.trim().to_owned(),
        Some(other) => return Err(Fault::new("name", format!("name is {other}, expected a text"))),
    };
    let length = name.chars().count();
    if length > NAME_CHARS {
        return Err(Fault::new(
            "name",
            format!("name has {length} characters, expected at most {NAME_CHARS}"),
        ));
    }
    if name.contains(char::is_control) {
        return Err(Fault::new("name", "name has control characters, expected one line of text"));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// The JSON schema of the request.
pub(crate) fn schema() -> Value {
    let name = json!({
        "type": "string",
        "maxLength": NAME_CHARS,
        "description": "Name of the job [default: its networks and its data]",
    });
    let options = options::all().map(|option| (option.name.to_owned(), property(option)));
    let properties = std::iter::once(("name".to_owned(), name)).chain(options);
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "The options of `dcgan-train run`; none is required",
        "properties": properties.collect::<Map<_, _>>(),
    })
}

/// The JSON schema of an option.
pub(super) fn property(option: &TrainOption) -> Value {
    let description = match option.name {
        "config" => {
            "Networks and settings: the text of a TOML file, as of `dcgan-train presets NAME`, or the plan.toml of \
             a run"
                .to_owned()
        }
        "data" => {
            "Images: a path below --data-root, see GET /v1/data [default: the embedded digits]".to_owned()
        }
        "exclude" => format!("{} A path below --data-root", option.description()),
        "inception" => "File of the Inception weights, a path below --data-root [default: that of DCGAN_INCEPTION]".to_owned(),
        "init_from" => "Start from the weights of this model: an id of GET /v1/models".to_owned(),
        "device" => "auto, or a device of the service: it trains on no other".to_owned(),
        _ => option.description(),
    };
    let mut property = json!({ "description": description });
    let mut set = |key: &str, value: Value| property[key] = value;
    match option.kind {
        Kind::Integer(min, max) => {
            set("type", "integer".into());
            set("minimum", min.into());
            if max < MAX_INTEGER {
                set("maximum", max.into());
            }
        }
        Kind::Float(min, max) => {
            set("type", "number".into());
            for (bound, inclusive, exclusive) in
                [(min, "minimum", "exclusiveMinimum"), (max, "maximum", "exclusiveMaximum")]
            {
                match bound {
                    Bound::Included(bound) => set(inclusive, bound.into()),
                    Bound::Excluded(bound) => set(exclusive, bound.into()),
                    Bound::Unbounded => {}
                }
            }
        }
        Kind::Choice(choices) => {
            set("type", "string".into());
            set("enum", choices.iter().map(|(value, _)| *value).collect());
        }
        Kind::Flag => set("type", "boolean".into()),
        Kind::FlagOrCount => {
            set("type", json!(["boolean", "integer"]));
            set("minimum", 0.into());
        }
        Kind::Path(_) | Kind::Size | Kind::Text(_) => set("type", "string".into()),
    }
    property
}
