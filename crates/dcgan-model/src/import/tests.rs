//! Tests of imports and exports with files from PyTorch, joblib and the authors.

use std::fs;
use std::io::{self, Read, Write};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::sources::Content;
use super::*;
use crate::weights::{HostTensor, check, read_safetensors};
use crate::{Discriminator, Generator, Latents};
use dcgan_ops::{Input, Maps};

/// [`read`] for the content of one file.
fn import_bytes(src: &Path, bytes: &[u8], expected: &Expected) -> Result<Imported, ImportError> {
    Import::new(src, expected, true).sources(vec![sources::parse(src, bytes)?])
}

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name)
}

/// A layer: its name, the shape of its weight, the shape of its batch norm (empty for none).
type Layer = (&'static str, [usize; 4], &'static [usize]);

/// The layers of the golden networks, with the numbers of their modules in PyTorch's `main`.
const PYTORCH_G: [(Layer, usize); 5] = [
    (("project", [4, 16, 4, 4], &[16]), 0),
    (("blocks.0", [16, 8, 4, 4], &[8]), 3),
    (("blocks.1", [8, 4, 4, 4], &[4]), 6),
    (("blocks.2", [4, 2, 4, 4], &[2]), 9),
    (("blocks.3", [2, 3, 4, 4], &[]), 12),
];
const PYTORCH_D: [(Layer, usize); 5] = [
    (("blocks.0", [1, 3, 4, 4], &[]), 0),
    (("blocks.1", [2, 1, 4, 4], &[2]), 2),
    (("blocks.2", [4, 2, 4, 4], &[4]), 5),
    (("blocks.3", [8, 4, 4, 4], &[8]), 8),
    (("head", [1, 8, 4, 4], &[]), 11),
];
const AUTHORS_G: [Layer; 4] = [
    ("project", [10, 8, 4, 4], &[8, 4, 4]),
    ("blocks.0", [8, 6, 5, 5], &[6]),
    ("blocks.1", [6, 4, 5, 5], &[4]),
    ("blocks.2", [4, 3, 5, 5], &[]),
];
const AUTHORS_D: [Layer; 4] = [
    ("blocks.0", [4, 3, 5, 5], &[]),
    ("blocks.1", [6, 4, 5, 5], &[6]),
    ("blocks.2", [8, 6, 5, 5], &[8]),
    ("head", [1, 8, 4, 4], &[]),
];

fn specs(layers: &[Layer]) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for (layer, weight, norm) in layers {
        let mut push = |suffix: &str, shape: &[usize], optional| {
            specs.push(TensorSpec { name: format!("{layer}.{suffix}"), shape: shape.to_vec(), optional });
        };
        push("conv.weight", weight, false);
        if !norm.is_empty() {
            push("norm.weight", norm, false);
            push("norm.bias", norm, false);
            push("norm.running_mean", norm, true);
            push("norm.running_var", norm, true);
        }
    }
    specs
}

fn pytorch() -> Expected {
    Expected {
        generator: specs(&PYTORCH_G.map(|(layer, _)| layer)),
        discriminator: specs(&PYTORCH_D.map(|(layer, _)| layer)),
    }
}

fn authors() -> Expected {
    Expected { generator: specs(&AUTHORS_G), discriminator: specs(&AUTHORS_D) }
}

/// The tensors that `make.py` saved for comparison, renamed by the tables above.
fn pytorch_weights(net: &str, layers: &[(Layer, usize)]) -> Weights {
    let all = read_safetensors(&golden("pytorch_files/expected.safetensors")).unwrap();
    let mut weights = Weights::new();
    for ((layer, ..), module) in layers {
        let names = [
            ("conv.weight", format!("{module}.weight")),
            ("norm.weight", format!("{}.weight", module + 1)),
            ("norm.bias", format!("{}.bias", module + 1)),
            ("norm.running_mean", format!("{}.running_mean", module + 1)),
            ("norm.running_var", format!("{}.running_var", module + 1)),
        ];
        for (name, pytorch) in names {
            if let Some(tensor) = all.get(&format!("{net}.main.{pytorch}")) {
                weights.insert(format!("{layer}.{name}"), tensor.clone());
            }
        }
    }
    weights
}

fn rounded(mut weights: Weights, round: impl Fn(f32) -> f32) -> Weights {
    weights.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|value| *value = round(*value));
    weights
}

