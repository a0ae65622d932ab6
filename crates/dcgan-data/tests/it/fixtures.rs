//! Writers for every format, with images of distinct pixels.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use dcgan_data::{Dataset, ImageShape, OpenOptions};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use image::{GrayImage, ImageFormat, RgbImage};
use zip::write::SimpleFileOptions;

pub(crate) const fn shape(height: usize, width: usize, channels: usize) -> ImageShape {
    ImageShape { height, width, channels }
}

/// Opens a dataset with default options.
pub(crate) fn open(path: &Path, shape: ImageShape) -> Dataset {
    Dataset::open(path, &OpenOptions::new(shape)).unwrap()
}

pub(crate) fn read(dataset: &Dataset, index: usize) -> Vec<u8> {
    let mut pixels = vec![0; dataset.shape().bytes()];
    dataset.read(index, &mut pixels).unwrap();
    pixels
}

/// The value of a pixel of image `index`. It differs between neighbouring pixels and between images.
pub(crate) fn value(index: usize, row: usize, column: usize, channel: usize) -> u8 {
    u8::try_from((index * 97 + row * 31 + column * 7 + channel * 59) % 256).unwrap()
}

/// Image `index` as `(h, w, c)`.
pub(crate) fn pixels(index: usize, shape: ImageShape) -> Vec<u8> {
    let mut pixels = Vec::new();
    for row in 0..shape.height {
        for column in 0..shape.width {
            pixels.extend((0..shape.channels).map(|channel| value(index, row, column, channel)));
        }
    }
    pixels
}

/// Image `index` in another axis order: `offset` maps (row, column, channel) to the offset of the value.
pub(crate) fn reordered(
    index: usize,
    shape: ImageShape,
    offset: impl Fn(usize, usize, usize) -> usize,
) -> Vec<u8> {
    let mut pixels = vec![0; shape.bytes()];
    for row in 0..shape.height {
        for column in 0..shape.width {
            for channel in 0..shape.channels {
                pixels[offset(row, column, channel)] = value(index, row, column, channel);
            }
        }
    }
    pixels
}

pub(crate) const CIFAR: ImageShape = shape(32, 32, 3);

/// CIFAR records `first..first + count`; label i is i modulo 10.
pub(crate) fn cifar10(first: usize, count: usize) -> Vec<u8> {
    (first..first + count).flat_map(|index| cifar_record(&[index % 10], index)).collect()
}

pub(crate) fn cifar_record(labels: &[usize], index: usize) -> Vec<u8> {
    let mut record: Vec<u8> = labels.iter().map(|label| u8::try_from(*label).unwrap()).collect();
    record.extend(reordered(index, CIFAR, |row, column, channel| channel * 1024 + row * 32 + column));
    record
}

/// An idx file of u8.
pub(crate) fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(sizes.len()).unwrap()];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// `count` images of 5 x 4 as an idx file.
pub(crate) fn idx_images(count: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..count as usize).flat_map(|index| pixels(index, shape(5, 4, 1))).collect();
    idx(&[count, 5, 4], &data)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Element types of MATLAB v5.
pub(crate) const MI_UINT8: u32 = 2;
pub(crate) const MI_DOUBLE: u32 = 9;

/// A MATLAB v5 file of numeric arrays: name, sizes, element type, raw values.
pub(crate) fn mat5(arrays: &[(&str, &[i32], u32, Vec<u8>)], compressed: bool) -> Vec<u8> {
    let mut file = b"MATLAB 5.0 MAT-file, written by a test".to_vec();
    file.resize(124, b' ');
    file.extend(*b"\x00\x01IM");
    for (name, sizes, kind, values) in arrays {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        // Array flags: class uint8 (9). Short names are small data elements.
        let parts = [
            element(6, &[9, 0, 0, 0, 0, 0, 0, 0]),
            element(5, &sizes),
            element(1, name.as_bytes()),
            element(*kind, values),
        ];
        let matrix = element(14, &parts.concat());
        if compressed {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&matrix).unwrap();
            let deflated = encoder.finish().unwrap();
            file.extend(15_u32.to_le_bytes());
            file.extend(u32::try_from(deflated.len()).unwrap().to_le_bytes());
            file.extend(deflated);
        } else {
            file.extend(matrix);
        }
    }
    file
}

