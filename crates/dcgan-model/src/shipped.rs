//! The folders of the models that come with the programs.

use std::path::{Path, PathBuf};

/// The folder of the model `name` that comes with the programs, if it is there: in `models` of the current folder, as
/// in the repository; in `models` beside the running program, as in a release archive; or in `share/dcgan-rs/models`
/// beside the program's folder, as installed.
pub fn shipped_model(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok();
    find(Path::new(""), program.as_deref().and_then(Path::parent), name)
}

fn find(current: &Path, program: Option<&Path>, name: &str) -> Option<PathBuf> {
    let beside = program.map(|folder| folder.join("models"));
    let installed = program.and_then(Path::parent).map(|folder| folder.join("share/dcgan-rs/models"));
    let folders = [Some(current.join("models")), beside, installed];
    folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join(name))
        .find(|path| path.join("config.json").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn folders_are_searched_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (current, program) = (folder.path().join("here"), folder.path().join("usr/bin"));
        let places =
            [folder.path().join("usr/share/dcgan-rs/models"), program.join("models"), current.join("models")];
        let found = || find(&current, Some(&program), "faces");
        assert_eq!(found(), None);
        for place in places {
            let model = place.join("faces");
            fs::create_dir_all(&model).unwrap();
            assert_ne!(found().as_ref(), Some(&model), "no config.json yet");
            fs::write(model.join("config.json"), "{}").unwrap();
            assert_eq!(found(), Some(model));
        }
    }
}