/// A PyTorch file, its networks, and part of a note on it.
struct Case<'a> {
    file: &'a str,
    generator: Option<&'a Weights>,
    discriminator: Option<&'a Weights>,
    note: &'a str,
}

#[test]
fn imports_every_format_of_pytorch() {
    let g = pytorch_weights("netG", &PYTORCH_G);
    let d = pytorch_weights("netD", &PYTORCH_D);
    assert_eq!((g.len(), d.len()), (21, 17));
    let bf16 = rounded(d.clone(), |value| half::bf16::from_f32(value).to_f32());
    let f16 = rounded(d.clone(), |value| half::f16::from_f32(value).to_f32());
    let mut parameters = d.clone();
    parameters.retain(|name, _| !name.ends_with("running_mean") && !name.ends_with("running_var"));
    let case = |file, generator, discriminator, note| Case { file, generator, discriminator, note };
    let cases = [
        case("netG.pth", Some(&g), None, "generator: 21 tensors from main"),
        case("netG_legacy.pth", Some(&g), None, "generator: 21 tensors from main"),
        case("netG.safetensors", Some(&g), None, "generator: 21 tensors from main"),
        case("netD.pth", None, Some(&d), "discriminator: 17 tensors from main"),
        case("netD_legacy_strided.pth", None, Some(&d), "discriminator: 17 tensors"),
        case("netD_strided.pth", None, Some(&d), "discriminator: 17 tensors"),
        case("netD_data_parallel.pth", None, Some(&d), "from module.main"),
        case("netD_wrapped.pth", None, Some(&d), "from state_dict/model"),
        case("netD_no_counters.pth", None, Some(&d), "discriminator: 17 tensors"),
        case("netD_parameters_only.pth", None, Some(&parameters), "no batch norm statistics in the file"),
        case("netD_bf16.pth", None, Some(&bf16), "discriminator: 17 tensors"),
        case("netD_f16.pth", None, Some(&f16), "discriminator: 17 tensors"),
        case("netD_f64.pth", None, Some(&d), "discriminator: 17 tensors"),
        case("netD_checkpoint.pth", None, Some(&d), "skipped fixed_noise in the file: not a network"),
        case("both.pth", Some(&g), Some(&d), "from netD/main"),
        case("both_flat_legacy.pth", Some(&g), Some(&d), "from generator"),
    ];
    for Case { file, generator, discriminator, note } in cases {
        let imported = read(&golden("pytorch_files").join(file), &pytorch()).unwrap();
        assert_eq!(imported.generator.as_ref(), generator, "{file}: generator");
        assert_eq!(imported.discriminator.as_ref(), discriminator, "{file}: discriminator");
        assert!(imported.notes.iter().any(|found| found.contains(note)), "{file}: {:?}", imported.notes);
    }
}

#[test]
fn imports_the_authors_arrays() {
    let values = read_safetensors(&golden("authors/expected.safetensors")).unwrap();
    let subset = |prefix: &str, specs: &[TensorSpec]| -> Weights {
        let required = specs.iter().filter(|spec| !spec.optional);
        required.map(|spec| (spec.name.clone(), values[&format!("{prefix}.{}", spec.name)].clone())).collect()
    };
    let expected = authors();
    let (g, d) = (subset("g", &expected.generator), subset("d", &expected.discriminator));
    let rows = [
        ("authors", Some(&g), Some(&d)),
        ("authors/200_gen_params.jl", Some(&g), None),
        ("authors/200_discrim_params.jl", None, Some(&d)),
        ("authors/resaved/joblib.jl", None, Some(&d)),
        ("authors/resaved/joblib_compatible.jl", None, Some(&d)),
        ("authors/resaved/pickle.jl", None, Some(&d)),
    ];
    for (source, generator, discriminator) in rows {
        let imported = read(&golden(source), &expected).unwrap();
        assert_eq!(imported.generator.as_ref(), generator, "{source}: generator");
        assert_eq!(imported.discriminator.as_ref(), discriminator, "{source}: discriminator");
        let weights = generator.map(|weights| (weights, &expected.generator));
        let (weights, specs) = weights.or(discriminator.map(|d| (d, &expected.discriminator))).unwrap();
        check(Path::new(source), weights, specs).unwrap();
        assert!(imported.notes.iter().any(|note| note.contains("no batch norm statistics")), "{source}");
    }
}

