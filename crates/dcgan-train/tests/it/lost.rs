//! A run is never lost: unreadable images, changed datasets, failed writes, folders of failed runs, requeued jobs.

use crate::support::{TINY, assert_same_run, command, run, stats, succeed};
use std::fs;
use std::path::{Path, PathBuf};

/// More images than the Fréchet distance reads at the start.
const IMAGES: usize = 4800;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        fs::write(this.path("tiny.toml"), TINY).unwrap();
        this
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn images(&self, count: usize) -> PathBuf {
        let folder = self.0.path().join("images");
        fs::create_dir(&folder).unwrap();
        let shape = dcgan_data::ImageShape { height: 8, width: 8, channels: 1 };
        let kinds: Vec<Vec<u8>> = (0..25_u8)
            .map(|i| {
                let pixels: Vec<u8> = (0..64_u8).map(|p| p.wrapping_mul(i + 1) ^ (i * 9)).collect();
                let path = self.0.path().join("image.png");
                dcgan_data::image_grid::ImageGrid::square(&pixels, shape).unwrap().save(&path).unwrap();
                fs::read(path).unwrap()
            })
            .collect();
        for i in 0..count {
            fs::write(folder.join(format!("{i:04}.png")), &kinds[i % kinds.len()]).unwrap();
        }
        folder
    }

    fn arguments<'a>(&self, data: &'a str, out: &'a str, extra: &[&'a str]) -> Vec<String> {
        let options = ["--checkpoint-every", "20", "--sample-every", "30", "--log-every", "5"];
        let paths = ["run", "--quiet", "--config", &self.path("tiny.toml"), "--data", data, "--out", out]
            .map(str::to_owned);
        paths.into_iter().chain(options.iter().chain(extra).map(|&word| word.to_owned())).collect()
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Replaces the content by bytes that are no image. Size and name stay: the fingerprint does as well.
fn damage(image: &Path) -> Vec<u8> {
    let before = fs::read(image).unwrap();
    fs::write(image, vec![0; before.len()]).unwrap();
    before
}

/// Runs with the exit code; stderr contains every part.
fn ends(arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{arguments:?}: no {part:?} in {text}");
    }
    text
}

fn steps(run: &str) -> Vec<u64> {
    dcgan_model::checkpoints::list(&Path::new(run).join("checkpoints")).unwrap()
}

fn json(run: &str, file: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(Path::new(run).join(file)).unwrap()).unwrap()
}

fn copy(from: &str, to: &str) {
    let status = std::process::Command::new("cp").args(["-a", from, to]).status();
    assert!(status.unwrap().success());
}

