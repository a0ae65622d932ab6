//! One target per reader of untrusted bytes.

use crate::seeds;
use axum::body::Body;
use axum::http::Request;
use dcgan_data::{Dataset, ImageShape, OpenOptions, UnreadableImages};
use dcgan_explore::attributes::Attributes;
use dcgan_explore::bounding_boxes::BoundingBoxes;
use dcgan_explore::latent::LatentSet;
use dcgan_model::{Model, ModelConfig, Preset, weights};
use dcgan_train::checkpoint::Checkpoint;
use dcgan_train::config::{Plan, RunOptions};
use dcgan_train::run_folder::RunFolder;
use dcgan_train::service::{Service, Settings, app};
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tower::ServiceExt;

/// A reader and its seeds.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Gives bytes to the reader; whether it accepted them.
    pub run: fn(&[u8]) -> bool,
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: [Target; 24] = [
    Target { name: "image", run: image, seeds: seeds::images },
    Target { name: "zip", run: |bytes| dataset("a.zip", bytes), seeds: zips },
    Target {
        name: "idx",
        run: idx,
        seeds: || vec![seeds::idx(&[3, 4, 5], &[7; 60]), seeds::gzip(&seeds::idx(&[1, 2, 2], &[9; 4]))],
    },
    Target { name: "mat", run: |bytes| dataset("train_32x32.mat", bytes), seeds: seeds::mat },
    Target {
        name: "cifar",
        run: |bytes| dataset("data_batch_1.bin", bytes),
        seeds: || vec![vec![3; 3073], vec![4; 2 * 3074]],
    },
    Target {
        name: "cifar_python",
        run: |bytes| dataset("data_batch_1", bytes),
        seeds: || vec![seeds::cifar_pickle(false), seeds::cifar_pickle(true)],
    },
    Target { name: "dataset_file", run: |bytes| dataset("any", bytes), seeds: dataset_files },
    Target { name: "dataset_json", run: dataset_json, seeds: label_files },
    Target { name: "pickle", run: pickle, seeds: seeds::pickles },
    Target { name: "pth", run: |bytes| weight_file("a.pth", bytes), seeds: pths },
    Target { name: "joblib", run: |bytes| weight_file("a.jl", bytes), seeds: joblibs },
    Target { name: "npy", run: npy, seeds: npys },
    Target { name: "safetensors", run: safetensors, seeds: tensor_files },
    Target {
        name: "checkpoint",
        run: checkpoint,
        seeds: || seeds::files("version1/run/checkpoints/00000004", &["safetensors"]),
    },
    Target {
        name: "lmdb",
        run: |bytes| dataset("data.mdb", bytes),
        seeds: || seeds::written(&["lsun", "mixed_lmdb"]),
    },
    Target {
        name: "tar",
        run: |bytes| dataset("x.tar", bytes),
        seeds: || seeds::written(&["tar", "webdataset", "webdataset_json"]),
    },
    Target {
        name: "parquet",
        run: |bytes| dataset("x.parquet", bytes),
        seeds: || seeds::written(&["parquet", "parquet_plain", "parquet_nulls"]),
    },
    Target { name: "hdf5", run: |bytes| dataset("x.hdf5", bytes), seeds: || seeds::written(&["hdf5"]) },
    Target {
        name: "imagenet",
        run: |bytes| dataset("train_data_batch_1", bytes),
        seeds: || seeds::written(&["imagenet8", "imagenet8_pickles"]),
    },
    Target { name: "attributes", run: attributes, seeds: attribute_files },
    Target { name: "boxes", run: boxes, seeds: box_files },
    Target { name: "plan", run: plan, seeds: || vec![seeds::plan()] },
    Target { name: "config", run: config, seeds: configurations },
    Target { name: "job", run: job, seeds: jobs },
];

