//! Logging to stderr, above the progress bars, and optionally to a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use dcgan_base::time;
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

/// The process in lines of the log, where it is another than the first of a command.
static LINE_NAME: OnceLock<String> = OnceLock::new();

/// The logger of this process. It shares the terminal with [`crate::Progress`].
#[derive(Clone, Debug)]
pub struct Logging {
    bars: MultiProgress,
    file: LogFile,
    quiet: bool,
    verbose: bool,
    /// Whether stderr gets errors alone.
    only_errors: Arc<AtomicBool>,
    /// Whether lines on stderr have the date.
    dates: Arc<AtomicBool>,
}

impl Logging {
    /// Installs the logger. If the process already has one, that one stays active.
    pub fn init(args: &LogArgs) -> Self {
        let (quiet, verbose) = (args.quiet, args.verbose > 0);
        let (bars, file, dates) = (MultiProgress::new(), LogFile::default(), Arc::default());
        let logging = Self { bars, file, quiet, verbose, only_errors: Arc::default(), dates };
        let only_errors = Arc::clone(&logging.only_errors);
        let goes_to_stderr = filter_fn(move |event| {
            event.target() != FAILURE_TARGET
                && (*event.level() == Level::ERROR || !only_errors.load(Ordering::Relaxed))
        });
        let on_stderr = layer()
            .event_format(Line { full_date: Arc::clone(&logging.dates) })
            .with_ansi(io::stderr().is_terminal())
            .with_writer(AboveBars(logging.bars.clone()))
            .with_filter(filter(args.directives()).and(goes_to_stderr));
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

    /// This process is one of several of a command, which messages name. All but the first log errors alone, or
    /// everything with -v.
    pub fn set_process(&self, name: &str, is_first: bool) {
        crate::exit::set_process_name(name);
        if !is_first {
            let _ = LINE_NAME.set(name.to_owned());
            self.only_errors.store(!self.verbose, Ordering::Relaxed);
        }
    }

    /// Appends every line to the file at `path` as well, without colors: the first lines of the process that were
    /// logged before, up to 64 KiB, and all from now on.
    ///
    /// # Errors
    ///
    /// The file cannot be opened for appending.
    pub fn also_to_file(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut target = self.file.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Target::Memory(early) = &*target {
            file.write_all(early)?;
        }
        *target = Target::File(file);
        Ok(())
    }

    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet || self.only_errors.load(Ordering::Relaxed)
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

/// Bytes of lines that are kept until a log file is set: many commands never set one.
const EARLY_BYTES: usize = 64 * 1024;

/// Where the lines of the log file go.
#[derive(Debug)]
enum Target {
    /// No file is set yet.
    Memory(Vec<u8>),
    File(File),
}

/// The log file.
#[derive(Clone, Debug)]
struct LogFile(Arc<Mutex<Target>>);

impl Default for LogFile {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Target::Memory(Vec::new()))))
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Target::File(file) => file.write_all(bytes)?,
            Target::Memory(early) if early.len() + bytes.len() <= EARLY_BYTES => early.extend(bytes),
            Target::Memory(_) => {}
        }
        Ok(bytes.len())
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
        let now = SystemTime::now();
        if self.full_date.load(Ordering::Relaxed) {
            write!(out, "{} {}Z ", time::date(now), time::time_of_day(now))?;
        } else {
            write!(out, "{} ", time::time_of_day(now))?;
        }
        if let Some(process) = LINE_NAME.get() {
            write!(out, "[{process}] ")?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_gets_all_lines_without_colors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.txt");
        let logging = Logging::init(&LogArgs { quiet: true, ..LogArgs::default() });
        tracing::info!("before");
        logging.also_to_file(&path).unwrap();
        tracing::info!(step = 3, "after");
        tracing::warn!("careful");
        crate::run("x", || anyhow::bail!("the end"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        let expected = [
            "before",
            "after step=3",
            "WARN dcgan_cli::logs::tests: careful",
            "ERROR dcgan_cli::failure: x: the end",
        ];
        // Other tests of this process log to the same file.
        let after_date = text.lines().filter_map(|line| line.get(21..));
        assert_eq!(after_date.filter(|line| expected.contains(line)).collect::<Vec<_>>(), expected);
    }
}