/// The state after a kill at the checkpoint of `step`.
fn cut(run: &str, step: u64) {
    for later in steps(run).into_iter().filter(|&other| other > step) {
        fs::remove_dir_all(Path::new(run).join(format!("checkpoints/{later:08}"))).unwrap();
    }
    for file in ["result.json", "best"] {
        let _ = fs::remove_file(Path::new(run).join(file));
    }
    for sample in fs::read_dir(Path::new(run).join("samples")).unwrap() {
        let path = sample.unwrap().path();
        let images: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        if images > step * 16 {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn unreadable_images_are_found_before_the_first_step() {
    let folder = Folder::new();
    let (data, out) = (folder.images(60), folder.path("out"));
    damage(&data.join("0007.png"));
    let data = data.to_str().unwrap();
    let of = |extra: &[&str]| folder.arguments(data, &out, &[&["--steps", "30"], extra].concat());
    ends(&words(&of(&[])), 2, &["1 of 60 images cannot be read: 0007.png", "--skip-bad"]);
    ends(&words(&of(&["--skip-bad=0"])), 2, &["0007.png", "--skip-bad=0 allows 0"]);
    ends(&words(&of(&["--skip-bad=x"])), 2, &["expected a number of images"]);
    assert!(!Path::new(&out).exists());
    succeed(&words(&of(&["--skip-bad=1"])));
    assert!(fs::read_to_string(folder.path("out/plan.toml")).unwrap().contains("skip_bad = 1\n"));
    let record = json(&out, "data.json");
    assert_eq!((&record["images"], &record["skipped"][0]["name"]), (&59.into(), &"0007.png".into()));
    // A resumed run follows the record.
    let again = folder.path("again");
    copy(&out, &again);
    cut(&again, 20);
    succeed(&["resume", &again, "--quiet", "--threads", "1"]);
    assert_same_run(Path::new(&out), Path::new(&again));
}

/// Damages an image that the run, from step 20 on, meets in the middle. Returns the step, the image and its content.
fn fail_in_the_middle(data: &Path, out: &str) -> (u64, PathBuf, Vec<u8>) {
    // Some images are read at the start, and some steps have a scheduled checkpoint before them.
    for number in (0..IMAGES).step_by(97) {
        let image = data.join(format!("{number:04}.png"));
        let content = damage(&image);
        let output = run(&["resume", out, "--quiet"]);
        let text = String::from_utf8_lossy(&output.stderr);
        let step = text.split("dcgan-train: step ").nth(1);
        let step = step.and_then(|rest| rest.split(':').next()?.parse::<u64>().ok());
        match step {
            Some(step) if step > 22 && (step - 1) % 20 != 0 => {
                let fix = format!("dcgan-train resume {out} --skip-bad");
                let saved = format!("the last good checkpoint is {out}/checkpoints/{:08}", step - 1);
                for part in [&format!("image {number:04}.png"), &fix, &saved] {
                    assert!(text.contains(part), "no {part:?} in {text}");
                }
                assert_eq!(output.status.code(), Some(1), "{text}");
                assert_eq!(steps(out).last(), Some(&(step - 1)));
                return (step, image, content);
            }
            _ => {
                assert!(!output.status.success(), "{text}");
                fs::write(&image, content).unwrap();
                cut(out, 20);
            }
        }
    }
    panic!("no image is read in the middle only");
}

#[test]
fn a_run_gets_past_an_unreadable_image() {
    let folder = Folder::new();
    let (data, out) = (folder.images(IMAGES), folder.path("out"));
    let whole = folder.path("whole");
    let extra = ["--steps", "330", "--keep", "99"];
    succeed(&words(&folder.arguments(data.to_str().unwrap(), &whole, &extra)));
    copy(&whole, &out);
    cut(&out, 20);
    let (step, image, content) = fail_in_the_middle(&data, &out);
    // Repeated without a decision, the run ends at the same place.
    ends(&["resume", &out, "--quiet"], 1, &["--skip-bad"]);
    assert_eq!(steps(&out).last(), Some(&(step - 1)));
    ends(&["resume", &out, "--quiet", "--skip-bad=0"], 2, &["allows 0"]);
    let (other, repaired) = (folder.path("other"), folder.path("repaired"));
    copy(&out, &other);
    copy(&out, &repaired);
    // Skipped: the record has the image and the step; a resumed run decides nothing anew.
    succeed(&["resume", &out, "--quiet", "--skip-bad"]);
    let record = json(&out, "data.json");
    let excluded = &record["excluded"][0];
    assert_eq!((&excluded["step"], &excluded["record"]), (&(step - 1).into(), &number(&image).into()));
    assert_eq!(record["images"], IMAGES - 1);
    assert!(fs::read_to_string(folder.path("out/plan.toml")).unwrap().contains("skip_bad = true"));
    succeed(&["resume", &other, "--quiet", "--skip-bad=3", "--threads", "1"]);
    cut(&other, 320);
    succeed(&["resume", &other, "--quiet"]);
    assert_same_run(Path::new(&out), Path::new(&other));
    assert_eq!(json(&other, "data.json")["excluded"], record["excluded"]);
    // Nothing more to skip.
    succeed(&["resume", &other, "--quiet", "--skip-bad", "--steps", "335"]);
    assert_eq!(json(&other, "data.json"), record);
    // Repaired with the same size: the run is that on data that was never damaged.
    fs::write(&image, content).unwrap();
    succeed(&["resume", &repaired, "--quiet"]);
    assert_same_run(Path::new(&whole), Path::new(&repaired));
}

fn number(image: &Path) -> u64 {
    image.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_changed_dataset_is_accepted_on_request() {
    let folder = Folder::new();
    let (data, out) = (folder.images(200), folder.path("out"));
    let data_name = data.to_str().unwrap();
    // 12 steps an epoch: the checkpoint of step 20 is at batch 8 of epoch 1.
    succeed(&words(&folder.arguments(data_name, &out, &["--steps", "20"])));
    assert_eq!(json(&out, "checkpoints/00000020/state.json")["position"]["batch"], 8);
    let before = json(&out, "data.json")["fingerprint"].clone();
    // 100 images are left: 6 steps an epoch.
    for i in 100..200 {
        fs::remove_file(data.join(format!("{i:04}.png"))).unwrap();
    }
    let longer = [fs::read(data.join("0003.png")).unwrap(), vec![0]].concat();
    fs::write(data.join("0003.png"), longer).unwrap();
    let resume = ["resume", &out, "--quiet", "--steps", "40"];
    ends(
        &resume,
        2,
        &["1 changed (0003.png), 100 removed (0100.png, 0101.png, 0102.png, ...)", "--accept-data-change"],
    );
    assert_eq!(json(&out, "data.json")["fingerprint"], before);
    let accepted = folder.path("accepted");
    copy(&out, &accepted);
    let resume = [&["resume", &accepted, "--steps", "40", "--accept-data-change"][..]].concat();
    ends(&resume, 0, &["100 removed", "differs from one on unchanged data"]);
    let record = json(&accepted, "data.json");
    // Distances to the images before cannot be compared, and reals.png shows the images of now.
    assert_eq!(json(&accepted, "result.json")["best_step"], 40);
    let reals = |run: &str| fs::read(Path::new(run).join("reals.png")).unwrap();
    assert!(reals(&accepted) != reals(&out), "reals.png shows images that were removed");
    let change = &record["changes"][0];
    assert_eq!((&change["step"], &change["before"]), (&20.into(), &before));
    assert_eq!((&change["images_before"], &record["images"]), (&200.into(), &100.into()));
    // Steps 21 to 26 are the epoch 2: step 40 is at batch 2 of epoch 5.
    let state = json(&accepted, "checkpoints/00000040/state.json");
    assert_eq!((&state["position"]["epoch"], &state["position"]["batch"]), (&5.into(), &2.into()));
    assert_eq!((&state["data"], &state["images"]), (&record["fingerprint"], &640.into()));
    // Later resumes need no flag, also after a kill before the first checkpoint on the new images.
    let killed = folder.path("killed");
    copy(&accepted, &killed);
    cut(&killed, 20);
    succeed(&["resume", &killed, "--quiet"]);
    assert_same_run(Path::new(&accepted), Path::new(&killed));
    succeed(&["resume", &killed, "--quiet", "--steps", "45"]);
    assert_eq!(json(&killed, "data.json"), record);
    // An option that changes the pixels.
    let plan = fs::read_to_string(folder.path("out/plan.toml")).unwrap();
    let cropped = plan.replace("skip_bad", "crop = 6\nskip_bad");
    for name in ["out/plan.toml", "killed/plan.toml"] {
        fs::write(folder.path(name), cropped.replace("steps = 20", "steps = 50")).unwrap();
    }
    ends(&["resume", &killed, "--quiet"], 2, &["a different size or crop", "--accept-data-change"]);
    succeed(&["resume", &killed, "--quiet", "--accept-data-change"]);
    // Too few images.
    for i in 10..100 {
        fs::remove_file(data.join(format!("{i:04}.png"))).unwrap();
    }
    ends(&["resume", &killed, "--quiet", "--accept-data-change", "--steps", "60"], 2, &["10 images", "16"]);
}

#[cfg(unix)]
#[test]
fn a_failed_write_saves_the_step() {
    let folder = Folder::new();
    let (data, whole) = (folder.images(60), folder.path("whole"));
    let extra = ["--steps", "70", "--ema", "0.9", "--keep", "9"];
    succeed(&words(&folder.arguments(data.to_str().unwrap(), &whole, &extra)));
    // The sample grids of steps 30 and 60; step 60 has a scheduled checkpoint as well.
    for step in [30_u64, 60] {
        let full = folder.path(&format!("full{step}"));
        copy(&whole, &full);
        cut(&full, step / 20 * 20 - 20 * u64::from(step % 20 == 0));
        // The temporary file of the grid cannot be created.
        let temporary = format!("{full}/samples/.tmp-{:08}.png", step * 16);
        fs::create_dir(&temporary).unwrap();
        let text =
            ends(&["resume", &full, "--quiet"], 1, &["cannot be replaced", "to continue once this is fixed"]);
        fs::remove_dir(&temporary).unwrap();
        assert!(text.contains(&format!("{step:08}")), "{text}");
        assert_eq!(steps(&full).last(), Some(&step), "the step was not saved");
        // The resumed run writes what was due.
        succeed(&["resume", &full, "--quiet"]);
        assert_same_run(Path::new(&whole), Path::new(&full));
        for event in ["step", "sample", "checkpoint"] {
            let steps = |run: &str| -> Vec<u64> {
                stats(Path::new(run), event).iter().map(|line| line["step"].as_u64().unwrap()).collect()
            };
            assert_eq!(steps(&full), steps(&whole), "{event}");
        }
    }
}

/// Samples and checkpoints are due at every step, and evaluation takes longer than a step: signals come while they are
/// due or written.
#[cfg(unix)]
#[test]
fn what_is_due_at_a_signal_waits_for_the_resumed_run() {
    let folder = Folder::new();
    let (data, whole, stopped) = (folder.images(60), folder.path("whole"), folder.path("stopped"));
    let arguments = |out: &str| {
        let config = folder.path("tiny.toml");
        let paths = ["run", "--quiet", "--config", &config, "--out", out, "--data", data.to_str().unwrap()];
        let options = ["--checkpoint-every", "2", "--sample-every", "1", "--log-every", "1"];
        let length = ["--steps", "60", "--keep", "2"];
        paths.iter().chain(&options).chain(&length).map(|&word| word.to_owned()).collect::<Vec<_>>()
    };
    succeed(&words(&arguments(&whole)));
    let mut child = command(&words(&arguments(&stopped))).spawn().unwrap();
    let lines =
        || fs::read_to_string(Path::new(&stopped).join("stats.jsonl")).unwrap_or_default().lines().count();
    for signal in 0..8 {
        let before = lines();
        // At another event each time, without a wait for its end.
        while child.try_wait().unwrap().is_none() && lines() <= before + signal % 3 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let kill = ["-s", "TERM", &child.id().to_string()].map(str::to_owned);
        let _ = std::process::Command::new("kill").args(kill).stderr(std::process::Stdio::null()).status();
        assert_eq!(child.wait().unwrap().code(), Some(130), "signal {signal}");
        child = command(&["resume", &stopped, "--quiet"]).spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert_same_run(Path::new(&whole), Path::new(&stopped));
    for event in ["step", "sample"] {
        let steps = |run: &str| {
            stats(Path::new(run), event).iter().map(|line| line["step"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(steps(&stopped), steps(&whole), "{event}");
    }
}

#[test]
fn a_run_that_ended_before_its_first_step_leaves_its_folder_free() {
    let folder = Folder::new();
    let (data, good, out) = (folder.images(60), folder.path("good"), folder.path("out"));
    let data = data.to_str().unwrap();
    let arguments =
        |out: &str, extra: &[&str]| folder.arguments(data, out, &[&["--steps", "3"], extra].concat());
    succeed(&words(&arguments(&good, &[])));
    // Weights that overflow fail the first step, after the sample of step 0.
    let model = folder.path("model");
    copy(&folder.path("good/checkpoints/00000003"), &model);
    let weights = folder.path("model/discriminator.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4 * 64..].copy_from_slice(&f32::MAX.to_le_bytes().repeat(64));
    fs::write(&weights, bytes).unwrap();
    ends(&words(&arguments(&out, &["--init-from", &model])), 1, &["step 1", "not finite"]);
    assert!(Path::new(&out).join("samples/00000000.png").exists());
    succeed(&words(&arguments(&out, &["--seed", "0"])));
    assert_same_run(Path::new(&good), Path::new(&out));
    assert!(!Path::new(&out).join("samples/00000000.png").exists());
    // Everything else is kept: a run with steps, a file of the user, a configuration in a folder of its own.
    let refused = |out: &str| ends(&words(&arguments(out, &[])), 2, &["is not empty"]);
    refused(&out);
    for removed in ["samples", "stats.jsonl"] {
        let name = folder.path(&format!("without-{removed}"));
        copy(&out, &name);
        for part in ["checkpoints", "result.json", "best", removed] {
            let path = Path::new(&name).join(part);
            let is_folder = path.is_dir() && !path.is_symlink();
            let result = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            result.unwrap();
        }
        refused(&name);
    }
    let own = folder.path("own");
    fs::create_dir(&own).unwrap();
    fs::copy(folder.path("good/plan.toml"), folder.path("own/plan.toml")).unwrap();
    refused(&own);
}

#[test]
fn a_requeued_job_starts_or_continues_with_one_command() {
    let folder = Folder::new();
    let (data, out) = (folder.images(60), folder.path("out"));
    let data = data.to_str().unwrap();
    let arguments = |extra: &[&str]| {
        folder.arguments(data, &out, &[&["--resume-if-exists", "--steps", "50"], extra].concat())
    };
    succeed(&words(&arguments(&[])));
    let whole = folder.path("whole");
    copy(&out, &whole);
    cut(&out, 40);
    succeed(&words(&arguments(&["--threads", "1"])));
    assert_same_run(Path::new(&whole), Path::new(&out));
    // Finished: nothing is done, also without the images.
    let hidden = folder.path("hidden");
    fs::rename(data, &hidden).unwrap();
    let output = succeed(&words(&arguments(&[])));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is finished at step 50"));
    fs::rename(&hidden, data).unwrap();
    // All differences at once.
    ends(
        &words(&arguments(&["--seed", "4", "--batch-size", "8", "--ema", "0.5"])),
        2,
        &["run.seed = 0, this command 4", "training.batch_size = 16, this command 8", "training.ema = 0.0"],
    );
    // A greater length continues a finished run, as `resume --steps` does.
    let mut longer = arguments(&[]);
    let steps_at = longer.iter().position(|word| word == "50").unwrap();
    longer[steps_at] = "60".to_owned();
    succeed(&words(&longer));
    assert_eq!(steps(&out).last(), Some(&60));
    // So does one in the configuration file.
    let (own, config) = (folder.path("own"), folder.path("own.toml"));
    let line = ["run", "--quiet", "--config", &config, "--data", data, "--out", &own, "--resume-if-exists"];
    for steps in [20, 30] {
        fs::write(&config, TINY.replace("steps = 120", &format!("steps = {steps}"))).unwrap();
        succeed(&line);
        assert_eq!(json(&own, "result.json")["steps"], steps);
    }
    // Without a preset the images choose the networks; while they are not there, they are those of the run.
    let chosen = folder.path("chosen");
    let line = ["run", "--quiet", "--data", data, "--out", &chosen, "--resume-if-exists", "--steps", "2"];
    let line = [&line[..], &["--batch-size", "4"]].concat();
    succeed(&line);
    fs::rename(data, &hidden).unwrap();
    let output = succeed(&line);
    assert!(String::from_utf8_lossy(&output.stdout).contains("is finished at step 2"));
    fs::rename(&hidden, data).unwrap();
    // Options that are not given are the usual ones, as in a new run.
    ends(&line[..line.len() - 2], 2, &["training.batch_size = 4, this command"]);
    fs::rename(data, &hidden).unwrap();
    // Moved images are named with --data; a run that is not finished says so.
    let longer = ["resume", &chosen, "--quiet", "--steps", "4"];
    ends(&longer, 2, &["does not exist: if it was moved, name it with --data"]);
    succeed(&[&longer[..], &["--data", &hidden]].concat());
    assert_eq!(json(&chosen, "result.json")["steps"], 4);
    fs::rename(&hidden, data).unwrap();
    // A run folder among the images would be read as images by the next command.
    let inside = format!("{data}/runs/a");
    ends(&words(&folder.arguments(data, &inside, &[])), 2, &["whose images it trains on", "--out"]);
    assert!(!Path::new(&inside).exists());
    let mut without_out = arguments(&[]);
    without_out.truncate(without_out.iter().position(|word| word == "--out").unwrap());
    without_out.push("--resume-if-exists".to_owned());
    ends(&words(&without_out), 2, &["--out"]);
}
