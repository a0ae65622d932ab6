//! A run folder: `plan.toml`, `stats.jsonl` and event files of TensorBoard, `log.txt`, `reals.png`, `samples/`,
//! `checkpoints/`, `best`, `result.json`.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{Plan, messages};
use crate::event::{Event, EventLine};
use crate::tensorboard::EventFile;
use crate::trend::Trend;
use dcgan_base::files;
use dcgan_base::time::rfc3339;
use dcgan_model::checkpoints;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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
    /// That distance between two halves of the real images: what perfect samples would have.
    #[serde(default)]
    pub real_frechet: Option<f64>,
    /// How the distance changed over the last checkpoints; none after too few of them.
    #[serde(default)]
    pub frechet_trend: Option<Trend>,
}

/// Locked by the process that trains in the folder.
const LOCK: &str = ".lock";

/// Whether a file of this name is unfinished: see [`files::AtomicFile`].
fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(".tmp-")
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RunFolderError + '_ {
    |source| RunFolderError::Io { path: path.into(), source }
}

impl RunFolder {
    /// Whether a new run can start in `path`: absent, empty, or of a run killed before it wrote its plan.
    ///
    /// # Errors
    /// A path that is not a folder or cannot be read.
    pub fn is_free(path: &Path) -> Result<bool, RunFolderError> {
        let Ok(entries) = fs::read_dir(path) else {
            // Nothing there, or an error that says what is: a file, a link whose target does not exist.
            return files::check_new_folder(path).map(|()| true).map_err(io_error(path));
        };
        for entry in entries {
            let name = entry.map_err(io_error(path))?.file_name();
            if name != LOCK && !is_temporary(&name) {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Writes `result.json`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_result(&self, result: &RunResult) -> Result<(), RunFolderError> {
        let path = self.result();
        let text = serde_json::to_string_pretty(result).map_err(io::Error::from).map_err(io_error(&path))?;
        files::write_atomic(&path, (text + "\n").as_bytes()).map_err(io_error(&path))
    }

    /// Points `best` at the checkpoint of `step`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn point_best(&self, step: u64) -> Result<(), RunFolderError> {
        let link = self.path.join("best");
        let target = Path::new("checkpoints").join(checkpoints::name(step));
        files::replace_link(&target, &link).map_err(io_error(&link))
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

    /// Opens stats.jsonl for appending and drops the lines of an interrupted run after `step`; all lines where there is
    /// no checkpoint. Starts an event file, which makes TensorBoard drop the same events.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stats(&self, step: Option<u64>) -> Result<Stats, RunFolderError> {
        let path = self.stats_file();
        let io = |source| RunFolderError::Io { path: path.clone(), source };
        // An incomplete line may end inside a character.
        match fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) => {
                let whole = |line: &&str| {
                    serde_json::from_str::<Event>(line).is_ok_and(|event| Some(event.step()) <= step)
                };
                let kept: String = text.lines().filter(whole).flat_map(|line| [line, "\n"]).collect();
                if kept != text {
                    files::write_atomic(&path, kept.as_bytes()).map_err(io)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        let event_file = EventFile::create(&self.path, step.map_or(0, |step| step + 1))?;
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
