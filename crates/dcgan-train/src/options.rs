//! The table of training options.
//!
//! Each option of a run is declared once: as a field of a section of the plan ([`crate::config::RunConfig`],
//! [`crate::config::TrainingConfig`]) with its type, help, limits and default, or here where it selects the networks.
//! The arguments of `dcgan-train run`, configuration files, the JSON of the service's jobs, its schema and the form of
//! its page are all derived from this table.

use crate::config::{RunConfig, TrainingConfig};
pub use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

/// Values of options by name, each of the type of its option's [`Kind`].
pub type Values = BTreeMap<&'static str, Value>;

/// What an option sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The networks: preset, configuration file, image size.
    Networks,
    /// `[run]` of the plan.
    Run,
    /// `[training]` of the plan.
    Training,
}

/// Type and limits of an option's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// An integer between two bounds, both included.
    Integer(u64, u64),
    /// A number between two bounds.
    Float(Bound<f64>, Bound<f64>),
    /// One of these values, each with its description.
    Choice(&'static [(&'static str, &'static str)]),
    /// `true` or `false`.
    Flag,
    /// `true` or `false`, or a number of images.
    FlagOrCount,
    /// A file or folder; how help texts name it.
    Path(&'static str),
    /// Height and width, `N` or `HxW`.
    Size,
    /// Any other text; how help texts name it.
    Text(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct TrainOption {
    /// The name in the plan and in JSON (`batch_size`); the flag has dashes in place of underscores.
    pub name: &'static str,
    /// Type and limits.
    pub kind: Kind,
    /// What it does.
    pub help: &'static str,
    /// What it sets.
    pub section: Section,
    /// The default value; none if the preset or configuration file has it.
    pub default: fn() -> Option<Value>,
    /// Description of the behavior without the option, if it has no default value.
    pub otherwise: Option<&'static str>,
    /// Whether only configuration files can set it.
    pub file_only: bool,
    /// Whether `resume` can change it.
    pub resumable: bool,
}

/// A row without its name, help and section, which [`section!`] fills in.
pub(crate) const fn option(kind: Kind) -> TrainOption {
    TrainOption {
        name: "",
        kind,
        help: "",
        section: Section::Networks,
        default: || None,
        otherwise: None,
        file_only: false,
        resumable: false,
    }
}

/// An integer of at least `min`.
pub(crate) const fn at_least(min: u64) -> TrainOption {
    option(Kind::Integer(min, MAX_INTEGER))
}

/// An integer between two bounds, both included.
pub(crate) const fn between(min: u64, max: u64) -> TrainOption {
    option(Kind::Integer(min, max))
}

/// The length of a run, which a resume can change.
pub(crate) const fn length() -> TrainOption {
    between(1, MAX_LENGTH).resumable()
}

/// A number of at least `min` and below `max`.
pub(crate) const fn from_to_below(min: f64, max: f64) -> TrainOption {
    option(Kind::Float(Bound::Included(min), Bound::Excluded(max)))
}

/// The largest integer of an option: a seed may be any.
pub(crate) const MAX_INTEGER: u64 = u64::MAX;

/// The greatest length of a run: up to here, integers are exact in JSON also where they are read as f64.
pub(crate) const MAX_LENGTH: u64 = 1 << 53;

/// The largest number of images: datasets are not larger.
const MAX_COUNT: u64 = u32::MAX as u64;

/// The options that select the networks.
const NETWORKS: &[TrainOption] = &[
    TrainOption {
        name: "preset",
        help: "Networks and settings by name (see `dcgan-train presets`)",
        otherwise: Some("by the size and color of --data; digits without it"),
        ..option(Kind::Text("NAME"))
    },
    TrainOption {
        name: "config",
        help: "Networks and settings from a TOML file: one of `dcgan-train presets NAME`, or the plan.toml of a run",
        ..option(Kind::Path("F.toml"))
    },
    TrainOption {
        name: "size",
        help: "Height and width of the images, N or HxW: a multiple of the networks' total stride",
        ..option(Kind::Size)
    },
    TrainOption {
        name: "channels",
        help: "Channels of the images: 1 (grey), 3 (color) or 4 (color with alpha)",
        otherwise: Some("as in the preset; by --data if no preset is named"),
        ..between(1, 4)
    },
];

/// The options that users can set, in the order of help texts.
pub fn all() -> impl Iterator<Item = &'static TrainOption> {
    let rows = NETWORKS.iter().chain(RunConfig::OPTIONS).chain(TrainingConfig::OPTIONS);
    rows.filter(|option| !option.file_only)
}

impl TrainOption {
    pub(crate) const fn otherwise(self, words: &'static str) -> Self {
        Self { otherwise: Some(words), ..self }
    }

    pub(crate) const fn file_only(self) -> Self {
        Self { file_only: true, ..self }
    }

    pub(crate) const fn resumable(self) -> Self {
        Self { resumable: true, ..self }
    }

    /// The name on the command line, without the leading dashes: `batch-size`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The help text as one sentence without a full stop.
    pub fn summary(&self) -> &'static str {
        self.help.trim().trim_end_matches('.')
    }

    /// The help text with the default.
    pub fn description(&self) -> String {
        let default = (self.default)()
            .filter(|value| !matches!(value, Value::Null | Value::Bool(false)))
            .map(|value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            });
        match default.as_deref().or(self.otherwise) {
            Some(default) => format!("{} [default: {default}]", self.summary()),
            None => self.summary().to_owned(),
        }
    }

    /// The field of faults: `config` for options that only configuration files set.
    pub(crate) fn field(&self) -> &'static str {
        if self.file_only { "config" } else { self.name }
    }

    /// How messages name the option.
    pub(crate) fn title(&self) -> String {
        if self.file_only { self.name.to_owned() } else { format!("--{}", self.flag()) }
    }

    /// Checks a value against the limits.
    ///
    /// # Errors
    /// What was given and what is expected.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let holds = match (self.kind, value) {
            (Kind::Integer(min, max), Value::Number(value)) => {
                value.as_u64().is_some_and(|value| (min..=max).contains(&value))
            }
            (Kind::Float(min, max), Value::Number(value)) => {
                value.as_f64().is_some_and(|value| (min, max).contains(&value))
            }
            (Kind::Choice(choices), Value::String(value)) => {
                choices.iter().any(|(choice, _)| choice == value)
            }
            (Kind::Flag | Kind::FlagOrCount, Value::Bool(_)) => true,
            (Kind::FlagOrCount, Value::Number(value)) => value.as_u64().is_some_and(|n| n <= MAX_COUNT),
            (Kind::Path(_) | Kind::Size | Kind::Text(_), Value::String(_)) => true,
            _ => false,
        };
        let found = match value {
            Value::Number(value) => {
                let float =
                    value.as_f64().filter(|_| value.is_f64() && !matches!(self.kind, Kind::Integer(..)));
                float.map_or_else(|| value.to_string(), number)
            }
            Value::Null => "NaN".to_owned(), // JSON has no NaN
            other => other.to_string(),
        };
        if holds {
            Ok(())
        } else {
            let expected = match (self.kind, value) {
                (Kind::Integer(..), Value::Number(value)) if value.is_f64() => {
                    format!("an integer, {}", self.kind.expected())
                }
                (Kind::Integer(_, MAX_LENGTH), Value::Number(value)) if value.as_u64() > Some(MAX_LENGTH) => {
                    format!("at most {MAX_LENGTH}")
                }
                (kind, _) => kind.expected(),
            };
            Err(format!("{} is {found}, expected {expected}", self.title()))
        }
    }
}

