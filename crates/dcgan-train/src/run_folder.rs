//! A run folder: `plan.toml`, `stats.jsonl` and event files of TensorBoard, `log.txt`, `reals.png`, `samples/`,
//! `checkpoints/`, `best`, `result.json`.

use crate::checkpoint::{Checkpoint, CheckpointError, State};
use crate::config::{Plan, messages};
use crate::event::{Event, EventLine};
use crate::tensorboard::{self, EventFile};
use crate::trend::Trend;
use dcgan_base::files;
use dcgan_base::time::rfc3339;
use dcgan_model::checkpoints;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::SystemTime;

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Why a run folder could not be created, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new run would overwrite files.
    #[error(
        "{} is not empty; choose another --out, or resume it: dcgan-train resume {}",
        path.display(),
        path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// No `plan.toml`.
    #[error("{} is not a run folder: it has no plan.toml", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// An invalid `plan.toml`.
    #[error("{}: {problem}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another process trains in the folder.
    #[error("another process trains in {}; wait for it or stop it first", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// All checkpoints are damaged.
    #[error(
        "no checkpoint in {} can be read; the damaged ones are set aside as damaged-*: repair one and remove `damaged-` \
         from its name, or start a new run",
        path.display()
    )]
    AllDamaged {
        /// The folder of checkpoints.
        path: PathBuf,
    },
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// `result.json`: written when the run is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Steps taken.
    pub steps: u64,
    /// Real images read.
    pub images: u64,
    /// Step of the best checkpoint.
    pub best_step: Option<u64>,
    /// Its random-feature Fréchet distance.
    pub best_frechet: Option<f64>,
    /// Its FID or KID, where that decides which checkpoint is the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_metric: Option<f64>,
    /// That distance between two halves of the real images: what perfect samples would have.
    #[serde(default)]
    pub real_frechet: Option<f64>,
    /// How the distance changed over the last checkpoints; none after too few of them.
    #[serde(default)]
    pub frechet_trend: Option<Trend>,
}

/// Locked by the process that trains in the folder.
const LOCK: &str = ".lock";

/// What a run writes before its first step, with an event file.
const START_FILES: [&str; 9] = [
    LOCK,
    "plan.toml",
    "data.json",
    "images.json.gz",
    "log.txt",
    "reals.png",
    "stats.jsonl",
    "samples",
    "checkpoints",
];

