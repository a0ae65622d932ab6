//! Containment: what a request names lies below the root that was opened for it, or is refused.
//!
//! A name from a request is relative and has no `..`; what it leads to, links followed, is below the root; and no link
//! inside it leads out. Whoever may change files below a root could still swap one between this check and its use: roots
//! belong to the operator.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A folder that requests may name things in, with all links in its own path resolved.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

/// Why a name was refused. The same sentence whether something is there or not, so that nothing outside can be probed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum PathFault {
    #[error("{0:?} is not a name: expected a path relative to the root, without `..`")]
    NotAName(String),
    #[error("{0:?} does not exist, or leads out of the root")]
    Absent(String),
    #[error("{name:?} holds a link that leads out of the root: {link}")]
    LeadsOut { name: String, link: String },
    #[error("{name:?} cannot be read: {problem}")]
    Unreadable { name: String, problem: String },
}

impl Root {
    /// # Errors
    /// A folder that is not there.
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

    /// The real path of `name`, which exists below the root and holds no link that leads out of it.
    ///
    /// # Errors
    /// [`PathFault`].
    pub(crate) fn resolve(&self, name: &str) -> Result<PathBuf, PathFault> {
        let relative = Path::new(name);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || name.contains('\0') || !plain {
            return Err(PathFault::NotAName(name.to_owned()));
        }
        let path = fs::canonicalize(self.0.join(relative)).map_err(|_| PathFault::Absent(name.to_owned()))?;
        if path == self.0 || !path.starts_with(&self.0) {
            return Err(PathFault::Absent(name.to_owned()));
        }
        self.check_links(name, &path)?;
        Ok(path)
    }

    /// Refuses links below `path` that lead out of the root. Dead links are left to the reader, which skips them.
    fn check_links(&self, name: &str, path: &Path) -> Result<(), PathFault> {
        let unreadable =
            |error: io::Error| PathFault::Unreadable { name: name.to_owned(), problem: error.to_string() };
        let mut seen = HashSet::new();
        let mut open = Vec::from_iter(path.is_dir().then(|| path.to_path_buf()));
        while let Some(folder) = open.pop() {
            if !seen.insert(folder.clone()) {
                continue;
            }
            let entries = match fs::read_dir(&folder) {
                // A run that goes on removes old checkpoints.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(unreadable)?,
            };
            for entry in entries {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_symlink()
                    && let Ok(target) = fs::canonicalize(entry.path())
                {
                    if !target.starts_with(&self.0) {
                        let link = entry.file_name().to_string_lossy().into_owned();
                        return Err(PathFault::LeadsOut { name: name.to_owned(), link });
                    }
                    if target.is_dir() {
                        open.push(target);
                    }
                }
            }
        }
        Ok(())
    }

    /// Names of the entries of the root in order, at most `limit`: neither hidden nor leading out.
    ///
    /// # Errors
    /// A root that cannot be read.
    pub(crate) fn entries(&self, limit: usize) -> io::Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let real = fs::canonicalize(self.0.join(&name));
            found.extend(real.ok().filter(|path| path.starts_with(&self.0)).map(|path| (name, path)));
        }
        found.sort();
        found.truncate(limit);
        Ok(found)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_stay_below_the_root() {
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
        // name, where it leads or the beginning of the refusal
        for (name, expected) in [
            ("set", Ok("root/set")),
            ("set/inner", Ok("root/set/inner")),
            ("set/a.png", Ok("root/set/a.png")),
            ("alias", Ok("root/set")),
            ("loop", Ok("root/loop")),
            ("", Err("is not a name")),
            (".", Err("is not a name")),
            ("..", Err("is not a name")),
            ("set/../set", Err("is not a name")),
            ("../outside", Err("is not a name")),
            ("../root-too", Err("is not a name")),
            ("/etc/passwd", Err("is not a name")),
            ("set\0", Err("is not a name")),
            ("absent", Err("does not exist")),
            ("out", Err("does not exist")),
            ("out/secret.png", Err("does not exist")),
            ("linked", Err("holds a link that leads out")),
        ] {
            match (root.resolve(name), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, real(expected), "{name:?}"),
                (Err(fault), Err(part)) => assert!(fault.to_string().contains(part), "{name:?}: {fault}"),
                (found, _) => panic!("{name:?}: {found:?}"),
            }
        }
        let names: Vec<String> = root.entries(10).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["alias", "linked", "loop", "set"]);
    }
}
