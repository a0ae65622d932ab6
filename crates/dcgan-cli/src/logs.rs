//! Logging to stderr, above the progress bars, and optionally to a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::MultiProgress;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Target of the error that ends the program. It is logged to the file only, because [`crate::run`] prints it.
pub(crate) const FAILURE_TARGET: &str = "dcgan_cli::failure";

/// Logging options of every binary; use with `#[command(flatten)]`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogArgs {
    /// Log more to stderr: -v for debug messages, -vv for everything (RUST_LOG overrides)
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = 900)]
    pub verbose: u8,
    /// Log only warnings and errors to stderr, without progress
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 901)]
    pub quiet: bool,
}

impl LogArgs {
    /// The filter used without RUST_LOG. `dcgan` is the common prefix of this workspace's crates.
    fn directives(&self) -> &'static str {
        match (self.quiet, self.verbose) {
            (true, _) => "warn",
            (false, 0) => "warn,dcgan=info",
            (false, 1) => "info,dcgan=debug",
            (false, _) => "debug,dcgan=trace",
        }
    }
}

/// The logger of this process. It shares the terminal with [`crate::Progress`].
#[derive(Clone, Debug)]
pub struct Logging {
    bars: MultiProgress,
    file: LogFile,
    quiet: bool,
    /// Whether lines on stderr have the date.
    dates: Arc<AtomicBool>,
}

impl Logging {
    /// Installs the logger. If the process already has one, that one stays active.
    pub fn init(args: &LogArgs) -> Self {
        let (bars, file, dates) = (MultiProgress::new(), LogFile::default(), Arc::default());
        let logging = Self { bars, file, quiet: args.quiet, dates };
        let on_stderr = layer()
            .event_format(Line { full_date: Arc::clone(&logging.dates) })
            .with_ansi(io::stderr().is_terminal())
            .with_writer(AboveBars(logging.bars.clone()))
            .with_filter(filter(args.directives()).and(filter_fn(|event| event.target() != FAILURE_TARGET)));
        // --quiet applies to the terminal only; the log file stays complete.
        let file_args = LogArgs { quiet: false, ..*args };
        let in_file = layer()
            .event_format(Line { full_date: Arc::new(true.into()) })
            .with_ansi(false)
            .with_writer(logging.file.clone())
            .with_filter(filter(file_args.directives()));
        // Fails only if a subscriber is already installed, as in tests.
        let _ = tracing_subscriber::registry().with(on_stderr).with(in_file).try_init();
        logging
    }

    /// From now on lines on stderr have the date, for programs that run for days.
    pub fn print_dates(&self) {
        self.dates.store(true, Ordering::Relaxed);
    }

    /// From now on also appends every line to the file at `path`, without colors.
    ///
    /// # Errors
    ///
    /// The file cannot be opened for appending.
    pub fn also_to_file(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        *self.file.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }
}

fn filter(default: &str) -> EnvFilter {
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).parse_lossy(default),
    }
}

/// Writes to stderr while the progress bars are suspended, so that log lines and bars do not overlap.
#[derive(Clone, Debug)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Checked on every write: the terminal can be closed during a long run, and then the bars cannot be cleared.
        if io::stderr().is_terminal() {
            self.0.suspend(|| io::stderr().write_all(bytes))?;
        } else {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log file, if one is set. Earlier lines are not recorded.
#[derive(Clone, Debug, Default)]
struct LogFile(Arc<Mutex<Option<File>>>);

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.write_all(bytes).map(|()| bytes.len()),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// `12:34:56 message`. Levels other than info are printed with their name and module.
struct Line {
    full_date: Arc<AtomicBool>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        write!(out, "{} ", utc(seconds, self.full_date.load(Ordering::Relaxed)))?;
        let metadata = event.metadata();
        let (level, target) = (*metadata.level(), metadata.target());
        if level != Level::INFO {
            let color = match level {
                Level::ERROR => "31",
                Level::WARN => "33",
                _ => "2",
            };
            if out.has_ansi_escapes() {
                write!(out, "\u{1b}[{color}m{level}\u{1b}[0m {target}: ")?;
            } else {
                write!(out, "{level} {target}: ")?;
            }
        }
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// The time `seconds` after 1970 in UTC: `12:34:56`, or `2026-01-31 12:34:56Z` with the date.
fn utc(seconds: u64, with_date: bool) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    if !with_date {
        return time;
    }
    // Days to a civil date, in eras of 400 years that start on 1 March, so the leap day is the last day of its year.
    // Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {time}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_dates() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_709_164_800, "2024-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
        ] {
            assert_eq!(utc(seconds, true), date);
            assert_eq!(utc(seconds, false), date[11..19]);
        }
    }

    #[test]
    fn the_file_gets_later_lines_without_colors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.txt");
        let logging = Logging::init(&LogArgs { quiet: true, ..LogArgs::default() });
        tracing::info!("before");
        logging.also_to_file(&path).unwrap();
        tracing::info!(step = 3, "after");
        tracing::warn!("careful");
        crate::run("x", || anyhow::bail!("the end"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("before") && !text.contains('\u{1b}'), "{text}");
        let after_date: Vec<_> = text.lines().filter_map(|line| line.get(21..)).collect();
        assert_eq!(
            after_date,
            ["after step=3", "WARN dcgan_cli::logs::tests: careful", "ERROR dcgan_cli::failure: x: the end"]
        );
    }
}
