//! Jobs without a preset: networks that fit the images, as for `dcgan-train run`; previews, and the advice at the end.

use super::{Server, folder, tiny};
use crate::defaults::write_images;
use crate::support::{TINY, succeed};
use dcgan_data::ImageShape;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_job_without_a_preset_gets_networks_that_fit_its_images() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    write_images(&data.join("photos"), 4, ImageShape { height: 90, width: 120, channels: 3 });
    write_images(&data.join("digits"), 4, ImageShape { height: 28, width: 28, channels: 1 });
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    let short = |more: &Value| {
        let mut options = json!({ "batch_size": 2, "steps": 1, "ema": 0 });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options
    };
    for (options, preset, height, channels) in [
        (json!({ "data": "photos", "size": 32 }), "pytorch32", 32, 3),
        (json!({ "data": "digits" }), "digits", 28, 1),
        (json!({ "data": "digits", "preset": null, "channels": 3 }), "pytorch32", 32, 3),
        (json!({ "data": "photos", "preset": "digits" }), "digits", 28, 1),
        (json!({}), "digits", 28, 1),
    ] {
        // Without images of its own the job takes the embedded digits.
        let id = server.submit(&short(&options));
        server.wait_state(&id, "done");
        let plan = fs::read_to_string(store.join("runs").join(&id).join("plan.toml")).unwrap();
        let plan: toml::Table = plan.parse().unwrap();
        let model = |key: &str| plan["model"][key].as_integer();
        assert_eq!(plan["model"]["name"].as_str(), Some(preset), "{options}");
        assert_eq!((model("height"), model("channels")), (Some(height), Some(channels)), "{options}");
        // The job shows what was chosen.
        let shown = &server.get(&format!("/v1/jobs/{id}"))["options"];
        let is_chosen = options.get("data").is_some() && options["preset"].is_null();
        assert_eq!(
            shown["preset"] == json!(preset),
            is_chosen || options["preset"] == json!(preset),
            "{shown}"
        );
    }
    // Images that do not exist are refused as before.
    let response = server.request("POST", "/v1/jobs", &json!({ "data": "absent" }).to_string());
    assert_eq!(response.status, 422);
}