#[test]
fn rejects_files_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let index = |name: &str| {
        let name = [&[b'U', u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
        let class = b"\x80\x02](cjoblib.numpy_pickle\nNDArrayWrapper\n)\x81}U\x08filename";
        [class.as_slice(), &name, b"sbe."].concat()
    };
    let files = golden("pytorch_files");
    let empty = tempfile::tempdir().unwrap();
    let rows = [
        (
            files.join("hostile_call.pth"),
            "skipped main.0.weight: posix.system (no tensors; nothing in the file is executed)",
        ),
        (files.join("hostile_call_legacy.pth"), "skipped main.0.weight: posix.system"),
        (
            files.join("hostile_whole_module.pth"),
            "0.weight (blocks.0.conv.weight): expected (1, 3, 4, 4), found (1, 1, 4, 4)",
        ),
        (files.join("nothing.pth"), "nothing.pth: "),
        (files.join("make.py"), "unknown format; expected safetensors, a PyTorch file"),
        (
            files.join("forward.safetensors"),
            "no network found (skipped fake, logit, score and 2 more in the file: not a network)",
        ),
        (files.clone(), "both.pth and "),
        (empty.path().to_owned(), "no weights file in this folder"),
        (
            write("up.jl", &index("../x.npy")),
            r#"expected the names of files in the same folder, found "../x.npy""#,
        ),
        (write("root.jl", &index("/etc/x.npy")), "expected the names of files in the same folder"),
        (write("dots.jl", &index("..")), "expected the names of files in the same folder"),
        (write("gone.jl", &index("gone.npy")), "gone.npy: "),
        (write("other.jl", &index("other.npy")), "expected a .npy file"),
        (write("number.jl", b"\x80\x02K\x01."), "not a list of arrays"),
        (write("empty", b""), "unknown format; expected safetensors"),
        (write("page.pth", b"<html>not found</html>"), "unknown format; expected safetensors"),
    ];
    write("other.npy", b"\x80\x02K\x01.");
    for (path, reason) in rows {
        let error = read(&path, &pytorch()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
    let both = ["100_gen_params.jl", "200_gen_params.jl"].map(|name| write(name, &index("gone.npy")));
    let error = read(folder.path(), &authors()).unwrap_err();
    assert!(
        matches!(&error, ImportError::Ambiguous { first, second } if [first, second] == [&both[0], &both[1]])
    );
}

/// One large array that an index refers to many times.
#[test]
fn bounds_the_arrays_of_an_index() {
    let values = vec![0; 4 << 10];
    let array = [
        b"\x80\x02](cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(U\x05shapeJ".as_slice(),
        &(1_i32 << 10).to_le_bytes(),
        b"\x85U\x05orderU\x01CU\x05dtypecnumpy\ndtype\nU\x02f4\x85Rub",
        &values,
        b"q\x01",
        &b"h\x01".repeat(300),
        b"e.",
    ];
    assert_eq!(joblib::read(Path::new("f"), &array.concat(), 1 << 20).unwrap().len(), 301);
    let error = joblib::read(Path::new("f"), &array.concat(), 1 << 18).unwrap_err();
    assert!(matches!(error, ImportError::IndexArray { source: ArrayError::TooLarge(_), .. }), "{error}");
}

#[test]
fn a_mismatch_lists_every_tensor() {
    let mut expected = pytorch();
    expected.generator[0].shape[0] = 100;
    expected.generator.truncate(20);
    let error = read(&golden("pytorch_files/netG.pth"), &expected).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  main.0.weight (project.conv.weight): expected (100, 16, 4, 4), found (4, 16, 4, 4)",
            "  unexpected main.12.weight (2, 3, 4, 4)",
            "the file's linear layers are (4, 16, 4, 4), (16, 8, 4, 4), (8, 4, 4, 4), (4, 2, 4, 4), (2, 3, 4, 4): \
             choose the preset or configuration with these layers, or leave both out to infer them",
        ],
        "{error}"
    );
    let error = read(&golden("authors/200_gen_params.jl"), &pytorch()).unwrap_err().to_string();
    assert!(error.contains("missing blocks.3.conv.weight (2, 3, 4, 4)"), "{error}");
    let error = read(&golden("pytorch_files/both.pth"), &expected).unwrap_err().to_string();
    assert!(
        error.contains("netG/main does not match the generator"),
        "a file with one matching network of two is an error: {error}"
    );
}

#[test]
fn reads_native_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.safetensors");
    let d = pytorch_weights("netD", &PYTORCH_D);
    crate::weights::write_safetensors(&path, &d, crate::weights::Precision::F32).unwrap();
    assert_eq!(read(&path, &pytorch()).unwrap().discriminator, Some(d));
}