/// A folder for the files of this thread, in memory where the system has such a folder.
fn scratch() -> PathBuf {
    thread_local! {
        static SCRATCH: OnceCell<Option<tempfile::TempDir>> = const { OnceCell::new() };
    }
    let create = || {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory).ok() } else { tempfile::tempdir().ok() }
    };
    SCRATCH.with(|cell| {
        let folder = cell.get_or_init(create).as_ref();
        folder.map_or_else(std::env::temp_dir, |folder| folder.path().to_owned())
    })
}

/// Writes `bytes` to `name` in a folder of its own for `target`.
fn write(target: &str, name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch().join(target).join(name);
    if fs::write(&path, bytes).is_err() {
        let written =
            fs::create_dir_all(path.parent().unwrap_or(&path)).and_then(|()| fs::write(&path, bytes));
        assert!(written.is_ok(), "cannot write {}: {written:?}", path.display());
    }
    path
}

/// Small networks: what the files of other programs are compared with.
pub(crate) fn networks() -> Model {
    let text = include_str!("../../golden/version1/tiny.toml");
    let preset = Preset::parse(text).and_then(|preset| Ok(preset.model()?));
    preset.unwrap_or_else(|error| panic!("the golden configuration is invalid: {error}"))
}

/// Opens a dataset and reads some of its images.
fn read_dataset(path: &Path, unreadable_images: UnreadableImages) -> bool {
    let options = OpenOptions {
        unreadable_images,
        ..OpenOptions::new(ImageShape { height: 6, width: 5, channels: 3 })
    };
    let Ok(dataset) = Dataset::open(path, &options) else { return false };
    let mut pixels = vec![0; dataset.shape().bytes()];
    let mut complete = true;
    for index in (0..dataset.len()).take(4).chain([dataset.len() - 1]) {
        let info = dataset.info(index).is_ok();
        complete &= dataset.read(index, &mut pixels).is_ok() && info;
    }
    complete
}

fn dataset(name: &str, bytes: &[u8]) -> bool {
    let path = write("dataset", name, bytes);
    read_dataset(&path, UnreadableImages::Fail)
}

fn image(bytes: &[u8]) -> bool {
    dataset("a.png", bytes)
}

fn idx(bytes: &[u8]) -> bool {
    write("idx", "train-labels-idx1-ubyte", &seeds::idx(&[3], &[1, 2, 3]));
    let path = write("idx", "train-images-idx3-ubyte", bytes);
    let images = read_dataset(&path, UnreadableImages::Fail);
    write("idx_labels", "train-images-idx3-ubyte", &seeds::idx(&[3, 4, 5], &[7; 60]));
    let labels = write("idx_labels", "train-labels-idx1-ubyte", bytes);
    images | read_dataset(labels.parent().unwrap_or(&labels), UnreadableImages::Fail)
}

fn dataset_json(bytes: &[u8]) -> bool {
    let images = seeds::images();
    for (name, image) in ["0.png", "1.png"].into_iter().zip(images) {
        write("dataset_json", name, &image);
    }
    let path = write("dataset_json", "dataset.json", bytes);
    read_dataset(path.parent().unwrap_or(&path), UnreadableImages::Fail)
}

fn weight_file(name: &str, bytes: &[u8]) -> bool {
    let path = write("weights", name, bytes);
    dcgan_model::open(&path, Some(&networks())).is_ok() | dcgan_model::open(&path, None).is_ok()
}