/// An element, padded to eight bytes; a small data element if it has at most four bytes of data.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut bytes = if length <= 4 {
        (length << 16 | kind).to_le_bytes().to_vec()
    } else {
        [kind, length].map(u32::to_le_bytes).concat()
    };
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The layout of SVHN: column-major X `(h, w, 3, n)`, and y with 10 for the digit 0; label i is i modulo 10.
pub(crate) fn svhn(count: usize, shape: ImageShape, label_kind: u32, compressed: bool) -> Vec<u8> {
    let offset = |row, column, channel| row + shape.height * (column + shape.width * channel);
    let images = (0..count).flat_map(|index| reordered(index, shape, offset)).collect();
    let label = |index: usize| u8::try_from(if index.is_multiple_of(10) { 10 } else { index % 10 }).unwrap();
    let labels = match label_kind {
        MI_DOUBLE => (0..count).flat_map(|index| f64::from(label(index)).to_le_bytes()).collect(),
        _ => (0..count).map(label).collect(),
    };
    let [height, width, count] = [shape.height, shape.width, count].map(|size| i32::try_from(size).unwrap());
    let sizes = [height, width, 3, count];
    // Other arrays, before and between X and y, are skipped.
    let other = ("meta", &[3, 1][..], MI_UINT8, vec![1, 2, 3]);
    mat5(
        &[other.clone(), ("X", &sizes, MI_UINT8, images), other, ("y", &[count, 1], label_kind, labels)],
        compressed,
    )
}

/// Image `index` of `shape` (grey or RGB) as an encoded file.
pub(crate) fn encoded(index: usize, shape: ImageShape, format: ImageFormat) -> Vec<u8> {
    let side = |side: usize| u32::try_from(side).unwrap();
    let (width, height, data) = (side(shape.width), side(shape.height), pixels(index, shape));
    let mut out = Cursor::new(Vec::new());
    match shape.channels {
        1 => GrayImage::from_raw(width, height, data).unwrap().write_to(&mut out, format),
        _ => RgbImage::from_raw(width, height, data).unwrap().write_to(&mut out, format),
    }
    .unwrap();
    out.into_inner()
}

pub(crate) fn png(index: usize) -> Vec<u8> {
    encoded(index, shape(5, 4, 3), ImageFormat::Png)
}

/// A zip of files, deflated.
pub(crate) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A temporary folder of files, removed on drop.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, content)| folder.write(name, content));
        folder
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// How a pickle of CIFAR was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PickleStyle {
    /// Protocol 2 by Python 2, as published: byte strings.
    Python2,
    /// Protocol 2 by Python 3: bytes as Latin-1 text that is encoded.
    Latin1,
    /// Protocol 5 by Python 3 and numpy 2: `_frombuffer`.
    Python3,
}

/// A string in a pickle of `style`.
fn pickled_text(style: PickleStyle, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    match style {
        PickleStyle::Python2 => [&[b'U', length], text.as_bytes()].concat(),
        PickleStyle::Latin1 => [&[b'X', length, 0, 0, 0], text.as_bytes()].concat(),
        PickleStyle::Python3 => [&[0x8c, length], text.as_bytes()].concat(),
    }
}

/// A byte string in a pickle of `style`, such as a key of the published batches.
fn pickled_bytes(style: PickleStyle, text: &str) -> Vec<u8> {
    let plain = pickled_text(style, text);
    match style {
        PickleStyle::Python2 => plain,
        PickleStyle::Latin1 => {
            [b"c_codecs\nencode\n", &plain[..], &pickled_text(style, "latin1"), b"\x86R"].concat()
        }
        PickleStyle::Python3 => [b"C", &plain[1..]].concat(),
    }
}

/// A u8 array of `rows` x `columns` in a pickle of `style`.
fn pickled_array(style: PickleStyle, rows: u16, columns: u16, data: &[u8]) -> Vec<u8> {
    let text = |text: &str| pickled_text(style, text);
    let sizes = [b"M", &rows.to_le_bytes()[..], b"M", &columns.to_le_bytes(), &[0x86]].concat();
    let global = |module: &str, name: &str| match style {
        PickleStyle::Python3 => [text(module), text(name), vec![0x93]].concat(),
        _ => format!("c{module}\n{name}\n").into_bytes(),
    };
    // dtype("u1", False, True), then its state: version, byte order and others.
    let flags: &[u8] = if style == PickleStyle::Python3 { &[0x89, 0x88, 0x87] } else { b"K\0K\x01\x87" };
    let dtype = [
        &global("numpy", "dtype"),
        &text("u1")[..],
        flags,
        b"R(K\x03",
        &text("|"),
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
    ]
    .concat();
    if style == PickleStyle::Python3 {
        let buffer = [&[0x96], &(data.len() as u64).to_le_bytes()[..], data].concat();
        let function = global("numpy._core.numeric", "_frombuffer");
        return [&function[..], b"(", &buffer, &dtype, &sizes, &text("C"), b"tR"].concat();
    }
    let bytes = match style {
        PickleStyle::Python2 => [b"T", &u32::try_from(data.len()).unwrap().to_le_bytes()[..], data].concat(),
        _ => {
            let latin1: String = data.iter().map(|byte| char::from(*byte)).collect();
            let length = u32::try_from(latin1.len()).unwrap().to_le_bytes();
            let encode = global("_codecs", "encode");
            [&encode[..], b"X", &length, latin1.as_bytes(), &text("latin1"), b"\x86R"].concat()
        }
    };
    let new = [global("numpy.core.multiarray", "_reconstruct"), global("numpy", "ndarray")].concat();
    let state = [b"(K\x01", &sizes[..], &dtype, b"\x89", &bytes, b"tb"].concat();
    [&new[..], b"K\0\x85", &text("b"), b"\x87R", &state].concat()
}