/// Files cut short at every length, or with a few bytes changed, give an error or tensors, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let rows = [
        ("pytorch_files/netD_parameters_only.pth", pytorch()),
        ("pytorch_files/netD_legacy_strided.pth", pytorch()),
        ("pytorch_files/netD_checkpoint.pth", pytorch()),
        ("pytorch_files/both_flat_legacy.pth", pytorch()),
        ("pytorch_files/netG.safetensors", pytorch()),
        ("authors/200_discrim_params.jl", authors()),
        ("authors/resaved/joblib.jl", authors()),
        ("authors/resaved/pickle.jl", authors()),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (file, expected) in rows {
        let path = golden(file);
        let bytes = fs::read(&path).unwrap();
        let whole = import_bytes(&path, &bytes, &expected).unwrap();
        // Every length within the descriptions at both ends, and some lengths within the values between them.
        let is_tested =
            |length: &usize| *length < 2048 || *length + 1024 > bytes.len() || length.is_multiple_of(37);
        for length in (0..bytes.len()).filter(is_tested) {
            if let Ok(cut) = import_bytes(&path, &bytes[..length], &expected) {
                assert_eq!(cut, whole, "{file} cut to {length} bytes");
            }
        }
        for _ in 0..500 {
            let mut damaged = bytes.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..damaged.len().min(4096));
                damaged[at] = random.random();
            }
            // An error and a result are both valid; a panic or an overflow fails the test.
            let _outcome = import_bytes(&path, &damaged, &expected);
        }
    }
}

/// The archive with a changed `data.pkl`, and checksums that fit.
fn with_pickle(archive: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(archive)).unwrap();
    let mut changed = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let mut change = Some(change);
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).unwrap();
        let (name, mut bytes) = (member.name().unwrap().into_owned(), Vec::new());
        member.read_to_end(&mut bytes).unwrap();
        if let Some(change) = change.take_if(|_| name.ends_with("data.pkl")) {
            change(&mut bytes);
        }
        changed.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        changed.write_all(&bytes).unwrap();
    }
    changed.finish().unwrap().into_inner()
}

/// The same for files whose networks are inferred, with changes in the pickle or in the header.
#[test]
fn damaged_files_are_inferred_or_refused() {
    let files = [
        "bias_g.pth",
        "spectral_new.pth",
        "objects.pth",
        "whole_modules.pth",
        "script_g.pt",
        "parts.safetensors",
    ];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for file in files {
        let path = golden("imports").join(file);
        let bytes = fs::read(&path).unwrap();
        for _ in 0..400 {
            let mut damage = |bytes: &mut Vec<u8>| {
                for _ in 0..random.random_range(1..6) {
                    let at = random.random_range(0..bytes.len().min(6000));
                    bytes[at] = random.random();
                }
            };
            let damaged = match file.ends_with("safetensors") {
                true => {
                    let mut bytes = bytes.clone();
                    damage(&mut bytes);
                    bytes
                }
                false => with_pickle(&bytes, damage),
            };
            let read = |source| model_of(&path, vec![source], Vec::new(), &ImportOptions::default());
            // An error and a result are both valid; a panic or an overflow fails the test.
            let _outcome = sources::parse(&path, &damaged).and_then(read);
        }
    }
}

/// The header of a safetensors file: names, types, shapes and offsets.
fn header(path: &Path) -> serde_json::Value {
    let bytes = fs::read(path).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    serde_json::from_slice(&bytes[8..8 + length]).unwrap()
}

#[test]
fn exports_the_state_dict_of_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netG.safetensors");
    let g = pytorch_weights("netG", &PYTORCH_G);
    to_pytorch_names(NetworkKind::Generator, &g).unwrap().write(&path).unwrap();
    assert_eq!(header(&path), header(&golden("pytorch_files/netG.safetensors")));
    assert_eq!(read(&path, &pytorch()).unwrap().generator, Some(g));

    let d = pytorch_weights("netD", &PYTORCH_D);
    let exported = to_pytorch_names(NetworkKind::Discriminator, &d).unwrap();
    let saved = read_safetensors(&golden("pytorch_files/expected.safetensors")).unwrap();
    let saved =
        saved.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("netD.")?.to_owned(), tensor)));
    assert_eq!(exported.tensors, saved.collect::<Weights>());
    assert_eq!(exported.counters, [3, 6, 9].map(|norm| format!("main.{norm}.num_batches_tracked")));
}

