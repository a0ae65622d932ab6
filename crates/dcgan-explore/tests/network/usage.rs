//! Invalid input: messages that name the fix, exit code 2, nothing written.

use crate::support::{contents, damaged, digits, guided_case, random_weights, run};
use dcgan_data::{Dataset, OpenOptions};
use dcgan_model::ModelFiles;
use dcgan_model::weights::{Precision, Weights};
use std::fs;

#[test]
fn invalid_input_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    digits(here, 30);
    let whole = ModelFiles::embedded_digits().unwrap();
    let write = |name: &str, files: &ModelFiles| {
        fs::create_dir(here.join(name)).unwrap();
        files.write(&here.join(name), "", Precision::F32).unwrap();
    };
    write("no-d", &ModelFiles { discriminator: None, ..whole.clone() });
    write("no-g", &ModelFiles { generator: None, ..whole });
    let (model, _) = guided_case();
    let d = random_weights(Weights::new(), &model.discriminator_tensors(), 1);
    write("color", &ModelFiles { model, generator: None, discriminator: Some(d) });
    let file = |name: &str, text: &str| fs::write(here.join(name), text).unwrap();
    let one = r#"{"sample":0,"x":1,"y":2,"width":3,"height":4}"#;
    file("ok.json", &format!(r#"{{"seed":0,"boxes":[{one}]}}"#));
    file("outside.json", &format!(r#"{{"seed":0,"boxes":[{one},{}]}}"#, one.replace("\"x\":1", "\"x\":26")));
    file("none.json", r#"{"seed":0,"boxes":[]}"#);
    file("typo.json", r#"{"seed":0,"boxs":[]}"#);
    file("all.json", r#"{"seed":0,"boxes":[{"sample":0,"x":0,"y":0,"width":28,"height":28}]}"#);
    file("block.json", r#"{"block":"blocks.1","channels":96,"maps":[0]}"#);
    file("map.json", r#"{"block":"project","channels":96,"maps":[5,128]}"#);
    file("other.json", r#"{"block":"project","channels":128,"maps":[5]}"#);
    let options = OpenOptions::new((28, 28, 1).into());
    dcgan_data::pack(&Dataset::open(&here.join("digits"), &options).unwrap(), &here.join("pack"), |_| ())
        .unwrap();
    file("strangers.txt", "1\nSmiling\n000001.jpg 1\n");
    file("broken.txt", "1\nSmiling Male\n000001.jpg 1\n");

    let concept = |attributes: &'static str, attribute: &'static str| {
        vec!["concept", "--data", "digits", "--attributes", attributes, "--attribute", attribute]
    };
    let many = [concept("attributes.txt", "Zero"), vec!["--candidates", "3", "--top", "4"]].concat();
    let broken = damaged(here);
    let half: &[&str] = &["image b.png", "--skip-bad"];
    let rows: Vec<(Vec<&str>, &[&str])> = vec![
        (vec!["guided", "--block", "nope"], &["there is no block \"nope\"", "blocks.0, blocks.1"]),
        (vec!["maxact", "--block", "head"], &["there is no block \"head\""]),
        (vec!["guided", "--feature", "3,96"], &["--feature 96: expected 0 to 95, blocks.1 has 96 features"]),
        (vec!["maxact", "--top", "0", "--features", "0"], &["--top 0: expected 1 to 32", "--features 0"]),
        (vec!["maxact", "--model", "no-d"], &["no-d has no discriminator"]),
        (vec!["guided", "--model", "no-d"], &["no-d has no discriminator"]),
        (vec!["guided", "--model", "color"], &["no data given", "--data"]),
        (vec!["maxact", "--data", "absent"], &["absent"]),
        // All errors at once, of options, model and dataset.
        (
            vec!["maxact", "--data", "absent", "--top", "0", "--feature", "96", "--out", "gone/x.png"],
            &["absent", "--top 0", "--feature 96", "the folder gone does not exist"],
        ),
        (vec!["guided", "--model", "color", "--top", "0"], &["no data given", "--top 0"]),
        (
            vec!["concept", "--model", "no-d", "--data", "void", "--attributes", "lost", "--attribute", "A"],
            &["no-d has no discriminator", "void", "cannot read lost"],
        ),
        (
            vec!["ablate", "--model", "lost", "--boxes", "typo.json", "--n", "0"],
            &["lost does not exist", "boxs", "--n 0"],
        ),
        (vec!["maxact", "--out", "absent/x.png"], &["the folder absent does not exist"]),
        (vec!["ablate"], &["--boxes"]),
        (vec!["ablate", "--boxes", "outside.json"], &["box 1 (from 0) is outside the image: x 26, width 3"]),
        (vec!["ablate", "--boxes", "none.json"], &["no bounding box"]),
        (vec!["ablate", "--boxes", "typo.json"], &["boxs", "expected {\"seed\": S"]),
        (vec!["ablate", "--boxes", "absent.json"], &["cannot read absent.json"]),
        (vec!["ablate", "--boxes", "all.json"], &["positions outside"]),
        (
            vec!["ablate", "--boxes", "ok.json", "--block", "1"],
            &["there is no block \"1\"", "project, blocks.0"],
        ),
        (vec!["ablate", "--boxes", "ok.json", "--top", "0", "--penalty", "0"], &["--top 0", "--penalty 0"]),
        (
            vec!["ablate", "--boxes", "ok.json", "--filters", "map.json"],
            &["--filters", "cannot be used with"],
        ),
        (vec!["ablate", "--filters", "block.json"], &["there is no block \"blocks.1\""]),
        (vec!["ablate", "--filters", "map.json"], &["there is no map 128", "project has 96 feature maps"]),
        (vec!["ablate", "--filters", "other.json"], &["project with 128 feature maps, expected 96"]),
        (vec!["sample", "--without", "other.json"], &["project with 128 feature maps, expected 96"]),
        (vec!["ablate", "--filters", "ok.json"], &["expected {\"block\": \"blocks.N\""]),
        (vec!["ablate", "--template", "ok.json"], &["ok.json exists and may have boxes"]),
        (
            vec!["ablate", "--boxes", "ok.json", "--save", "./ok.json"],
            &["--boxes and --save are the same file"],
        ),
        (
            vec!["ablate", "--filters", "map.json", "--out", "map.json"],
            &["--filters and --out are the same file"],
        ),
        (
            vec!["ablate", "--grid", "s.png", "--template", "./s.png"],
            &["--template and --grid are the same file"],
        ),
        (vec!["ablate", "--grid", "s.png", "--top", "3"], &["--top", "cannot be used with"]),
        (vec!["ablate", "--template", "t.json", "--block", "0"], &["--block", "cannot be used with"]),
        (vec!["ablate", "--template", "t.json", "--penalty", "2"], &["--penalty", "cannot be used with"]),
        (vec!["ablate", "--grid", "s.png", "--out", "o.png"], &["--out", "cannot be used with"]),
        (
            [concept("attributes.txt", "Zero"), vec!["--out", "digits/../attributes.txt"]].concat(),
            &["--attributes and --out are the same file"],
        ),
        (vec!["ablate", "--model", "no-g", "--boxes", "ok.json"], &["no-g has no generator"]),
        (concept("attributes.txt", "Happy"), &["no attribute \"Happy\"", "Even, Zero, Never"]),
        (concept("attributes.txt", "Never"), &["none of the 30 images"]),
        (concept("attributes.txt", "-Never"), &["all of the 30 images"]),
        (concept("strangers.txt", "Smiling"), &["none of the 30 images", "000001.jpg", "0/"]),
        (
            vec!["concept", "--data", "pack", "--attributes", "attributes.txt", "--attribute", "Zero"],
            &["none of the 30 images", "a cache keeps no names"],
        ),
        (concept("broken.txt", "Smiling"), &["broken.txt, line 3: found 1 values, expected 2"]),
        (concept("absent.txt", "Smiling"), &["cannot read absent.txt"]),
        (
            [concept("attributes.txt", "Zero"), vec!["--model", "no-d"]].concat(),
            &["no-d has no discriminator"],
        ),
        ([concept("attributes.txt", "Zero"), vec!["--model", "no-g"]].concat(), &["no-g has no generator"]),
        (vec!["maxact", "--data", broken], half),
        (vec!["guided", "--data", broken], half),
        (vec!["invert", "--data", broken], half),
        (vec!["neighbours", "--data", broken], half),
        (vec!["concept", "--data", broken, "--attributes", "damaged.txt", "--attribute", "Zero"], half),
        (
            [concept("attributes.txt", "Zero"), vec!["--images", "8"]].concat(),
            &["expected at least 5 of each: use more images"],
        ),
        (
            vec!["invert", "--skip-bad", "--background", "white"],
            &["--skip-bad needs --data", "--background needs --data"],
        ),
        (vec!["maxact", "--data", broken, "--background", "12"], &["expected black, white or #rrggbb"]),
        (many, &["--top 4: expected 1 to 3"]),
    ];
    let before = contents(here);
    for (args, expected) in rows {
        let output = run(here, &args);
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        for part in expected {
            assert!(output.stderr.contains(part), "{args:?}: {}", output.stderr);
        }
        assert!(contents(here) == before, "{args:?} wrote something");
        assert!(!output.stdout.contains("png"), "{args:?} announced an image: {}", output.stdout);
    }
}