/// `data.pkl` inside a zip whose checksums are right.
fn pickle(bytes: &[u8]) -> bool {
    static STORAGES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(seeds::storages);
    let mut files = vec![("archive/data.pkl", bytes)];
    files.extend(STORAGES.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
    files.push(("archive/version", b"3\n"));
    weight_file("pickled.pth", &seeds::zip(&files))
}

/// The authors' files: an index in a folder, with arrays beside it.
fn npy(bytes: &[u8]) -> bool {
    for (name, content) in ["a_gen_params.jl", "a_discrim_params.jl"].into_iter().zip(joblibs()) {
        write("npy", name, &content);
    }
    let path = write("npy", "200_gen_params.jl_01.npy", bytes);
    dcgan_model::open(path.parent().unwrap_or(&path), Some(&networks())).is_ok() | dataset("a.npy", bytes)
}

fn safetensors(bytes: &[u8]) -> bool {
    let path = write("safetensors", "a.safetensors", bytes);
    let read = weights::read_safetensors(&path).is_ok();
    let features = dcgan_features::file::open(&path).is_ok();
    let latents = LatentSet::read(&path).is_ok();
    read | features | latents | weight_file("a.safetensors", bytes)
}

fn checkpoint(bytes: &[u8]) -> bool {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/version1/run/checkpoints/00000004");
    let mut accepted = false;
    for damaged in ["generator.safetensors", "discriminator.safetensors", "state.safetensors", "config.json"]
    {
        for entry in fs::read_dir(&golden).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            write("checkpoint/00000004", &name, &fs::read(entry.path()).unwrap_or_default());
        }
        let path = write("checkpoint/00000004", damaged, bytes);
        accepted |= Checkpoint::read(path.parent().unwrap_or(&path)).is_ok();
    }
    accepted
}

fn attributes(bytes: &[u8]) -> bool {
    Attributes::read(&write("attributes", "list_attr_celeba.txt", bytes)).is_ok()
}

fn boxes(bytes: &[u8]) -> bool {
    BoundingBoxes::read(&write("boxes", "boxes.json", bytes)).is_ok()
}

fn plan(bytes: &[u8]) -> bool {
    let path = write("plan", "plan.toml", bytes);
    RunFolder::open(path.parent().unwrap_or(&path)).is_ok()
}

fn config(bytes: &[u8]) -> bool {
    let networks =
        serde_json::from_slice::<ModelConfig>(bytes).is_ok_and(|config| Model::new(config).is_ok());
    let Ok(text) = std::str::from_utf8(bytes) else { return networks };
    let options = RunOptions::new(Default::default(), Some((PathBuf::from("a.toml"), text.to_owned())));
    networks | Preset::parse(text).is_ok() | options.is_ok_and(|options| Plan::resolve(&options).is_ok())
}

