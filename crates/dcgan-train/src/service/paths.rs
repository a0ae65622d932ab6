//! Path containment: paths in requests are resolved below a root folder, or refused.
//!
//! A valid path is relative and has no `..`; with symlinks followed it is below the root, and no symlink inside it
//! points out of the root. A process that may write below a root could still replace a file between this check and its
//! use: roots must be writable by the operator only.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A canonicalized folder below which requests may name files.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

/// Why a path was refused. Messages do not tell whether a file outside the root exists.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("invalid path {0:?}: expected a path relative to the root, without `..`")]
    Invalid(String),
    #[error("{0:?} does not exist, or is outside the root")]
    NotFound(String),
    #[error("{name:?} contains a symlink that points outside the root: {link}")]
    Symlink { name: String, link: String },
    #[error("cannot read {name:?}: {problem}")]
    Unreadable { name: String, problem: String },
}

impl Root {
    /// # Errors
    /// The folder does not exist or is not a folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        if !path.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The canonical path of `name`, which exists below the root and contains no symlink that points out of it.
    ///
    /// # Errors
    /// [`PathError`].
    pub(crate) fn resolve(&self, name: &str) -> Result<PathBuf, PathError> {
        let relative = Path::new(name);
        let is_normal = relative.components().all(|component| matches!(component, Component::Normal(_)));
        if name.is_empty() || name.contains('\0') || !is_normal {
            return Err(PathError::Invalid(name.to_owned()));
        }
        let path =
            fs::canonicalize(self.0.join(relative)).map_err(|_| PathError::NotFound(name.to_owned()))?;
        if path == self.0 || !path.starts_with(&self.0) {
            return Err(PathError::NotFound(name.to_owned()));
        }
        self.check_links(name, &path)?;
        Ok(path)
    }

    /// Refuses symlinks below `path` that point out of the root. Broken symlinks are ignored; the data reader skips
    /// them.
    fn check_links(&self, name: &str, path: &Path) -> Result<(), PathError> {
        let unreadable =
            |error: io::Error| PathError::Unreadable { name: name.to_owned(), problem: error.to_string() };
        let mut seen = HashSet::new();
        let mut pending = Vec::from_iter(path.is_dir().then(|| path.to_path_buf()));
        while let Some(folder) = pending.pop() {
            if !seen.insert(folder.clone()) {
                continue;
            }
            let entries = match fs::read_dir(&folder) {
                // An active run removes old checkpoints.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(unreadable)?,
            };
            for entry in entries {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_symlink()
                    && let Ok(target) = fs::canonicalize(entry.path())
                {
                    if !target.starts_with(&self.0) {
                        let link = entry.file_name().to_string_lossy().into_owned();
                        return Err(PathError::Symlink { name: name.to_owned(), link });
                    }
                    if target.is_dir() {
                        pending.push(target);
                    }
                }
            }
        }
        Ok(())
    }

    /// Names and canonical paths of the root's entries in order, at most `limit`, without hidden ones and symlinks out
    /// of the root.
    ///
    /// # Errors
    /// The root cannot be read.
    pub(crate) fn entries(&self, limit: usize) -> io::Result<Vec<(String, PathBuf)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let real = fs::canonicalize(self.0.join(&name));
            entries.extend(real.ok().filter(|path| path.starts_with(&self.0)).map(|path| (name, path)));
        }
        entries.sort();
        entries.truncate(limit);
        Ok(entries)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_confined_to_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for path in ["root/set/inner", "root/linked", "root/loop", "outside", "root-too"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("outside/secret.png"), "").unwrap();
        fs::write(at("root/set/a.png"), "").unwrap();
        symlink(at("outside"), at("root/out")).unwrap();
        symlink(at("root/set"), at("root/alias")).unwrap();
        symlink(at("outside/secret.png"), at("root/linked/a.png")).unwrap();
        symlink(at("root/loop"), at("root/loop/again")).unwrap();
        symlink("nowhere", at("root/set/dead")).unwrap();
        let root = Root::open(&at("root")).unwrap();
        let real = |name: &str| fs::canonicalize(at(name)).unwrap();
        // name, its canonical path or a part of the error
        for (name, expected) in [
            ("set", Ok("root/set")),
            ("set/inner", Ok("root/set/inner")),
            ("set/a.png", Ok("root/set/a.png")),
            ("alias", Ok("root/set")),
            ("loop", Ok("root/loop")),
            ("", Err("invalid path")),
            (".", Err("invalid path")),
            ("..", Err("invalid path")),
            ("set/../set", Err("invalid path")),
            ("../outside", Err("invalid path")),
            ("../root-too", Err("invalid path")),
            ("/etc/passwd", Err("invalid path")),
            ("set\0", Err("invalid path")),
            ("absent", Err("does not exist")),
            ("out", Err("does not exist")),
            ("out/secret.png", Err("does not exist")),
            ("linked", Err("contains a symlink that points outside")),
        ] {
            match (root.resolve(name), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, real(expected), "{name:?}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{name:?}: {error}"),
                (result, _) => panic!("{name:?}: {result:?}"),
            }
        }
        let names: Vec<String> = root.entries(10).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["alias", "linked", "loop", "set"]);
    }
}
