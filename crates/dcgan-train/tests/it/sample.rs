//! `sample`: grids, single images, formats, kinds of outputs; and --json alone on stdout.

use crate::support::{TINY, command, contents, run, succeed};
use image::{DynamicImage, GenericImageView, ImageFormat};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;

/// A model of 8 x 8 grey images in `folder`.
fn model(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(path("tiny.toml"), TINY).unwrap();
    succeed(&["run", "--quiet", "--config", &path("tiny.toml"), "--out", &path("run"), "--steps", "3"]);
    path("run")
}

/// Pixels of cell `i` of a grid of `columns` columns of 8 x 8 images enlarged `scale` times.
fn cell(grid: &DynamicImage, i: u32, columns: u32, (gap, scale): (u32, u32)) -> Vec<u8> {
    let side = 8 * scale;
    let at = |i: u32| gap + i * (side + gap);
    grid.crop_imm(at(i % columns), at(i / columns), side, side).to_luma8().into_raw()
}

#[test]
fn single_images_are_those_of_the_grid() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let model = model(folder.path());
    let sample = ["sample", "--quiet", "--model", &model, "--seed", "3"];
    let draw = |rest: &[&str]| succeed(&[&sample[..], rest].concat());
    // More than a chunk of images, in a grid of 18 columns.
    draw(&["--n", "300", "--out", &path("grid.png")]);
    draw(&["--n", "300", "--each", &path("each")]);
    draw(&["--n", "300", "--each", &path("each.zip")]);
    draw(&["--n", "5", "--scale", "3", "--each", &path("large")]);
    draw(&["--n", "5", "--scale", "3", "--gap", "1", "--out", &path("large.png")]);
    let (grid, large) = (image::open(at("grid.png")).unwrap(), image::open(at("large.png")).unwrap());
    assert_eq!((large.width(), large.height()), (3 * 25 + 1, 2 * 25 + 1));
    let mut zip = zip::ZipArchive::new(fs::File::open(at("each.zip")).unwrap()).unwrap();
    assert_eq!(zip.len(), 300);
    for i in 0..300 {
        let name = format!("{i:08}.png");
        let bytes = fs::read(at("each").join(&name)).unwrap();
        let mut packed = Vec::new();
        zip.by_name(&name).unwrap().read_to_end(&mut packed).unwrap();
        assert!(packed == bytes, "{name} of the zip");
        let image = image::load_from_memory(&bytes).unwrap();
        assert_eq!(image.dimensions(), (8, 8));
        assert!(image.to_luma8().into_raw() == cell(&grid, i, 18, (2, 1)), "{name}");
        if i < 5 {
            let image = image::open(at("large").join(&name)).unwrap().to_luma8();
            assert!(image.as_raw() == &cell(&large, i, 3, (1, 3)), "{name}, enlarged");
            let enlarged = image::load_from_memory(&bytes).unwrap().to_luma8();
            let nearest = |x: u32, y: u32| *enlarged.get_pixel(x / 3, y / 3);
            assert!(image.enumerate_pixels().all(|(x, y, pixel)| *pixel == nearest(x, y)), "{name}");
        }
    }
    assert_eq!(contents(&at("each")).len(), 300);
    // One image has no frame, unless a gap is given.
    for (rest, side) in [(&[][..], 8), (&["--gap", "2"], 12), (&["--scale", "4"], 32)] {
        draw(&[rest, &["--n", "1", "--out", &path("one.png")]].concat());
        assert_eq!(image::open(at("one.png")).unwrap().dimensions(), (side, side), "{rest:?}");
    }
    draw(&["--n", "1", "--out", &path("one.png")]);
    assert_eq!(image::open(at("one.png")).unwrap().to_luma8().into_raw(), cell(&grid, 0, 18, (2, 1)));
    draw(&["--n", "4", "--gap", "0", "--out", &path("tight.png")]);
    assert_eq!(image::open(at("tight.png")).unwrap().dimensions(), (16, 16));
}