/// The names in a folder, without unfinished files.
fn names(folder: &Path) -> Result<Vec<String>, RunFolderError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let name = entry.map_err(io_error(folder))?.file_name();
        names.extend(Some(name).filter(|name| !is_temporary(name)).map(|n| n.to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// The same, empty for a folder that does not exist; none for one that cannot be read.
fn names_if_any(folder: &Path) -> Option<Vec<String>> {
    if folder.exists() { names(folder).ok() } else { Some(Vec::new()) }
}

/// Whether a file of this name is unfinished: see [`files::AtomicFile`].
fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(".tmp-")
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RunFolderError + '_ {
    |source| RunFolderError::Io { path: path.into(), source }
}

impl RunFolder {
    /// Whether a new run can start in `path`: absent, empty, or of a run that ended before its first step.
    ///
    /// # Errors
    /// A path that is not a folder or cannot be read.
    pub fn is_free(path: &Path) -> Result<bool, RunFolderError> {
        match names(path) {
            // Nothing there, or an error that says what is: a file, a link whose target does not exist.
            Err(_) => files::check_new_folder(path).map(|()| true).map_err(io_error(path)),
            Ok(names) if names.iter().all(|name| name == LOCK) => Ok(true),
            Ok(names) => Ok(Self { path: path.into() }.has_only_a_start(&names)),
        }
    }

    /// Whether the folder holds no more than what a run writes before its first step, which the next run writes again.
    fn has_only_a_start(&self, names: &[String]) -> bool {
        let is_of_start = |name: &String| {
            START_FILES.contains(&name.as_str()) || name.starts_with(tensorboard::FILE_PREFIX)
        };
        let are_steps = |text: String| {
            let events = text.lines().map(serde_json::from_str::<Event>);
            events.into_iter().any(|event| event.map_or(true, |event| event.step() > 0))
        };
        let is_first_sample = |name: &String| *name == Self::sample_name(0);
        names.iter().all(is_of_start)
            && names.iter().any(|name| name == LOCK)
            && Self::open(&self.path).is_ok()
            && names_if_any(&self.checkpoints()).is_some_and(|names| names.is_empty())
            && names_if_any(&self.samples()).is_some_and(|names| names.iter().all(is_first_sample))
            && !fs::read_to_string(self.stats_file()).is_ok_and(are_steps)
    }

    /// Starts a new run in a free folder, which the caller has locked: removes what a run that ended before its first
    /// step left, and writes `plan.toml`.
    ///
    /// # Errors
    /// [`RunFolderError::NotEmpty`] if another process has used the folder in the meantime; those of the file system.
    pub fn begin(&self, plan: &Plan) -> Result<(), RunFolderError> {
        if !Self::is_free(&self.path)? {
            return Err(RunFolderError::NotEmpty { path: self.path.clone() });
        }
        for name in names(&self.path)? {
            let path = self.path.join(&name);
            match name.as_str() {
                LOCK | "log.txt" => {}
                "samples" | "checkpoints" => fs::remove_dir_all(&path).map_err(io_error(&path))?,
                _ => fs::remove_file(&path).map_err(io_error(&path))?,
            }
        }
        self.write_plan(plan)
    }

    /// Creates the folder `path` for a new run.
    ///
    /// # Errors
    /// [`RunFolderError::NotEmpty`]; those of the file system.
    pub fn create(path: &Path) -> Result<Self, RunFolderError> {
        if !Self::is_free(path)? {
            return Err(RunFolderError::NotEmpty { path: path.into() });
        }
        fs::create_dir_all(path).map_err(io_error(path))?;
        Ok(Self { path: path.into() })
    }

    /// Creates `samples/` and `checkpoints/` where they are missing, and removes unfinished files of a killed process.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn prepare(&self) -> Result<(), RunFolderError> {
        for folder in [self.samples(), self.checkpoints()] {
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        for folder in [self.path.clone(), self.samples()] {
            for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
                let entry = entry.map_err(io_error(&folder))?;
                let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                if is_file && is_temporary(&entry.file_name()) {
                    fs::remove_file(entry.path()).map_err(io_error(&entry.path()))?;
                }
            }
        }
        Ok(())
    }

    /// `runs/<name>-NNN` below `parent` with the next free number, created.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create_next(parent: &Path, name: &str) -> Result<Self, RunFolderError> {
        fs::create_dir_all(parent).map_err(io_error(parent))?;
        let mut number = 0;
        for entry in fs::read_dir(parent).map_err(io_error(parent))? {
            let file_name = entry.map_err(io_error(parent))?.file_name();
            let digits =
                file_name.to_str().and_then(|n| n.strip_prefix(name)?.strip_prefix('-')?.parse::<u64>().ok());
            number = number.max(digits.map_or(0, |digits| digits + 1));
        }
        Self::create(&parent.join(format!("{name}-{number:03}")))
    }

    /// Opens the folder of an existing run, with its plan.
    ///
    /// # Errors
    /// [`RunFolderError::NotARun`], [`RunFolderError::Plan`].
    pub fn open(path: &Path) -> Result<(Self, Plan), RunFolderError> {
        let this = Self { path: path.into() };
        let file = this.plan();
        if !file.exists() {
            return Err(RunFolderError::NotARun { path: path.into() });
        }
        let text = fs::read_to_string(&file).map_err(io_error(&file))?;
        let problem = |problem: String| RunFolderError::Plan { path: file.clone(), problem };
        let plan: Plan = toml::from_str(&text).map_err(|error| problem(error.to_string()))?;
        let faults = messages(plan.faults());
        if !faults.is_empty() {
            return Err(problem(faults.join("; ")));
        }
        Ok((this, plan))
    }

    /// Locks the folder until the lock is dropped, also by a crash.
    ///
    /// # Errors
    /// [`RunFolderError::Busy`].
    pub fn lock(&self) -> Result<Lock, RunFolderError> {
        let path = self.path.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(RunFolderError::Busy { path: self.path.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(RunFolderError::Io { path, source }),
        }
    }

    /// Whether a process trains in the folder now.
    pub fn is_busy(&self) -> bool {
        let is_locked = |file: File| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
        File::open(self.path.join(LOCK)).is_ok_and(is_locked)
    }

    /// Writes `plan.toml`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), RunFolderError> {
        let path = self.plan();
        let text = toml::to_string(plan)
            .map_err(|error| RunFolderError::Plan { path: path.clone(), problem: error.to_string() })?;
        files::write_atomic(&path, text.as_bytes()).map_err(io_error(&path))
    }

    /// Removes `reals.png`.
    ///
    /// # Errors
    /// Those of the file system, except that it is missing.
    pub fn remove_reals(&self) -> Result<(), RunFolderError> {
        let path = self.reals();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(io_error(&path)),
        }
    }

    /// The steps of `result.json`; none without a valid one.
    pub fn finished_step(&self) -> Option<u64> {
        let text = fs::read_to_string(self.result()).ok()?;
        Some(serde_json::from_str::<RunResult>(&text).ok()?.steps)
    }

    /// Writes `result.json`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_result(&self, result: &RunResult) -> Result<(), RunFolderError> {
        let path = self.result();
        let text = serde_json::to_string_pretty(result).map_err(io::Error::from).map_err(io_error(&path))?;
        files::write_atomic(&path, (text + "\n").as_bytes()).map_err(io_error(&path))
    }

    /// Points `best` at the checkpoint of `step`. On a file system without symbolic links, such as exFAT, there is no
    /// `best`: [`checkpoints::best`] finds the step in the newest checkpoint.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn point_best(&self, step: u64) -> Result<(), RunFolderError> {
        static WARNED: Once = Once::new();
        let link = self.path.join("best");
        let target = Path::new("checkpoints").join(checkpoints::name(step));
        match files::replace_link(&target, &link) {
            Err(error) if is_without_links(&error) => {
                let link = link.display();
                WARNED.call_once(|| tracing::warn!("{link}: {error}: no link to the best checkpoint"));
                Ok(())
            }
            linked => linked.map_err(io_error(&link)),
        }
    }

    /// The newest readable checkpoint, and the errors of newer ones, which are renamed to `damaged-…`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn latest(&self) -> Result<(Option<Checkpoint>, Vec<CheckpointError>), RunFolderError> {
        let folder = self.checkpoints();
        let mut damaged = Vec::new();
        for step in checkpoints::list(&folder).map_err(CheckpointError::from)?.into_iter().rev() {
            let path = folder.join(checkpoints::name(step));
            match Checkpoint::read(&path) {
                Ok(found) => return Ok((Some(found), damaged)),
                Err(error) if error.is_damage() => damaged.push(error),
                Err(error) => return Err(error.into()),
            }
            let aside = folder.join(format!("damaged-{}", checkpoints::name(step)));
            if aside.exists() {
                fs::remove_dir_all(&aside).map_err(io_error(&aside))?;
            }
            fs::rename(&path, &aside).map_err(io_error(&path))?;
        }
        // A new start would drop stats.jsonl and hide the loss: the user has to decide.
        let names =
            fs::read_dir(&folder).map_err(io_error(&folder))?.flatten().map(|entry| entry.file_name());
        if names.into_iter().any(|name| name.to_string_lossy().starts_with("damaged-")) {
            return Err(RunFolderError::AllDamaged { path: folder });
        }
        Ok((None, damaged))
    }

    /// Opens stats.jsonl for appending and drops the lines of an interrupted run after the checkpoint of `resumed`; all
    /// lines where there is no checkpoint. Starts an event file, which makes TensorBoard drop the same events.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stats(&self, resumed: Option<&State>) -> Result<Stats, RunFolderError> {
        let path = self.stats_file();
        let io = |source| RunFolderError::Io { path: path.clone(), source };
        let step = resumed.map(|state| state.step);
        let is_unrecorded = resumed.is_some_and(|state| state.unrecorded);
        // The event is in the checkpoint, or it is not written again after it.
        let is_kept = |event: &Event| {
            let is_repeated = is_unrecorded && Some(event.step()) == step && event.is_of_recording();
            Some(event.step()) <= step && !is_repeated
        };
        let mut of_last_step = Vec::new();
        // An incomplete line may end inside a character.
        match fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) => {
                let mut kept = String::with_capacity(text.len());
                for line in text.lines() {
                    if let Some(event) = serde_json::from_str::<Event>(line).ok().filter(is_kept) {
                        kept.extend([line, "\n"]);
                        of_last_step.extend(Some(event).filter(|event| Some(event.step()) == step));
                    }
                }
                if kept != text {
                    files::write_atomic(&path, kept.as_bytes()).map_err(io)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        let first = step.map_or(0, |step| if is_unrecorded { step } else { step + 1 });
        let mut event_file = EventFile::create(&self.path, first)?;
        if is_unrecorded {
            of_last_step.iter().try_for_each(|event| event_file.append(event, &self.path))?;
        }
        Ok(Stats { file, path, folder: self.path.clone(), event_file })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// `checkpoints/`
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
    /// `samples/`
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }
    /// `samples/NNNNNNNN.png`, by real images read.
    pub fn sample(&self, images: u64) -> PathBuf {
        self.samples().join(Self::sample_name(images))
    }
    /// A path of an event, which is relative to the folder.
    pub fn event_path(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }
    /// `NNNNNNNN.png`
    pub(crate) fn sample_name(images: u64) -> String {
        format!("{images:08}.png")
    }
    /// `stats.jsonl`
    pub fn stats_file(&self) -> PathBuf {
        self.path.join("stats.jsonl")
    }
    /// `plan.toml`
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.toml")
    }
    /// `reals.png`
    pub fn reals(&self) -> PathBuf {
        self.path.join("reals.png")
    }
    /// `log.txt`
    pub fn log(&self) -> PathBuf {
        self.path.join("log.txt")
    }
    /// `result.json`
    pub fn result(&self) -> PathBuf {
        self.path.join("result.json")
    }
}

/// The lock of a run folder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The events of a run on the disk: stats.jsonl, one event a line, and an event file of TensorBoard.
#[derive(Debug)]
pub struct Stats {
    file: File,
    path: PathBuf,
    folder: PathBuf,
    event_file: EventFile,
}

impl Stats {
    /// Appends one event with the time. The image of a sample is read from the file that the event names.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&mut self, event: &Event) -> Result<(), RunFolderError> {
        let line = EventLine { event: event.clone(), time: Some(rfc3339(SystemTime::now())) };
        let line = serde_json::to_string(&line).map_err(io::Error::from).map_err(io_error(&self.path))?;
        self.file.write_all((line + "\n").as_bytes()).map_err(io_error(&self.path))?;
        self.event_file.append(event, &self.folder)
    }

    /// Flushes to the disk, so that a checkpoint never lacks the lines before it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&self) -> Result<(), RunFolderError> {
        self.file.sync_all().map_err(io_error(&self.path))?;
        self.event_file.sync()
    }
}
/// Whether a link was refused as file systems without links do: exFAT with EPERM, network drives with EOPNOTSUPP or
/// ENOSYS.
fn is_without_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}
