//! Valid inputs to start from, made here or by the generators beside the goldens.

use crate::targets::networks;
use dcgan_model::weights::TensorSpec;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use image::{DynamicImage, ImageFormat};
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;

/// The folder of the goldens.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden")
}

/// The files of a folder with one of these extensions, at most 32 KiB each, sorted by name.
pub(crate) fn files(folder: &str, extensions: &[&str]) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(golden().join(folder)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let wanted = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
    };
    let content = paths.into_iter().filter(wanted).filter_map(|path| std::fs::read(path).ok());
    content.filter(|bytes| bytes.len() <= 32 << 10).collect()
}

/// The files of other programs for the readers of dcgan-data, in `folders` and one or two levels below.
pub(crate) fn written(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/dcgan-data/tests/written");
    let mut paths: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    for _ in 0..3 {
        let (folders, mut files): (Vec<PathBuf>, Vec<PathBuf>) =
            paths.into_iter().partition(|path| path.is_dir());
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        files.extend(entries.flatten().map(|entry| entry.path()));
        paths = files;
    }
    paths.sort();
    paths.iter().filter(|path| path.is_file()).filter_map(|path| std::fs::read(path).ok()).collect()
}

/// `data.pkl` of the zips among `files`.
pub(crate) fn pickles() -> Vec<Vec<u8>> {
    let pickle = |bytes: Vec<u8>| {
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
        let name = archive.file_names().flatten().find(|name| name.ends_with("data.pkl"))?.into_owned();
        let mut content = Vec::new();
        archive.by_name(&name).ok()?.read_to_end(&mut content).ok()?;
        Some(content)
    };
    files("pytorch_files", &["pth"]).into_iter().filter_map(pickle).collect()
}

/// Arrays of zeros in a pickle, as joblib writes them: the values follow each object, or are part of the pickle.
pub(crate) fn joblib(tensors: &[TensorSpec], is_in_stream: bool) -> Vec<u8> {
    let text =
        |text: &str| [&[b'X', u8::try_from(text.len()).unwrap_or(0), 0, 0, 0], text.as_bytes()].concat();
    let mut bytes = b"\x80\x02](".to_vec();
    for TensorSpec { shape, .. } in tensors.iter().filter(|tensor| !tensor.optional) {
        let mut sizes = b"(".to_vec();
        for size in shape {
            sizes.push(b'M');
            sizes.extend(u16::try_from(*size).unwrap_or(0).to_le_bytes());
        }
        sizes.push(b't');
        let values = vec![0; 4 * shape.iter().product::<usize>()];
        let array = if is_in_stream {
            let class = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(";
            let state = [text("shape"), sizes, text("order"), text("C"), text("dtype"), numpy_type("f4")];
            [&class[..], &state.concat(), b"ub", &values].concat()
        } else {
            numpy_array(&sizes, "f4", &values)
        };
        bytes.extend(array);
    }
    bytes.extend(b"e.");
    bytes
}

/// `numpy.dtype(name)` in little-endian order.
fn numpy_type(name: &str) -> Vec<u8> {
    let state = b"K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb";
    [&b"cnumpy\ndtype\nU\x02"[..], name.as_bytes(), state].concat()
}

/// An array whose values are part of the pickle; `sizes` are a pickled tuple.
fn numpy_array(sizes: &[u8], descr: &str, values: &[u8]) -> Vec<u8> {
    let new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01";
    let length = u32::try_from(values.len()).unwrap_or(0).to_le_bytes();
    [&new[..], sizes, &numpy_type(descr), b"\x89B", &length, values, b"tb"].concat()
}

/// A batch of the python version of CIFAR with two images, its bytes as bytes or as text of protocol 2.
pub(crate) fn cifar_pickle(is_text: bool) -> Vec<u8> {
    let pixels = vec![7; 2 * 3072];
    let mut array = numpy_array(b"K\x02M\0\x0c\x86", "u1", &pixels);
    if is_text {
        let length = u32::try_from(pixels.len()).unwrap_or(0).to_le_bytes();
        let encoded = [&b"c_codecs\nencode\nX"[..], &length, &pixels, b"X\x06\0\0\0latin1\x86R"].concat();
        let start = array.len() - 2 - pixels.len() - 5;
        array.splice(start..array.len() - 2, encoded);
    }
    [&b"\x80\x02}(U\x04data"[..], &array, b"U\x06labels](K\x03K\x07eu."].concat()
}

/// The storages of netG.pth, by their names in the archive: a pickle is accepted only with storages of its sizes.
pub(crate) fn storages() -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(golden().join("pytorch_files/netG.pth")).unwrap_or_default();
    let Ok(mut archive) = zip::ZipArchive::new(Cursor::new(bytes)) else { return Vec::new() };
    let names: Vec<String> = archive.file_names().flatten().map(std::borrow::Cow::into_owned).collect();
    let mut storages = Vec::new();
    for name in names {
        let Some((_, key)) = name.split_once("/data/") else { continue };
        let mut content = Vec::new();
        if archive.by_name(&name).is_ok_and(|mut file| file.read_to_end(&mut content).is_ok()) {
            storages.push((format!("archive/data/{key}"), content));
        }
    }
    storages
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

/// A stored zip.
pub(crate) fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in files {
        let written = writer.start_file(*name, options).map(|()| writer.write_all(content));
        if !matches!(written, Ok(Ok(()))) {
            return Vec::new();
        }
    }
    writer.finish().map(Cursor::into_inner).unwrap_or_default()
}

