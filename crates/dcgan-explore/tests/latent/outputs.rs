//! Output files: formats by extension, standard output, devices and links; and --json alone on stdout.

use crate::{grey, run, sample_images, small_model, succeed};
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};

/// Commands with the flag `--json`.
const WITH_JSON: [&str; 3] = ["concept", "neighbours", "invert"];

#[test]
fn outputs_are_files_of_the_named_format_or_streams() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    small_model(here, "small", false);
    let sample = "sample --model small --n 4";
    succeed(here, &format!("{sample} --out a.png"));
    let png = fs::read(here.join("a.png")).unwrap();
    for (name, format) in [("a.jpg", image::ImageFormat::Jpeg), ("a.webp", image::ImageFormat::WebP)] {
        succeed(here, &format!("{sample} --out {name}"));
        assert_eq!(image::guess_format(&fs::read(here.join(name)).unwrap()).unwrap(), format);
    }
    assert_eq!(grey(&here.join("a.webp")), grey(&here.join("a.png")));
    for stdout in ["-", "/dev/stdout"] {
        let output = run(here, &format!("{sample} --out {stdout}").split(' ').collect::<Vec<_>>());
        assert!(output.status.success() && output.stdout == png, "--out {stdout}");
    }
    // Text goes to stderr then, unless --quiet, which `run` adds.
    symlink("a.png", here.join("link")).unwrap();
    succeed(here, "sample --model small --n 1 --out link --save-z /dev/null");
    assert!(fs::symlink_metadata(here.join("link")).unwrap().is_symlink());
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    // One image has no frame.
    assert_eq!((grey(&here.join("a.png")).1, grey(&here.join("a.png")).2), (28, 28));
    succeed(here, "sample --model small --n 1 --grid 1x1 --out framed.png");
    assert_eq!(grey(&here.join("framed.png")).1, 32);
}

#[test]
fn json_is_alone_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    sample_images(here, 40);
    let mut attributes = "40\nOdd\n".to_owned();
    for entry in fs::read_dir(here.join("images")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_odd = if attributes.lines().count() % 2 == 1 { 1 } else { -1 };
        attributes.push_str(&format!("{name} {is_odd}\n"));
    }
    fs::write(here.join("attributes.txt"), attributes).unwrap();
    let rows = [
        "concept --data images --attributes attributes.txt --attribute Odd --candidates 4 --top 2",
        "neighbours --data images --n 2 --nearest 1",
        "invert --data images --n 1 --restarts 1 --steps 2",
    ];
    for line in rows {
        // Not quiet: progress, tables and logs are on stderr.
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dcgan-explore"));
        let output = command.current_dir(here).args(line.split(' ')).arg("--json").output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{line}: {stderr}");
        assert_eq!(stdout.lines().count(), 1, "{line}: {stdout}");
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap();
        assert!(stderr.contains(" in ") || stderr.contains("their images"), "{line}: {stderr}");
    }
    let with_json: Vec<String> = commands(here)
        .into_iter()
        .filter(|command| succeed(here, &format!("{command} --help")).contains("--json"))
        .collect();
    assert_eq!(with_json, WITH_JSON, "every command with --json has a row");
}

/// The commands that `--help` lists.
fn commands(folder: &std::path::Path) -> Vec<String> {
    let help = succeed(folder, "--help");
    let (_, list) = help.split_once("Commands:").unwrap();
    let names = list.lines().skip(1).take_while(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
}
