//! Tests of damaged and hostile tensors in PyTorch's files; `import/tests.rs` tests whole files.

use super::*;

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()
}

fn sizes(sizes: &[u64]) -> Vec<u8> {
    let items = sizes.iter().flat_map(|size| [b"\x8a\x08".as_slice(), &size.to_le_bytes()].concat());
    [b"(".to_vec(), items.collect(), b"t".to_vec()].concat()
}

/// A tensor in a pickle, with a storage called `key`.
struct Row<'a> {
    class: &'a str,
    key: &'a str,
    values: u64,
    offset: u64,
    shape: &'a [u64],
    strides: &'a [u64],
}

impl Row<'_> {
    fn pickled(&self) -> Vec<u8> {
        let storage = [
            b"(".to_vec(),
            text("storage"),
            format!("ctorch\n{}\n", self.class).into_bytes(),
            text(self.key),
            text("cpu"),
            [b"\x8a\x08".as_slice(), &self.values.to_le_bytes(), b"tQ"].concat(),
        ];
        let offset = [b"\x8a\x08".as_slice(), &self.offset.to_le_bytes()].concat();
        let shape = [sizes(self.shape), sizes(self.strides), b"tR".to_vec()].concat();
        [b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(), storage.concat(), offset, shape].concat()
    }

    /// A legacy file of this tensor under the name `t`, with a storage `0` of two f32.
    fn file(&self) -> Vec<u8> {
        let head = [LEGACY_MAGIC, b"\x6a\xa8\x50\x19.", b"\x80\x02M\xe9\x03.", b"\x80\x02}."].concat();
        let dict = [b"\x80\x02}".to_vec(), text("t"), self.pickled(), b"s.".to_vec()].concat();
        let keys = [b"\x80\x02]".to_vec(), text("0"), b"a.".to_vec()].concat();
        let storage = [2_u64.to_le_bytes().as_slice(), &1_f32.to_le_bytes(), &2_f32.to_le_bytes()].concat();
        [head, dict, keys, storage].concat()
    }
}

const VALID: Row = Row { class: "FloatStorage", key: "0", values: 2, offset: 0, shape: &[2], strides: &[1] };

#[test]
fn reads_valid_tensors() {
    let rows: [(Row, Option<&[f32]>); 5] = [
        (VALID, Some(&[1.0, 2.0])),
        (Row { offset: 1, shape: &[], strides: &[], ..VALID }, Some(&[2.0])),
        (Row { shape: &[2, 2], strides: &[0, 1], ..VALID }, Some(&[1.0, 2.0, 1.0, 2.0])),
        (Row { shape: &[0], ..VALID }, Some(&[])),
        // Several integers are not weights.
        (Row { class: "IntStorage", ..VALID }, None),
    ];
    for (row, expected) in rows {
        let tensors = read_legacy(Path::new("f"), &row.file()).unwrap().tensors;
        let first = tensors.first().map(|first| (first.name.as_str(), first.tensor.data.as_slice()));
        assert_eq!(first, expected.map(|values| ("t", values)));
    }
}

#[test]
fn rejects_invalid_tensors() {
    let half = 1 << 63;
    let rows = [
        (Row { offset: 1, ..VALID }, TensorError::OutOfStorage(2)),
        (Row { offset: half - 1, ..VALID }, TensorError::OutOfStorage(2)),
        (Row { strides: &[half - 1], shape: &[3], ..VALID }, TensorError::OutOfStorage(2)),
        (Row { offset: half, ..VALID }, TensorError::Malformed),
        (Row { strides: &[1, 1], ..VALID }, TensorError::Malformed),
        // The length before the storage is 2.
        (Row { values: 1, ..VALID }, TensorError::Malformed),
        (Row { key: "1", ..VALID }, TensorError::Malformed),
        (Row { values: 3, ..VALID }, TensorError::CutShort { expected: 12, found: 8 }),
        (Row { values: half - 1, ..VALID }, TensorError::CutShort { expected: usize::MAX, found: 8 }),
        (Row { shape: &[1 << 20, 1 << 20], strides: &[0, 0], ..VALID }, TensorError::TooLarge(MAX_VALUES)),
        (Row { shape: &[half - 1, 3], strides: &[0, 0], ..VALID }, TensorError::TooLarge(MAX_VALUES)),
    ];
    for (row, expected) in rows {
        match read_legacy(Path::new("f"), &row.file()) {
            Err(ImportError::Tensor { source, .. }) => assert_eq!(source, expected),
            other => panic!("{other:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn bounds_recursion_and_sharing() {
    // A list that contains itself, one that doubles at each of 60 levels, and a large dict shared 100,000 times.
    let doubling = [b"]".as_slice(), &b"q\x00\x85h\x00\x86q\x00".repeat(60), b"."].concat();
    let shared_dict =
        [b"](}q\x00(".as_slice(), &b"NN".repeat(100_000), b"u", &b"h\x00".repeat(100_000), b"e."].concat();
    for pickled in [b"]q\x00h\x00a.".to_vec(), doubling, shared_dict] {
        let pickle = pickle::read(&pickled).unwrap();
        assert!(state_dict::tensors(&pickle).is_err());
    }
}
