//! `--background`: images with alpha are read as if they had been drawn on that color.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{json, run};
use image::{Rgba, RgbaImage};
use safetensors::SafeTensors;
use std::fs;
use std::path::Path;

/// Folders `train` and `test` of two classes: a bar that differs by class, with `around` around it.
fn bars(folder: &Path, around: Rgba<u8>) {
    for (split, each) in [("train", 3_u8), ("test", 2)] {
        for class in 0..2_u8 {
            let path = folder.join(split).join(class.to_string());
            fs::create_dir_all(&path).unwrap();
            for i in 0..each {
                let bar = u32::from(class * 12 + i * 2 + each);
                let pixel = |_, y| if y / 3 == bar / 3 { Rgba([90 + i, 40, 200, 255]) } else { around };
                RgbaImage::from_fn(28, 28, pixel).save(path.join(format!("{i}.png"))).unwrap();
            }
        }
    }
}

fn features(file: &Path) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor("features").unwrap().data().to_vec()
}

#[test]
fn every_command_reads_alpha_on_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    bars(&here.join("clear"), Rgba([77, 77, 77, 0]));
    for (name, color, [red, green, blue]) in
        [("black", "black", [0; 3]), ("white", "white", [255; 3]), ("blue", "#1020F0", [16, 32, 240])]
    {
        bars(&here.join(name), Rgba([red, green, blue, 255]));
        let on = |command: &[&str]| json(here, &[command, &["--background", color]].concat());
        let score = |found: serde_json::Value| (found["nnd_score"].clone(), found["error_percent"].clone());
        // Every way in which a command opens a dataset.
        for command in [
            &["mnist-nn", "--data"][..],
            &["mnist-nn", "--data", name, "--samples"],
            &["nnd", "--counts", "4", "--data"],
        ] {
            let clear = score(on(&[command, &["clear"]].concat()));
            assert_eq!(clear, score(on(&[command, &[name]].concat())), "{command:?} {color}");
            let other = if color == "black" { "white" } else { "black" };
            let other = json(here, &[command, &["clear", "--background", other]].concat());
            assert_ne!(clear.0, other["nnd_score"], "{command:?} {color}");
        }
        for data in ["clear", name] {
            let out = format!("{data}-on-{name}.safetensors");
            on(&["features", "--data", data, "--out", &out]);
        }
        let file = |data: &str| features(&here.join(format!("{data}-on-{name}.safetensors")));
        assert!(file("clear") == file(name), "{color}");
    }
    let default = ["features", "--data", "clear", "--out", "default.safetensors"];
    assert!(run(here, &default).status.success());
    let on_black = features(&here.join("clear-on-black.safetensors"));
    assert!(features(&here.join("default.safetensors")) == on_black);
    assert!(features(&here.join("clear-on-white.safetensors")) != on_black);
    // Every command that opens images has the option, except that a claim has its own.
    let text = |arguments: &[&str]| String::from_utf8(run(here, arguments).stdout).unwrap();
    let help = text(&["--help"]);
    let (_, list) = help.split_once("Commands:").unwrap();
    for line in list.lines().skip(1).take_while(|line| line.starts_with("  ")) {
        let command = line.split_whitespace().next().unwrap();
        let help = text(&[command, "--help"]);
        let opens = (help.contains("--data <") || help.contains("<DATA>"))
            && !["reproduce", "help"].contains(&command);
        assert_eq!(opens, help.contains("--background <COLOR>"), "{command}");
    }
}