impl Kind {
    /// Parses a value of the command line. Limits are checked later, all at once.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Integer(..) => {
                let negative = |_| text.trim().parse::<i64>().map(Value::from);
                let value = text.trim().parse::<u64>().map(Value::from).or_else(negative);
                value.map_err(|_| format!("expected an integer, {}", self.expected()))
            }
            Self::Float(..) => {
                let value = text.parse().ok().and_then(serde_json::Number::from_f64);
                value.map(Value::Number).ok_or_else(|| "expected a number".to_owned())
            }
            Self::Flag => text.parse().map(Value::Bool).map_err(|_| "expected true or false".to_owned()),
            Self::FlagOrCount => text
                .parse()
                .map(Value::Bool)
                .or_else(|_| text.parse::<u64>().map(Value::from))
                .map_err(|_| "expected a number of images".to_owned()),
            Self::Size => parse_size(text).map(|(height, width)| Value::String(format!("{height}x{width}"))),
            Self::Choice(_) | Self::Path(_) | Self::Text(_) => Ok(Value::String(text.to_owned())),
        }
    }

    /// The values that are valid, in words.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Integer(min, MAX_LENGTH | MAX_INTEGER) => format!("at least {min}"),
            Self::Integer(min, max) => format!("{min} to {max}"),
            Self::Float(min, max) => {
                let min = match min {
                    Bound::Included(min) => format!("at least {}", number(min)),
                    Bound::Excluded(min) => format!("above {}", number(min)),
                    Bound::Unbounded => "a number".to_owned(),
                };
                match max {
                    Bound::Included(max) => format!("{min} and at most {}", number(max)),
                    Bound::Excluded(max) => format!("{min} and below {}", number(max)),
                    Bound::Unbounded => min,
                }
            }
            Self::Choice(choices) => choices.iter().map(|(value, _)| *value).collect::<Vec<_>>().join(" or "),
            Self::Flag => "true or false".to_owned(),
            Self::FlagOrCount => format!("true, false or 0 to {MAX_COUNT}"),
            Self::Path(_) => "a path".to_owned(),
            Self::Size => "N or HxW".to_owned(),
            Self::Text(_) => "a text".to_owned(),
        }
    }
}

