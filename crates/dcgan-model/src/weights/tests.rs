//! Tests of weights in memory and in safetensors files.

use super::*;

fn tensor(shape: &[usize], data: &[f32]) -> HostTensor {
    HostTensor { shape: shape.to_vec(), data: data.to_vec() }
}

/// Name, shape, values.
type Row<'a> = (&'a str, &'a [usize], &'a [f32]);

fn weights(tensors: &[Row]) -> Weights {
    tensors.iter().map(|(name, shape, data)| ((*name).to_owned(), tensor(shape, data))).collect()
}

fn sample() -> Weights {
    weights(&[
        ("head.conv.weight", &[1, 2, 1, 1], &[1.5, -2.25]),
        ("blocks.0.conv.weight", &[2, 1, 1, 2], &[0.1, 1e-20, 3.0, -1e9]),
        ("blocks.0.norm.running_mean", &[2], &[0.0, 7.0]),
        ("scalar", &[], &[4.0]),
        ("empty", &[0, 3], &[]),
    ])
}

#[test]
fn round_trips_with_identical_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (dtype, expected) in [
        (Precision::F32, sample()),
        (Precision::Bf16, {
            let mut rounded = sample();
            let values = rounded.values_mut().flat_map(|tensor| &mut tensor.data);
            values.for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
            rounded
        }),
    ] {
        let paths = ["a.safetensors", "b.safetensors"].map(|name| folder.path().join(name));
        for path in &paths {
            write_safetensors(path, &sample(), dtype).unwrap();
            write_safetensors(path, &sample(), dtype).expect("an existing file is replaced");
        }
        assert_eq!(read_safetensors(&paths[0]).unwrap(), expected, "{dtype:?}");
        assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap(), "{dtype:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "found temporary files");
}

#[test]
fn reports_invalid_tensors_and_paths() {
    let folder = tempfile::tempdir().unwrap();
    let inconsistent = weights(&[("a", &[2, 3], &[0.0; 5])]);
    let path = folder.path().join("x.safetensors");
    let error = write_safetensors(&path, &inconsistent, Precision::F32).unwrap_err();
    assert!(
        error.to_string().ends_with(r#"tensor "a": expected as many values as shape (2, 3) has, found 5"#),
        "{error}"
    );
    assert!(!path.exists());
    let missing = folder.path().join("no/x.safetensors");
    assert!(matches!(write_safetensors(&missing, &sample(), Precision::F32), Err(WeightsError::Io { .. })));
    assert!(matches!(read_safetensors(&missing), Err(WeightsError::Io { .. })));
}

#[test]
fn rejects_files_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write_safetensors(&path, &sample(), Precision::F32).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        let cut = parse_safetensors(&path, &bytes[..length]);
        assert!(matches!(cut, Err(WeightsError::NotSafetensors { .. })), "{length} bytes");
    }
    let huge = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
    assert!(matches!(parse_safetensors(&path, &huge), Err(WeightsError::NotSafetensors { .. })));
}

/// A safetensors file of one tensor `t`.
fn one(dtype: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header =
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{}]}}}}"#, bytes.len());
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), bytes].concat()
}

#[test]
fn reads_floating_point_types() {
    let float: [(&str, Vec<u8>, &[f32]); 5] = [
        ("F32", one("F32", "[2]", &[0, 0, 128, 63, 0, 0, 0, 192]), &[1.0, -2.0]),
        ("F64", one("F64", "[1]", &[0, 0, 0, 0, 0, 0, 248, 63]), &[1.5]),
        ("F16", one("F16", "[2]", &[0, 60, 1, 0]), &[1.0, 5.960_464_5e-8]),
        ("BF16", one("BF16", "[2]", &[128, 63, 128, 127]), &[1.0, f32::INFINITY]),
        // One integer is a counter.
        ("I64", one("I64", "[]", &[20, 0, 0, 0, 0, 0, 0, 0]), &[20.0]),
    ];
    for (dtype, file, values) in float {
        assert_eq!(parse_safetensors(Path::new("f"), &file).unwrap()["t"].data, values, "{dtype}");
    }
    let others: [(&str, Vec<u8>); 3] = [
        ("I32", one("I32", "[2]", &[0; 8])),
        ("U8", one("U8", "[3]", &[0; 3])),
        ("BOOL", one("BOOL", "[1]", &[1])),
    ];
    for (dtype, file) in others {
        match parse_safetensors(Path::new("f"), &file) {
            Err(WeightsError::Dtype { tensor, found, .. }) => {
                assert_eq!((tensor.as_str(), found.as_str()), ("t", dtype));
            }
            other => panic!("{dtype}: {other:?}"),
        }
    }
}

#[test]
fn check_lists_every_mismatch() {
    let spec = |name: &str, shape: &[usize], optional| TensorSpec {
        name: name.into(),
        shape: shape.into(),
        optional,
    };
    let expected = [
        spec("blocks.0.conv.weight", &[2, 1], false),
        spec("blocks.1.norm.weight", &[2], false),
        spec("blocks.1.norm.running_mean", &[2], true),
        spec("blocks.1.norm.running_var", &[2], true),
    ];
    let w: Row = ("blocks.0.conv.weight", &[2, 1], &[0.0; 2]);
    let gain: Row = ("blocks.1.norm.weight", &[2], &[0.0; 2]);
    let mean: Row = ("blocks.1.norm.running_mean", &[2], &[0.0; 2]);
    let variance: Row = ("blocks.1.norm.running_var", &[2], &[0.0; 2]);
    let rows: [(&[Row], &str); 7] = [
        (&[w, gain], ""),
        (&[w, gain, mean, variance], ""),
        (&[w, gain, mean], "\n  missing blocks.1.norm.running_var (2)"),
        (&[w, gain, ("z", &[], &[1.0])], "\n  unexpected z ()"),
        (
            &[w, ("blocks.1.norm.weight", &[3], &[0.0; 3])],
            "\n  blocks.1.norm.weight: expected (2), found (3)",
        ),
        (
            &[w, ("blocks.1.norm.weight", &[2], &[0.0; 3])],
            "\n  blocks.1.norm.weight: expected (2), found (2)",
        ),
        (
            &[("blocks.0.conv.weight", &[1, 2], &[0.0; 2]), variance, ("extra", &[1], &[0.0])],
            "\n  blocks.0.conv.weight: expected (2, 1), found (1, 2)\n  missing blocks.1.norm.weight (2)\
             \n  missing blocks.1.norm.running_mean (2)\n  unexpected extra (1)",
        ),
    ];
    for (tensors, mismatches) in rows {
        let message =
            check(Path::new("g"), &weights(tensors), &expected).err().map(|error| error.to_string());
        let expected =
            (!mismatches.is_empty()).then(|| format!("g: the weights do not match the network:{mismatches}"));
        assert_eq!(message, expected);
    }
}

#[test]
fn finds_the_first_non_finite_tensor() {
    for (value, found) in [(1.0, None), (f32::NAN, Some("b")), (f32::NEG_INFINITY, Some("b"))] {
        let weights = weights(&[("c", &[1], &[value]), ("b", &[2], &[0.0, value]), ("a", &[1], &[0.0])]);
        assert_eq!(first_non_finite(&weights), found);
    }
}

#[test]
fn parses_and_displays_precisions() {
    for (text, dtype) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        assert_eq!(text.parse(), Ok(dtype));
        assert_eq!(dtype.to_string(), text);
    }
    let error = "f16".parse::<Precision>().unwrap_err();
    assert_eq!(error, r#"unknown precision "f16", expected f32 or bf16"#);
}
