//! Runs, models and configurations of version 1, written before tensors and keys were renamed.

use crate::support::run;
use dcgan_model::ModelFiles;
use dcgan_model::weights::{self, read_safetensors};
use dcgan_ops::Isa;
use std::fs;
use std::path::{Path, PathBuf};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/version1").join(path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_run_of_version_1_resumes_with_the_values_of_its_own_program() {
    let folder = tempfile::tempdir().unwrap();
    let resumed = folder.path().join("run");
    copy(&golden("run"), &resumed);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let output = run(&["resume", &text(&resumed), "--steps", "6"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["generator.safetensors", "discriminator.safetensors", "state.safetensors"] {
        let found = read_safetensors(&resumed.join("checkpoints/00000006").join(file)).unwrap();
        let expected = weights::upgrade_names(read_safetensors(&golden("after").join(file)).unwrap());
        assert!(found.keys().eq(expected.keys()), "{file}: {:?}", found.keys());
        let values = |weights: &weights::Weights| -> Vec<f32> {
            weights.values().flat_map(|tensor| tensor.data.clone()).collect()
        };
        let (found, expected) = (values(&found), values(&expected));
        if matches!(Isa::best(), Isa::Avx512 | Isa::Avx512Bf16) {
            assert!(found == expected, "{file} has other values");
        }
        // Another instruction set than the golden's sums in another order.
        let off = found.iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off < 1e-3, "{file} is off by {off}");
    }
    // A model folder, a plan as configuration file, and a configuration of version 1.
    let old = ModelFiles::read(&golden("run/checkpoints/00000004")).unwrap();
    assert!(old.generator.unwrap().contains_key("project.norm.running_var"));
    for config in ["run/plan.toml", "tiny.toml"] {
        let out = folder.path().join(config.replace('/', "-"));
        let arguments =
            ["run", "--config", &text(&golden(config)), "--out", &text(&out), "--steps", "2", "--seed", "3"];
        let output = run(&arguments);
        assert!(output.status.success(), "{config}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
