//! Jobs without a preset: networks that fit the images, as for `dcgan-train run`.

use super::{Server, folder};
use crate::defaults::write_images;
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