#[test]
fn an_interrupted_folder_continues() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let model = model(folder.path());
    let sample = ["sample", "--model", &model, "--each"];
    let whole = path("whole");
    succeed(&[&sample[..], &[&whole, "--n", "2000"]].concat());
    // Killed in the middle, and a last file cut short as by a full disk.
    let each = path("each");
    let mut child = command(&[&sample[..], &[&each, "--n", "100000", "--quiet"]].concat()).spawn().unwrap();
    while !at("each/00000400.png").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(at("each/00000300.png"), b"\x89PNG").unwrap();
    for other in [["--seed", "1"], ["--scale", "2"]] {
        let output = run(&[&sample[..], &[&each, "--n", "2000"], &other].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && message.contains("another model, seed or scale"),
            "{message}"
        );
    }
    let output = succeed(&[&sample[..], &[&each, "--n", "2000"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("continues after 300 images"));
    let (found, expected) = (contents(&at("each")), contents(&at("whole")));
    // The killed command may have been further than 2,000.
    assert!(expected.iter().all(|(name, bytes)| found.get(name) == Some(bytes)) && expected.len() == 2000);
    let output = run(&[&sample[..], &[&whole, "--n", "2000"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"));
}

#[test]
fn only_files_are_replaced_and_names_are_formats() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let model = model(folder.path());
    let sample = ["sample", "--quiet", "--model", &model, "--n", "4", "--out"];
    let to = |out: &str| run(&[&sample[..], &[out]].concat());
    for (name, format) in
        [("a.png", ImageFormat::Png), ("a.JPG", ImageFormat::Jpeg), ("a.webp", ImageFormat::WebP)]
    {
        assert!(to(&path(name)).status.success(), "{name}");
        assert_eq!(image::guess_format(&fs::read(at(name)).unwrap()).unwrap(), format, "{name}");
    }
    assert!(to(&path("bare")).status.success());
    let png = fs::read(at("a.png")).unwrap();
    assert!(fs::read(at("bare")).unwrap() == png);
    for stdout in ["-", "/dev/stdout"] {
        let output = to(stdout);
        assert!(output.status.success() && output.stdout == png, "{stdout}");
    }
    assert!(to("/dev/null").status.success());
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(std::process::Command::new("mkfifo").arg(at("pipe.png")).status().unwrap().success());
    let pipe = at("pipe.png");
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    assert!(to(&path("pipe.png")).status.success());
    assert!(
        reader.join().unwrap() == png && fs::symlink_metadata(at("pipe.png")).unwrap().file_type().is_fifo()
    );
    fs::write(at("target"), "old").unwrap();
    for (target, link) in [("target", "link"), ("absent", "dangling"), (".", "to-folder")] {
        symlink(target, at(link)).unwrap();
    }
    assert!(to(&path("link")).status.success() && fs::read(at("target")).unwrap() == png);
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    let entries = || fs::read_dir(folder.path()).unwrap().count();
    let before = entries();
    for (name, part) in [
        ("dangling", "does not exist"),
        ("to-folder", "is a folder"),
        ("run", "is a folder"),
        ("nowhere/a.png", "does not exist"),
        ("a.tiff", "expected .png, .jpg, .jpeg, .webp"),
        ("a.png.zip", ".zip is not written"),
    ] {
        let output = to(&path(name));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && message.contains(part), "{name}: {message}");
    }
    // A file that is read.
    let weights = path("weights");
    fs::copy(at("run/checkpoints/00000003/generator.safetensors"), &weights).unwrap();
    for line in
        [&["sample", "--model", &weights, "--out"][..], &["export", &weights, "--to", "onnx", "--out"]]
    {
        let output = run(&[line, &[&*weights]].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && message.contains("are the same file"), "{message}");
    }
    fs::remove_file(&weights).unwrap();
    // New folders: of single images, of runs, of models.
    let [file, dangling] = [path("target"), path("dangling")];
    let tiny = path("tiny.toml");
    let rows: &[(&[&str], &str)] = &[
        (&["run", "--config", &tiny, "--out"], "--out"),
        (&["import", &model, "--out"], "--out"),
        (&["export", &model, "--to", "pytorch", "--out"], "--out"),
        (&["sample", "--model", &model, "--each"], "--each"),
    ];
    for (line, option) in rows {
        for (out, part) in
            [(&*file, "is not a folder"), (&dangling, "does not exist"), ("-", "standard output")]
        {
            let output = run(&[line, &[out][..]].concat());
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{line:?} {out}: {message}");
            assert!(message.contains(option) && message.contains(part), "{line:?} {out}: {message}");
        }
    }
    assert_eq!(entries(), before, "refused commands wrote files");
}

#[test]
fn json_is_alone_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("tiny.toml"), TINY).unwrap();
    let (config, out, png) = (path("tiny.toml"), path("run"), path("a.png"));
    let rows: &[&[&str]] = &[
        &["run", "--config", &config, "--out", &out, "--steps", "2"],
        &["resume", &out, "--steps", "3"],
        &["resume", &out, "--steps", "3"], // finished
        &["sample", "--model", &out, "--n", "2", "--out", &png],
        &["compare", &out],
        &["bench", "--preset", "digits", "--batch-size", "4", "--steps", "1"],
        &["bench", "--preset", "digits", "--batch-size", "4", "--steps", "1", "--explain"],
    ];
    for line in rows {
        let stdout = String::from_utf8(succeed(&[line, &["--json"][..]].concat()).stdout).unwrap();
        assert_eq!(stdout.lines().count(), 1, "{line:?}: {stdout}");
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap();
    }
    let text = |line: &[&str]| String::from_utf8(succeed(line).stdout).unwrap();
    let help = text(&["--help"]);
    let (_, list) = help.split_once("Commands:").unwrap();
    for line in list.lines().skip(1).take_while(|line| line.starts_with("  ")) {
        let command = line.split_whitespace().next().unwrap();
        let has_json = command != "help" && text(&[command, "--help"]).contains("--json");
        assert_eq!(has_json, rows.iter().any(|row| row[0] == command), "{command}");
    }
}