/// A request to a service whose jobs never start.
fn job(bytes: &[u8]) -> bool {
    thread_local! {
        static SERVICE: OnceCell<(tokio::runtime::Runtime, Service)> = const { OnceCell::new() };
    }
    let open = || {
        let data = scratch().join("data");
        let made = fs::create_dir_all(&data);
        let settings = Settings {
            store: scratch().join("store"),
            data_root: made.is_ok().then_some(data),
            model_root: scratch().join("models"),
            devices: vec![dcgan_model::DeviceChoice::Cpu],
            keep_done: None,
            token: None,
            allow_origin: None,
            max_queued: u64::MAX >> 1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let service = Service::open(&settings);
        (runtime.unwrap_or_else(|error| panic!("{error}")), service.unwrap_or_else(|error| panic!("{error}")))
    };
    SERVICE.with(|cell| {
        let (runtime, service) = cell.get_or_init(open);
        let request = Request::post("/v1/jobs")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .body(Body::from(bytes.to_vec()));
        let Ok(request) = request else { return false };
        let response = runtime.block_on(app(service).oneshot(request));
        response.is_ok_and(|response| {
            assert!(!response.status().is_server_error(), "the service answered {}", response.status());
            response.status().is_success()
        })
    })
}

fn zips() -> Vec<Vec<u8>> {
    let images = seeds::images();
    let (Some(first), Some(second)) = (images.first(), images.get(1)) else { return Vec::new() };
    let labels = br#"{"labels": [["0.png", 1], ["1.jpg", 0]]}"#;
    vec![
        seeds::zip(&[("0.png", first), ("1.jpg", second), ("dataset.json", labels)]),
        seeds::zip(&[("cat/0.png", first), ("dog/1", second), ("notes.txt", b"no image")]),
    ]
}

/// Files of many formats under a name that says nothing.
fn dataset_files() -> Vec<Vec<u8>> {
    let mut files = seeds::images();
    files.truncate(8);
    files.extend(zips());
    files.extend(seeds::mat());
    files.push(seeds::idx(&[3, 4, 5], &[7; 60]));
    files.extend(npys());
    files.extend(seeds::pickles().into_iter().take(2));
    let heads: [&[u8]; 6] = [
        b"Rar!\x1a\x07\x01\0",
        b"7z\xbc\xaf\x27\x1c",
        b"PAR1",
        b"\x89HDF\r\n",
        b"<html>",
        b"version https://git-lfs",
    ];
    files.extend(heads.map(|head| [head, &[0; 64]].concat()));
    files
}

fn label_files() -> Vec<Vec<u8>> {
    let files: [&[u8]; 4] = [
        br#"{"labels": [["0.png", 1], ["1.png", 0]]}"#,
        br#"{"labels": [["0.png", [0.0, 1.0]], ["1.png", [1.0, 0.0]]]}"#,
        br#"{"labels": null}"#,
        br#"{"labels": [["0.png", null], ["1.png", -1.5], ["2.png", "cat"]], "other": {"a": []}}"#,
    ];
    files.map(<[u8]>::to_vec).to_vec()
}

fn pths() -> Vec<Vec<u8>> {
    let mut files = seeds::files("pytorch_files", &["pth"]);
    files.extend(seeds::files("modules", &["pth"]));
    files
}

fn joblibs() -> Vec<Vec<u8>> {
    let mut files = seeds::files("authors", &["jl"]);
    files.extend(seeds::files("authors/resaved", &["jl"]));
    // Those are of other networks than the ones here; these are accepted.
    files.push(seeds::joblib(&networks().generator_tensors(), true));
    files.push(seeds::joblib(&networks().discriminator_tensors(), false));
    files
}

fn npys() -> Vec<Vec<u8>> {
    vec![
        seeds::npy("<f4", "(2, 3)", &[0; 24]),
        seeds::npy("|u1", "(2, 4, 4, 3)", &[9; 96]),
        seeds::npy("<f8", "(4,)", &[0; 32]),
    ]
}

fn tensor_files() -> Vec<Vec<u8>> {
    let mut files = seeds::files("pytorch_files", &["safetensors"]);
    files.push(seeds::safetensors(r#"{"z":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#, &[0; 16]));
    let features = r#"{"features":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"labels":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}}"#;
    files.push(seeds::safetensors(features, &[0; 32]));
    files
}

fn attribute_files() -> Vec<Vec<u8>> {
    vec![b"2\nSmiling Male\n000001.jpg 1 -1\n000002.jpg -1 1\n".to_vec(), b"1\nA\nx.png  1".to_vec()]
}

fn box_files() -> Vec<Vec<u8>> {
    let boxes = BoundingBoxes::template(0, ImageShape { height: 8, width: 8, channels: 3 });
    vec![serde_json::to_vec(&boxes).unwrap_or_default()]
}

fn configurations() -> Vec<Vec<u8>> {
    let mut texts = seeds::configurations();
    texts
        .extend(["digits", "pytorch32"].into_iter().filter_map(|name| Some(Preset::text(name).ok()?.into())));
    texts.push(seeds::plan());
    texts
}

fn jobs() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 4] = [
        br#"{"preset": "digits", "steps": 2, "seed": 3}"#,
        br#"{"preset": "pytorch32", "data": "photos", "size": "32x32", "epochs": 1.5, "batch_size": 8, "mirror": true}"#,
        br#"{"config": {"run": {"steps": 4}, "training": {"ema": 0.9}}, "ema": 0.99, "checkpoint_every": 10}"#,
        br"{}",
    ];
    bodies.map(<[u8]>::to_vec).to_vec()
}