/// One image in every format that this build of the image crate writes.
pub(crate) fn images() -> Vec<Vec<u8>> {
    let pixel = |x: u32, y: u32, c: u32| u8::try_from((x * 31 + y * 57 + c * 91) % 256).unwrap_or(0);
    let rgb = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([0, 1, 2].map(|c| pixel(x, y, c))));
    let rgba = image::RgbaImage::from_fn(6, 5, |x, y| image::Rgba([0, 1, 2, 3].map(|c| pixel(x, y, c))));
    let grey = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([pixel(x, y, 0)]));
    let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(4, 4, |x, y| {
        image::Luma([u16::from(pixel(x, y, 0)) * 257])
    });
    let images: [DynamicImage; 4] = [rgb.into(), rgba.into(), grey.into(), deep.into()];
    let formats = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::Tiff,
        ImageFormat::Pnm,
    ];
    let mut encoded = Vec::new();
    for image in &images {
        for format in formats {
            let mut bytes = Cursor::new(Vec::new());
            if image.write_to(&mut bytes, format).is_ok() {
                encoded.push(bytes.into_inner());
            }
        }
    }
    let zipped: Vec<Vec<u8>> = encoded.iter().take(2).map(|bytes| gzip(bytes)).collect();
    encoded.extend(zipped);
    encoded.push(palette_tiff());
    // What phones write: an EXIF block, and a video after the image.
    if let Some(jpeg) = encoded.iter().find(|bytes| bytes.starts_with(&[0xff, 0xd8])).cloned() {
        let mut exif = vec![0xff, 0xd8, 0xff, 0xe1, 0, 34];
        exif.extend(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
        exif.extend(&jpeg[2..]);
        encoded.push(exif);
        encoded.push([&jpeg[..], b"\0\0\0\x18ftypmp42\xff\xda\xff\xd9"].concat());
    }
    encoded
}

/// A TIFF image of 2 x 2 pixels with a palette.
fn palette_tiff() -> Vec<u8> {
    let mut file = b"II*\0\x0c\0\0\0\x07\x09\x07\x09".to_vec();
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 3),
        (273, 4, 1, 8),
        (278, 3, 1, 2),
        (279, 4, 1, 4),
        (320, 3, 768, 126),
    ];
    file.extend(9_u16.to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    file.extend((0..768_u16).flat_map(|i| (i * 80).to_le_bytes()));
    file
}

/// An idx file of u8 values.
pub(crate) fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let dimensions = u8::try_from(sizes.len()).unwrap_or(1);
    let mut bytes = vec![0, 0, 8, dimensions];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A MATLAB 5 file of `X` (2x3x3x2) and `y`, with and without compression.
pub(crate) fn mat() -> Vec<Vec<u8>> {
    let element = |kind: u32, data: &[u8]| {
        let mut bytes = [kind.to_le_bytes(), u32::try_from(data.len()).unwrap_or(0).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let matrix = |name: &str, class: u32, sizes: &[i32], data: &[u8]| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let flags = [class.to_le_bytes(), [0; 4]].concat();
        let parts = [element(6, &flags), element(5, &sizes), element(1, name.as_bytes()), element(2, data)];
        parts.concat()
    };
    let pixels: Vec<u8> = (0..36).collect();
    let arrays = [matrix("X", 9, &[2, 3, 3, 2], &pixels), matrix("y", 9, &[2, 1], &[10, 1])];
    let mut header = b"MATLAB 5.0 MAT-file, made for tests".to_vec();
    header.resize(124, b' ');
    header.extend([0, 1, b'I', b'M']);
    let plain = [header.clone(), arrays.each_ref().map(|array| element(14, array)).concat()].concat();
    let mut compressed = header;
    for array in &arrays {
        let data = zlib(&element(14, array));
        compressed.extend(15_u32.to_le_bytes());
        compressed.extend(u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
        compressed.extend(data);
    }
    vec![plain, compressed]
}

/// A version 1 `.npy` file.
pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A safetensors file.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A plan of small networks, as a run writes it.
pub(crate) fn plan() -> Vec<u8> {
    std::fs::read(golden().join("version1/run/plan.toml")).unwrap_or_default()
}

/// Configurations of networks.
pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let json = serde_json::to_vec(networks().config()).unwrap_or_default();
    vec![json]
}
