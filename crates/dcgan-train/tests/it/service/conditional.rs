//! Conditional jobs, and draw requests by class.

use super::{Server, tiny};
use crate::defaults::write_images;
use crate::support::succeed;
use dcgan_data::ImageShape;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_conditional_job_draws_by_class() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for class in ["a", "b", "c"] {
        let shape = ImageShape { height: 8, width: 8, channels: 1 };
        write_images(&folder.path().join("data/images").join(class), 8, shape);
    }
    let store = folder.path().join("store");
    let server = Server::start(&store, &["--data-root", &path("data")]);
    let id = server.submit(&tiny(20, &json!({ "data": "images", "conditional": true })));
    server.wait_state(&id, "done");
    let model = &server.get("/v1/models")["models"][0];
    assert_eq!((&model["classes"], &model["class_names"]), (&json!(3), &json!(["a", "b", "c"])));

    let request =
        |body: &Value| server.request("POST", &format!("/v1/models/{id}/samples"), &body.to_string());
    let draw = |body: Value| {
        let response = request(&body);
        assert_eq!(response.status, 200, "{body}");
        response.body
    };
    let run = store.join("runs").join(&id);
    let sample = |options: &[&str]| {
        let all = ["sample", "--model", run.to_str().unwrap(), "--seed", "3", "--n", "5", "--device", "cpu"];
        succeed(&[&all[..], options, &["--out", &path("s.png")]].concat());
        fs::read(path("s.png")).unwrap()
    };
    // In turn by default; one class for all, by name, number or weights; one for each image.
    let turns = draw(json!({ "seed": 3, "count": 5 }));
    assert!(turns == sample(&[]));
    assert!(turns == draw(json!({ "seed": 3, "labels": [0, "b", [0.0, 0.0, 1.0], "0", 1] })));
    let b = sample(&["--class", "b"]);
    for label in [json!("b"), json!(1), json!([0.0, 1.0, 0.0])] {
        assert!(b == draw(json!({ "seed": 3, "count": 5, "labels": [label] })));
    }
    // z and labels of a response draw the same images.
    fs::write(path("z.safetensors"), draw(json!({ "seed": 3, "count": 5, "format": "latents" }))).unwrap();
    let tensors =
        dcgan_model::weights::read_safetensors(folder.path().join("z.safetensors").as_ref()).unwrap();
    let rows = |name: &str, size| tensors[name].data.chunks(size).map(<[f32]>::to_vec).collect::<Vec<_>>();
    assert_eq!(tensors["labels"].shape, [5, 3]);
    assert!(turns == draw(json!({ "z": rows("z", 4), "labels": rows("labels", 3) })));
    for (body, part) in [
        (json!({ "labels": ["d"] }), "one of a, b, c"),
        (json!({ "labels": [0, 3] }), "labels[1]: class 3 is unknown, expected 0 to 2"),
        (json!({ "labels": vec![0; 5000] }), "labels has 5000 entries, expected 1 to"),
        (json!({ "count": 5, "labels": [0, 1] }), "expected 5, or one for all images"),
        (
            json!({ "labels": [[0.5, 0.5]] }),
            "labels[0]: the label vector is invalid, expected 3 finite numbers",
        ),
        (json!({ "labels": [] }), "labels has 0 entries"),
    ] {
        let response = request(&body);
        let text = response.json().to_string();
        assert!(response.status == 422 && text.contains(part) && text.contains("labels"), "{body}: {text}");
    }
    // Without --conditional there are no classes; without labels a conditional job fails.
    let plain = server.submit(&tiny(2, &json!({ "data": "images" })));
    server.wait_state(&plain, "done");
    let response = server.request("POST", &format!("/v1/models/{plain}/samples"), r#"{"labels": [0]}"#);
    assert!(response.status == 422 && response.json().to_string().contains("not conditional"));
    let failed =
        server.submit(&tiny(2, &json!({ "data": "images/a", "conditional": true, "batch_size": 4 })));
    let job = server.wait_state(&failed, "failed");
    assert!(job["error"].as_str().unwrap().contains("no class labels"), "{job}");
}