/// A number in a message: `0.5`, `1`, `1.2e-38`.
fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-5 { format!("{value:.1e}") } else { value.to_string() }
}

/// Parses `--size`: `64` or `48x80` (height x width).
///
/// # Errors
/// What is expected.
pub fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once(['x', 'X']).unwrap_or((text, text));
    let side =
        |side: &str| side.trim().parse().map_err(|_| format!("{text:?} is not a size; expected N or HxW"));
    Ok((side(height)?, side(width)?))
}

/// Declares a section of the plan and its rows of the table of options.
///
/// A field reads `name: Type = default, row;`. Its doc comment is the option's help text. A section has defaults for
/// all of its fields, or for none; where it has them, fields that a file leaves out take them.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $Section:ident in $section:ident {
            $(
                $(#[doc = $help:literal])+
                $(#[serde($($serde:tt)+)])?
                $field:ident: $Type:ty $(= $default:expr)?, $row:expr;
            )+
        }
    ) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        $(#[$meta])*
        pub struct $Section {
            $( $(#[doc = $help])+ $(#[serde($($serde)+)])? pub $field: $Type, )+
        }

        impl $Section {
            /// The rows of the table of options, a field each.
            pub const OPTIONS: &[TrainOption] = &[ $( TrainOption {
                name: stringify!($field),
                help: concat!($($help),+),
                section: Section::$section,
                default: section!(@value $($Type, $default)?),
                ..$row
            }, )+ ];
        }

        section!(@default $Section $($field $(= $default)?),+);
    };
    (@value) => { || None };
    (@value $Type:ty, $default:expr) => { || serde_json::to_value::<$Type>($default).ok() };
    (@default $Section:ident $($field:ident),+) => {};
    (@default $Section:ident $($field:ident = $default:expr),+) => {
        impl Default for $Section {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }
    };
}
pub(crate) use section;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_option_has_a_help_text() {
        let names: BTreeSet<&str> = all().map(|option| option.name).collect();
        assert_eq!(names.len(), all().count());
        for option in all() {
            assert!(!option.summary().is_empty(), "{}", option.name);
            assert!(!option.description().contains("null"), "{}", option.name);
        }
        for (name, default) in [("data", "embedded digits"), ("threads", "one per core"), ("seed", "0")] {
            let option = all().find(|option| option.name == name).expect("an option");
            assert!(option.description().ends_with(&format!("[default: {default}]")), "{name}");
        }
    }

    #[test]
    fn limits() {
        let batch_size = TrainOption { name: "batch_size", ..between(2, 1 << 16) };
        let rate = Kind::Float(Bound::Excluded(0.0), Bound::Included(1.0));
        let rate = TrainOption { name: "learning_rate", ..option(rate) };
        let eps = TrainOption { name: "adam_eps", ..from_to_below(1e-38, 1.0).file_only() };
        let order = TrainOption { name: "order", ..option(Kind::Choice(&[("both", ""), ("alternate", "")])) };
        let skip = TrainOption { name: "skip_bad", ..option(Kind::FlagOrCount) };
        for (option, value, expected) in [
            (skip, true.into(), Ok(())),
            (skip, 0.into(), Ok(())),
            (skip, (-1).into(), Err("--skip-bad is -1, expected true, false or 0 to 4294967295")),
            (batch_size, 2.into(), Ok(())),
            (batch_size, 1.into(), Err("--batch-size is 1, expected 2 to 65536")),
            (batch_size, (-1).into(), Err("--batch-size is -1, expected 2 to 65536")),
            (at_least(1).otherwise(""), u64::MAX.into(), Ok(())),
            (rate, 1.0.into(), Ok(())),
            (rate, 0.0.into(), Err("--learning-rate is 0, expected above 0 and at most 1")),
            (rate, f64::NAN.into(), Err("--learning-rate is NaN, expected above 0 and at most 1")),
            (eps, 0.0.into(), Err("adam_eps is 0, expected at least 1.0e-38 and below 1")),
            (order, Value::from("alternate"), Ok(())),
            (order, Value::from("none"), Err("--order is \"none\", expected both or alternate")),
        ] {
            assert_eq!(option.check(&value), expected.map_err(str::to_owned), "{}", option.name);
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [("64", Ok((64, 64))), ("48x80", Ok((48, 80))), ("48X 80", Ok((48, 80)))] {
            assert_eq!(parse_size(text), expected);
        }
        for text in ["", "x", "a", "3x", "-4", "1x2x3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
