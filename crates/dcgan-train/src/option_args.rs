//! The table of training options as arguments of the command line.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};
use dcgan_train::options::{self, Kind, Section, TrainOption, Values};
use serde_json::Value;

/// The values of the options that were given; with `RESUME` of those that `resume` can change.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptionArgs<const RESUME: bool>(pub(crate) Values);

fn rows(resume: bool) -> impl Iterator<Item = &'static TrainOption> {
    options::all().filter(move |option| !resume || option.resumable)
}

/// The name that turns a flag of a configuration file off.
fn negated(option: &TrainOption) -> String {
    format!("no-{}", option.flag())
}

/// The arguments of an option: one, or two for a flag.
fn arguments(option: &'static TrainOption, resume: bool) -> Vec<Arg> {
    let heading = match option.section {
        Section::Networks => "Networks",
        Section::Run => "Run",
        Section::Training => "Training (instead of what the preset or --config has)",
    };
    let help =
        if resume { format!("{} [default: as before]", option.summary()) } else { option.description() };
    let argument = Arg::new(option.name).long(option.flag()).help(help);
    let argument = if resume { argument } else { argument.help_heading(heading) };
    match option.kind {
        Kind::Flag | Kind::FlagOrCount => {
            let help = if resume { option.summary().to_owned() } else { option.description() };
            let argument = argument.help(format!("{help} (--{}: off)", negated(option)));
            let off = Arg::new(negated(option)).long(negated(option)).hide(true);
            let off = off.action(ArgAction::SetTrue).overrides_with(option.name);
            let argument = argument.overrides_with(negated(option));
            let argument = if matches!(option.kind, Kind::Flag) {
                argument.action(ArgAction::SetTrue)
            } else {
                let argument = argument.value_name("N").num_args(0..=1).require_equals(true);
                argument.default_missing_value("true").value_parser(parser(option.kind))
            };
            vec![argument, off]
        }
        Kind::Choice(choices) => {
            let choices = choices.iter().map(|(value, help)| PossibleValue::new(*value).help(*help));
            vec![
                argument
                    .value_name("VALUE")
                    .value_parser(PossibleValuesParser::new(choices).map(Value::String)),
            ]
        }
        Kind::Path(name) => {
            let argument = argument.value_name(name).value_hint(ValueHint::AnyPath);
            vec![argument.value_parser(parser(option.kind))]
        }
        Kind::Integer(..) => {
            let argument = argument.value_name("N").allow_negative_numbers(true);
            vec![argument.value_parser(parser(option.kind))]
        }
        Kind::Float(..) => {
            let argument = argument.value_name("X").allow_negative_numbers(true);
            vec![argument.value_parser(parser(option.kind))]
        }
        Kind::Size => {
            let argument = argument.value_name("HxW").allow_negative_numbers(true);
            vec![argument.value_parser(parser(option.kind))]
        }
        Kind::Text(name) => vec![argument.value_name(name).value_parser(parser(option.kind))],
    }
}

fn parser(kind: Kind) -> ValueParser {
    ValueParser::new(move |text: &str| kind.parse(text))
}

impl<const RESUME: bool> Args for OptionArgs<RESUME> {
    fn augment_args(command: Command) -> Command {
        command.args(rows(RESUME).flat_map(|option| arguments(option, RESUME)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const RESUME: bool> FromArgMatches for OptionArgs<RESUME> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut this = Self::default();
        this.update_from_arg_matches(matches)?;
        Ok(this)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for option in rows(RESUME) {
            let value = match option.kind {
                Kind::Flag if matches.get_flag(option.name) => Some(Value::Bool(true)),
                Kind::Flag | Kind::FlagOrCount if matches.get_flag(&negated(option)) => {
                    Some(Value::Bool(false))
                }
                Kind::Flag => None,
                _ => matches.get_one::<Value>(option.name).cloned(),
            };
            self.0.extend(value.map(|value| (option.name, value)));
        }
        Ok(())
    }
}