/// A batch of the python version of CIFAR: a label and the number of an image per record. `key` is the key of labels.
pub(crate) fn cifar_pickle(style: PickleStyle, key: &str, records: &[(u8, usize)]) -> Vec<u8> {
    let pixels: Vec<u8> = records.iter().flat_map(|(_, index)| cifar_record(&[], *index)).collect();
    let array = pickled_array(style, u16::try_from(records.len()).unwrap(), 3072, &pixels);
    let labels: Vec<u8> = records.iter().flat_map(|(label, _)| [b'K', *label]).collect();
    let version = if style == PickleStyle::Python3 { 5 } else { 2 };
    let (data, key) = (pickled_bytes(style, "data"), pickled_text(style, key));
    [&[0x80, version, b'}', b'('], &data[..], &array, &key, b"](", &labels, b"eu."].concat()
}

/// The file of class names of the python version of CIFAR.
pub(crate) fn cifar_names(style: PickleStyle, key: &str, names: &[String]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| pickled_text(style, name)).collect();
    [b"\x80\x02}", &pickled_bytes(style, key)[..], b"](", &list, b"es."].concat()
}

/// A .npy file: type, sizes and values.
pub(crate) fn npy(descr: &str, sizes: &[usize], data: &[u8]) -> Vec<u8> {
    let sizes: String = sizes.iter().map(|size| format!("{size}, ")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    while (text.len() + 11) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    [b"\x93NUMPY\x01\0", &u16::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes(), data]
        .concat()
}

/// A zip of files, stored as numpy.savez does.
pub(crate) fn stored_zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Four quarters of 8 x 8 pixels in the colors of [`QUARTERS`].
pub(crate) fn quarters() -> RgbImage {
    RgbImage::from_fn(16, 16, |x, y| image::Rgb(QUARTERS[usize::from(y >= 8) * 2 + usize::from(x >= 8)]))
}

pub(crate) const QUARTERS: [[u8; 3]; 4] = [[200, 40, 40], [40, 200, 40], [40, 40, 200], [230, 230, 60]];

/// [`quarters`] as a TIFF file with a palette, of `bits` per pixel. The colors have 16 bits, or 8 as some programs
/// write them.
pub(crate) fn palette_tiff(is_big_endian: bool, bits: u16, has_deep_colors: bool) -> Vec<u8> {
    let short = |value: u16| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let image = quarters();
    let pixels: Vec<u8> = image
        .pixels()
        .map(|pixel| u8::try_from(QUARTERS.iter().position(|color| *color == pixel.0).unwrap()).unwrap() + 7)
        .collect();
    let pixels: Vec<u8> =
        if bits == 8 { pixels } else { pixels.chunks(2).map(|two| two[0] << 4 | two[1]).collect() };
    let colors = 1_usize << bits;
    let palette = (0..3 * colors).flat_map(|i| {
        let color = (i % colors).checked_sub(7).and_then(|at| QUARTERS.get(at)).copied().unwrap_or_default();
        let value = u16::from(color[i / colors]);
        short(if has_deep_colors { value * 257 } else { value })
    });
    let first = 8;
    let map = first + u32::try_from(pixels.len()).unwrap();
    let directory = map + u32::try_from(6 * colors).unwrap();
    let small = |value: u16| [short(value), [0; 2]].concat();
    let entries: [(u16, u16, u32, Vec<u8>); 9] = [
        (256, 3, 1, small(16)),
        (257, 3, 1, small(16)),
        (258, 3, 1, small(bits)),
        (259, 3, 1, small(1)),
        (262, 3, 1, small(3)),
        (273, 4, 1, long(first).to_vec()),
        (278, 3, 1, small(16)),
        (279, 4, 1, long(map - first).to_vec()),
        (320, 3, u32::try_from(3 * colors).unwrap(), long(map).to_vec()),
    ];
    let mut file = if is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    file.extend(long(directory));
    file.extend(pixels);
    file.extend(palette);
    file.extend(short(9));
    for (tag, kind, count, value) in entries {
        file.extend([&short(tag)[..], &short(kind), &long(count), &value].concat());
    }
    file.extend(long(0));
    file
}

pub(crate) fn encoded_as(image: &image::DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}