#[test]
fn a_preview_says_what_a_job_would_train() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    write_images(&data.join("photos"), 4, ImageShape { height: 90, width: 120, channels: 3 });
    write_images(&data.join("digits"), 4, ImageShape { height: 28, width: 28, channels: 1 });
    fs::create_dir_all(data.join("empty")).unwrap();
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    // options -> networks, height, width, color, images, warnings
    type Row<'a> = (Value, (&'a str, u64, u64, &'a str), Option<&'a str>, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (json!({}), ("digits", 28, 28, "grey"), None, &[]),
        (json!({ "preset": "pytorch64" }), ("pytorch64", 64, 64, "color"), None, &[]),
        (json!({ "data": "digits" }), ("digits", 28, 28, "grey"), Some("the images are 28x28, grey"), &[]),
        (
            json!({ "data": "photos" }),
            ("pytorch64", 64, 64, "color"),
            Some("the images are 90x120, color"),
            &[],
        ),
        (
            json!({ "data": "photos", "size": "16x24", "name": "small" }),
            ("pytorch32", 16, 24, "color"),
            Some("the images are 90x120, color"),
            &["reduced by 5; a larger size (slower) keeps more detail, or crop N"],
        ),
        (
            json!({ "data": "photos", "channels": 1 }),
            ("pytorch64", 64, 64, "grey"),
            Some("the images are 90x120, color"),
            &["colors are discarded; use channels 3"],
        ),
        (
            json!({ "data": "photos", "preset": "digits" }),
            ("digits", 28, 28, "grey"),
            None,
            &["colors are discarded"],
        ),
        (
            json!({ "data": "digits", "preset": "pytorch64" }),
            ("pytorch64", 64, 64, "color"),
            None,
            &["enlarged"],
        ),
        // The name of the images may be in the configuration.
        (
            json!({ "config": format!("{TINY}\n[run]\ndata = \"photos\"\n") }),
            ("tiny", 8, 8, "grey"),
            None,
            &[
                "colors are discarded",
                "the images are 90x120, the networks generate 8x8: images are reduced by 11",
            ],
        ),
        (
            json!({ "data": "digits", "preset": "digits", "conditional": true }),
            ("digits", 28, 28, "grey"),
            None,
            &["or train with conditional = false: the job would fail"],
        ),
        (json!({ "data": "empty" }), ("digits", 28, 28, "grey"), None, &["no image that can be read"]),
    ];
    for (options, expected, images, warnings) in rows {
        let found = server.json("POST", "/v1/jobs/preview", options);
        let text = |key: &str| found[key].as_str().unwrap();
        let number = |key: &str| found[key].as_u64().unwrap();
        assert_eq!(
            (text("networks"), number("height"), number("width"), text("color")),
            *expected,
            "{options}"
        );
        assert_eq!(
            (found["images"].as_str(), &found["chosen_by_images"]),
            (*images, &json!(images.is_some())),
            "{options}"
        );
        let list = found["warnings"].as_array().unwrap();
        assert!(list.len() == warnings.len(), "{options}: {list:?}");
        for (found, expected) in list.iter().zip(*warnings) {
            let found = found.as_str().unwrap();
            assert!(found.contains(expected) && !found.contains("--"), "{options}: {found}");
            assert!(!found.contains(folder.path().to_str().unwrap()), "{found}");
        }
        assert!(found["training"]["batch_size"].is_u64() && found["latent"]["size"].is_u64(), "{found}");
    }
    // The faults of a job, all at once, and nothing is stored.
    for (options, fields) in [
        (json!({ "data": "absent", "ema": 2, "name": 7 }), vec!["name", "data", "ema"]),
        (json!({ "data": "../store" }), vec!["data"]),
        (json!({ "size": 7 }), vec!["size"]),
        (json!({ "sizes": 7 }), vec!["sizes"]),
    ] {
        let response = server.request("POST", "/v1/jobs/preview", &options.to_string());
        let faults = response.json()["error"]["faults"].clone();
        let found: Vec<&str> =
            faults.as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
        assert_eq!((response.status, found), (422, fields), "{options}: {faults}");
    }
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
}

#[test]
fn the_summary_of_a_done_job_advises_as_the_command_line_does() {
    let (folder, store) = folder();
    let server = Server::start(&store, &[]);
    let id = server.submit(&tiny(45, &Value::Null));
    let summary = format!("/v1/jobs/{id}/summary");
    server.wait_state(&id, "done");
    let found = server.get(&summary);
    let run = store.join("runs").join(&id);
    let result: Value = serde_json::from_slice(&fs::read(run.join("result.json")).unwrap()).unwrap();
    assert_eq!(found["result"], result);
    assert_eq!((&found["images"], &found["skipped"]), (&json!(10_000), &json!(0)));
    let distance = format!("random-feature Fréchet distance {:.4}", result["best_frechet"].as_f64().unwrap());
    let advice = found["advice"].as_str().unwrap();
    assert!(advice.starts_with(&distance) && !advice.contains("dcgan-train"), "{advice}");
    let out = folder.path().join("same");
    let config = folder.path().join("tiny.toml");
    fs::write(&config, TINY).unwrap();
    let arguments = ["run", "--config", config.to_str().unwrap(), "--steps", "45", "--checkpoint-every", "9"];
    let printed = succeed(&[&arguments[..], &["--seed", "3", "--out", out.to_str().unwrap()]].concat());
    // The same distance and scale, up to what to do.
    let printed = String::from_utf8(printed.stdout).unwrap();
    let (same, _) = advice.split_once(". ").unwrap();
    assert!(printed.contains(same), "no {same:?} in {printed}");
    // A job that is trained longer has no result until its end.
    server.json("POST", &format!("/v1/jobs/{id}/resume"), &json!({ "steps": 1_000_000 }));
    server.wait(&id, "running", |job| job["step"].as_u64() > Some(46));
    let running = server.get(&summary);
    assert_eq!((&running["result"], &running["advice"]), (&Value::Null, &Value::Null));
    assert_eq!(server.request("GET", "/v1/jobs/0000000000000000/summary", "").status, 404);
}