/// Networks of `networks.py`: imported, they give PyTorch's outputs; exported, the state dict that PyTorch saved.
#[test]
fn networks_that_are_no_sequential() {
    let folder = golden("exported_networks");
    let outputs = read_safetensors(&folder.join("outputs.safetensors")).unwrap();
    let rows = |name: &str, key: &str| {
        let HostTensor { shape, data } = &outputs[&format!("{name}.{key}")];
        Maps::rows(data.clone(), shape[1]).unwrap()
    };
    let written = tempfile::tempdir().unwrap();
    for name in ["maps", "vectors", "pooled"] {
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let model = Model::new(serde_json::from_str(&text).unwrap()).unwrap();
        let file = folder.join(format!("{name}.pth"));
        let options = ImportOptions { model: Some(&model), ..ImportOptions::default() };
        let (_, imported) = read_model(std::slice::from_ref(&file), &options).unwrap();
        let (g, d) = (imported.generator.unwrap(), imported.discriminator.unwrap());
        let close = |key: &str, found: &[f32]| {
            let expected = &outputs[&format!("{name}.{key}")].data;
            assert_eq!(found.len(), expected.len(), "{name} {key}");
            let far = found.iter().zip(expected).find(|(a, b)| (**a - **b).abs() > 1e-5);
            assert_eq!(far, None, "{name} {key}");
        };
        let z = rows(name, "z");
        let y = model.config().is_conditional().then(|| rows(name, "y"));
        let latents = Latents::new(z.values().to_vec(), z.shape().len()).unwrap();
        let latents = match &y {
            Some(y) => latents.with_label_rows(y.clone()).unwrap(),
            None => latents,
        };
        let mut generator = Generator::new(&model, &g, &candle_core::Device::Cpu).unwrap();
        let images = generator.sample(&latents).unwrap();
        let in_order: Vec<f32> = images.to_tensor().unwrap().flatten_all().unwrap().to_vec1().unwrap();
        close("images", &in_order);
        let mut discriminator = Discriminator::new(&model, &d, &candle_core::Device::Cpu).unwrap();
        close("logits", &discriminator.score(Input { maps: &images, labels: y.as_ref() }).unwrap());

        let mut names = Vec::new();
        for (network, kind, weights) in
            [("netG", NetworkKind::Generator, &g), ("netD", NetworkKind::Discriminator, &d)]
        {
            let (exported, is_native) = to_pytorch(kind, &model, weights).unwrap();
            assert!(is_native);
            names.extend(exported.tensors.keys().chain(&exported.counters).map(|n| format!("{network}/{n}")));
            let path = written.path().join(format!("{network}.safetensors"));
            exported.write(&path).unwrap();
        }
        // A folder of an export says its networks itself.
        let (returned, imported) =
            read_model(&[written.path().to_owned()], &ImportOptions::default()).unwrap();
        assert_eq!(
            (returned.config(), imported.generator, imported.discriminator),
            (model.config(), Some(g), Some(d))
        );
        let Content::Tensors(saved) = sources::read(&file).unwrap().content else { panic!("{name}: arrays") };
        let mut saved: Vec<String> = saved.into_iter().map(|t| format!("{}/{}", t.scope, t.name)).collect();
        names.sort();
        saved.sort();
        assert_eq!(names, saved, "{name}");
    }
}

#[test]
fn rejects_exports_that_pytorch_does_not_support() {
    let tensor =
        |shape: &[usize]| HostTensor { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] };
    let rows = [
        ("project.norm.weight", NetworkKind::Generator, "found per-activation batch norm of shape (2, 1, 1)"),
        (
            "project.conv.weight",
            NetworkKind::Discriminator,
            "project.conv.weight is not a tensor of a discriminator",
        ),
        ("head.conv.weight", NetworkKind::Generator, "head.conv.weight is not a tensor of a generator"),
        (
            "blocks.7.norm.weight",
            NetworkKind::Generator,
            "blocks.7.norm.weight is not a tensor of a generator",
        ),
        ("blocks.0.bias", NetworkKind::Generator, "blocks.0.bias is not a tensor"),
        ("weight", NetworkKind::Generator, "weight is not a tensor"),
    ];
    for (name, network, reason) in rows {
        let weights = ["blocks.0.conv.weight", name].map(|name| (name.to_owned(), tensor(&[2, 1, 1])));
        let error = to_pytorch_names(network, &weights.into()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
}
