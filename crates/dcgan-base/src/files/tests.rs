//! Kinds of paths, links, permissions, crashes.

use super::*;

#[test]
fn a_file_is_complete_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    write_atomic(&path, b"first").unwrap();
    let mut dropped = AtomicFile::create(&path).unwrap();
    dropped.write_all(b"half").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
    drop(dropped);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file remained");
    let mut second = AtomicFile::create(&path).unwrap();
    second.write_all(b"second").unwrap();
    second.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    // The path is a folder: the rename fails and no temporary file remains.
    let taken = folder.path().join("folder");
    fs::create_dir(&taken).unwrap();
    write_atomic(&taken, b"x").unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_temporary_file_of_a_killed_process_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".tmp-f"), b"longer than the new content").unwrap();
    write_atomic(&folder.path().join("f"), b"new").unwrap();
    assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"new");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn links_at_the_temporary_name_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("precious"), b"mine").unwrap();
    std::os::unix::fs::symlink(at("precious"), at(".tmp-f")).unwrap();
    write_atomic(&at("f"), b"new").unwrap();
    assert_eq!(
        (fs::read(at("precious")).unwrap(), fs::read(at("f")).unwrap()),
        (b"mine".into(), b"new".into())
    );
    // Replaced while it was open: the file of the other process does not appear as the complete one.
    let mut file = AtomicFile::create(&at("f")).unwrap();
    file.write_all(b"own").unwrap();
    fs::remove_file(at(".tmp-f")).unwrap();
    std::os::unix::fs::symlink(at("precious"), at(".tmp-f")).unwrap();
    let error = file.commit().unwrap_err().to_string();
    assert!(error.contains("replaced by another process"), "{error}");
    assert!(fs::symlink_metadata(at("f")).unwrap().is_file());
    // A folder cannot be replaced.
    fs::create_dir(at(".tmp-f")).unwrap();
    assert!(write_atomic(&at("f"), b"x").unwrap_err().to_string().contains(".tmp-f"));
}

#[test]
fn long_names_have_temporary_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n".repeat(255));
    write_atomic(&path, b"x").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"x");
}

#[test]
fn permissions_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, b"secret").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    write_atomic(&path, b"new").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn writers_of_different_processes_do_not_collide() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    // `other` has the name that another process can use at the same time.
    let mut own = AtomicFile::create_per_process(&path).unwrap();
    let mut other = AtomicFile::create(&path).unwrap();
    own.write_all(b"own").unwrap();
    other.write_all(b"other").unwrap();
    assert_eq!((own.path(), other.path()), (&*path, &*path));
    other.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"other");
    own.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"own");
    drop(AtomicFile::create_per_process(&path).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file remained");
}

/// Every kind of path: what an output there is, and that nothing but regular files is replaced.
#[test]
fn only_regular_files_are_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), b"old").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    for (target, link) in [
        ("file", "link"),
        ("link", "second"),
        ("absent", "dangling"),
        ("folder", "to-folder"),
        ("pipe", "to-pipe"),
        ("/dev/null", "to-null"),
        ("loop", "loop"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    let rows: &[(PathBuf, Result<Destination, &str>)] = &[
        ("-".into(), Ok(Destination::Stdout)),
        ("/dev/stdout".into(), Ok(Destination::Stdout)),
        ("/dev/null".into(), Ok(Destination::Stream("/dev/null".into()))),
        (at("new"), Ok(Destination::File(at("new")))),
        (at("file"), Ok(Destination::File(at("file")))),
        (at("link"), Ok(Destination::File(at("file")))),
        (at("second"), Ok(Destination::File(at("file")))),
        (at("pipe"), Ok(Destination::Stream(at("pipe")))),
        (at("to-pipe"), Ok(Destination::Stream(at("pipe")))),
        (at("to-null"), Ok(Destination::Stream("/dev/null".into()))),
        (at("dangling"), Err("absent, which does not exist")),
        (at("folder"), Err("is a folder")),
        (at("to-folder"), Err("is a folder")),
        (at("folder/.."), Err("is a folder")),
        (at("loop"), Err("too many links")),
        (at("new/"), Err("does not name a file")),
        (at("no/where"), Err("the folder")),
        (at("file/where"), Err("ot a directory")),
        ("".into(), Err("does not name a file")),
    ];
    for (path, expected) in rows {
        let found = Destination::of(path).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{}", path.display()),
            (Err(found), Err(part)) => assert!(found.contains(part), "{}: {found}", path.display()),
            _ => panic!("{}: {found:?}, expected {expected:?}", path.display()),
        }
        if expected.is_err() {
            write_atomic(path, b"x").unwrap_err();
            check_output(path).unwrap_err();
        }
    }
    // A descriptor of a regular file: its content stays.
    let open = File::options().append(true).open(at("file")).unwrap();
    let descriptor = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    write_atomic(Path::new(&descriptor), b" and more").unwrap();
    assert_eq!(fs::read(at("file")).unwrap(), b"old and more");
    let before = fs::read_dir(folder.path()).unwrap().count();
    for name in ["link", "second"] {
        check_output(&at(name)).unwrap();
        write_atomic(&at(name), name.as_bytes()).unwrap();
        assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink(), "{name}");
        assert_eq!(fs::read(at("file")).unwrap(), name.as_bytes());
    }
    let reader = std::thread::spawn({
        let pipe = at("pipe");
        move || fs::read(pipe).unwrap()
    });
    write_atomic(&at("to-pipe"), b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    write_atomic(&at("to-null"), b"x").unwrap();
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "files remained");
}

#[test]
fn new_folders() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["empty", "full", "full/inner"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("file"), b"").unwrap();
    for (target, link) in [("empty", "to-empty"), ("full", "to-full"), ("absent", "dangling")] {
        symlink(target, at(link)).unwrap();
    }
    for name in ["empty", "to-empty", "new", "new/inner"] {
        check_new_folder(&at(name)).unwrap();
    }
    let rows = [
        (at("full"), "is not empty"),
        (at("to-full"), "is not empty"),
        (at("file"), "is not a folder"),
        ("/dev/null".into(), "is not a folder"),
        (at("dangling"), "does not exist"),
        (at("file/inner"), "ot a directory"),
        (STDOUT.into(), "is standard output"),
    ];
    for (path, expected) in rows {
        let found = check_new_folder(&path).unwrap_err().to_string();
        assert!(found.contains(expected), "{}: {found}", path.display());
    }
}
