//! Every command on a model of color images that are not square, to find swapped sides or channels.

use crate::support::{noise, run, succeed};
use dcgan_model::weights::Precision;
use dcgan_model::{Model, ModelFiles, Preset};
use std::fs;
use std::path::Path;

const HEIGHT: u32 = 16;
const WIDTH: u32 = 24;

/// A small untrained model without statistics in the folder `model`.
fn model(folder: &Path) {
    let mut config = Preset::named("svhn32").unwrap().model;
    (config.height, config.width) = (HEIGHT as usize, WIDTH as usize);
    config.generator.project_channels = 8;
    config.generator.blocks.iter_mut().take(2).for_each(|block| block.channels = 8);
    config.discriminator.blocks.iter_mut().for_each(|block| block.channels = 8);
    let model = Model::new(config).unwrap();
    let files = ModelFiles {
        generator: Some(model.initial_generator(3, 0.1, 0.02)),
        discriminator: Some(model.initial_discriminator(3, 0.1, 0.02)),
        model,
    };
    fs::create_dir(folder.join("model")).unwrap();
    files.write(&folder.join("model"), "", Precision::F32).unwrap();
}

/// Forty noisy images in the folder `images`, every other one red, and their attributes.
fn images(folder: &Path) {
    fs::create_dir(folder.join("images")).unwrap();
    let noise = noise(40 * (HEIGHT * WIDTH) as usize);
    let mut text = "40\nRed\n".to_owned();
    for (i, levels) in noise.chunks((HEIGHT * WIDTH) as usize).enumerate() {
        let is_red = i % 2 == 0;
        let pixel = |x: u32, y: u32| {
            let level = levels[(y * WIDTH + x) as usize] / 4;
            image::Rgb(if is_red { [level + 190, level, level / 2] } else { [level, level / 2, level + 190] })
        };
        let name = format!("{i:02}.png");
        image::RgbImage::from_fn(WIDTH, HEIGHT, pixel).save(folder.join("images").join(&name)).unwrap();
        text.push_str(&format!("{name} {}\n", if is_red { 1 } else { -1 }));
    }
    fs::write(folder.join("red.txt"), text).unwrap();
}

#[test]
fn every_command_supports_color_images_that_are_not_square() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    model(here);
    images(here);
    // A cell takes 26 x 18 pixels, a number 5 + 3 rows below or 17 columns in front.
    let concept = "concept --data images --attributes red.txt --attribute Red --candidates 20 --top 4";
    let rows: &[(&str, &str, (u32, u32))] = &[
        ("sample --n 6 --sort-by-score --numbers", "sample.png", (3 * 26 + 2, 2 * 26 + 2)),
        ("interpolate --rows 2 --steps 3 --gif walk.gif", "interpolate.png", (3 * 26 + 2, 2 * 18 + 2)),
        // Three images above their mean, a sign, the same, a sign, the result among its copies; below, pixel space.
        (
            "arithmetic --plus seed:0:0,1,2 --minus seed:0:3,4,5",
            "arithmetic.png",
            (2 * 28 + 2 * 5 + 80, (3 * 18 + 2 + 20) + 8 + 20),
        ),
        ("turn --left seed:0:0,1,2 --right seed:0:3,4,5 --steps 3", "turn.png", (3 * 26 + 2, 4 * 18 + 2)),
        (concept, "concept.png", (54 + 5 + 28, 38)),
        ("guided --data images --features 2 --top 2", "guided.png", (2 * (17 + 54), 2 * 38)),
        ("guided --data images --features 2 --top 2 --crops", "guided.png", (2 * (17 + 54), 2 * 38)),
        ("maxact --data images --features 2 --top 2", "maxact.png", (17 + 54 + 5 + 54, 2 * 20)),
        // Enlarged seven times, rulers of 10 rows and 13 columns.
        (
            "ablate --n 2 --grid grid.png --template boxes.json",
            "grid.png",
            (2 * (13 + 24 * 7 + 2) + 2, 10 + 16 * 7 + 8 + 4),
        ),
        ("ablate --boxes boxes.json --n 3 --save maps.json", "ablate.png", (3 * 26 + 2, 2 * 18 + 2)),
        ("sample --n 2 --without maps.json", "sample.png", (2 * 26 + 2, 18 + 2)),
        ("neighbours --data images --n 2 --nearest 2", "neighbours.png", (28 + 8 + 54 + 8 + 54, 2 * 26 + 2)),
        (
            "invert --data images --n 2 --restarts 1 --steps 2",
            "invert.png",
            (2 * (24 + 1 + 24 + 2) + 2, 26 + 2),
        ),
    ];
    for (line, out, size) in rows {
        let args: Vec<&str> = line.split(' ').chain(["--model", "model"]).collect();
        succeed(here, &args);
        let image = image::open(here.join(out)).unwrap();
        assert!(image.color() == image::ColorType::Rgb8, "{line}");
        let image = image.into_rgb8();
        assert_eq!(image.dimensions(), *size, "{line}");
        assert!(image.pixels().any(|pixel| pixel.0[0] != pixel.0[2]), "{line}: no color");
    }
}

#[test]
fn images_with_alpha_are_read_on_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    model(here);
    fs::create_dir(here.join("clear")).unwrap();
    let clear = image::RgbaImage::from_pixel(WIDTH, HEIGHT, image::Rgba([9, 9, 9, 0]));
    clear.save(here.join("clear/0.png")).unwrap();
    let invert = ["invert", "--model", "model", "--data", "clear", "--restarts", "1", "--steps", "1"];
    for (options, expected) in [
        (&[][..], [0; 3]),
        (&["--background", "white"], [255; 3]),
        (&["--background", "#1020F0"], [16, 32, 240]),
    ] {
        let output = run(here, &[&invert, options].concat());
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let grid = image::open(here.join("invert.png")).unwrap().into_rgb8();
        assert_eq!(grid.get_pixel(2, 2).0, expected, "the first pixel of the image");
        assert!(output.stderr.contains("composited on"), "{}", output.stderr);
    }
    // Every command that opens images has the option.
    let help = run(here, &["--help"]).stdout;
    let (_, list) = help.split_once("Commands:").unwrap();
    for line in list.lines().skip(1).take_while(|line| line.starts_with("  ")) {
        let command = line.split_whitespace().next().unwrap();
        let help = run(here, &[command, "--help"]).stdout;
        assert_eq!(help.contains("--data <"), help.contains("--background <COLOR>"), "{command}");
    }
}
