//! What a file is, by its first bytes: an image of a supported format, or something else, with the fix.

use image::ImageFormat;

/// Length of the file prefix that [`image_format`] and [`describe`] look at; the magic number of tar is at byte 257.
pub(crate) const HEAD_BYTES: u64 = 512;

/// Why other files are skipped.
pub(crate) const NOT_AN_IMAGE: &str = "not a PNG, JPEG, WebP, GIF, BMP, TIFF or PNM image";

/// The first two bytes of gzip data.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The image format of a file that starts with `head`, if it is supported.
pub(crate) fn image_format(head: &[u8]) -> Option<ImageFormat> {
    let format = match head {
        // Canon raw: a TIFF file whose first image is a thumbnail.
        [b'I', b'I', b'*', 0, _, _, _, _, b'C', b'R', ..] => return None,
        // BigTIFF.
        [b'I', b'I', b'+', 0, ..] | [b'M', b'M', 0, b'+', ..] => ImageFormat::Tiff,
        [b'P', b'1'..=b'7', next, ..] if !next.is_ascii_whitespace() && *next != b'#' => return None,
        _ => image::guess_format(head).ok()?,
    };
    match format {
        // Two letters are too short for a magic number: byte 14 is the length of the second header.
        ImageFormat::Bmp => matches!(head.get(14..18)?, [12..=124, 0, 0, 0]).then_some(format),
        ImageFormat::Png
        | ImageFormat::Jpeg
        | ImageFormat::WebP
        | ImageFormat::Gif
        | ImageFormat::Tiff
        | ImageFormat::Pnm => Some(format),
        _ => None,
    }
}

/// Whether a file that starts with `head` is gzip data.
pub(crate) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(GZIP)
}

/// Whether a file that starts with `head` is a zip.
pub(crate) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

/// Whether a file that starts with `head` is a tar archive.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// Whether a file that starts with `head` is an LMDB database.
pub(crate) fn is_lmdb(head: &[u8]) -> bool {
    head.get(16..20) == Some(&LMDB_MAGIC)
}

/// Whether a file that starts with `head` is a Parquet file.
pub(crate) fn is_parquet(head: &[u8]) -> bool {
    head.starts_with(b"PAR1")
}

/// Whether a file that starts with `head` is an HDF5 file.
pub(crate) fn is_hdf5(head: &[u8]) -> bool {
    head.starts_with(b"\x89HDF\r\n\x1a\n")
}

/// Whether a file that starts with `head` is a pickle of protocol 2 or later.
pub(crate) fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// Offset, magic number, and what such a file is, with the fix. The first match counts.
const MAGIC_NUMBERS: &[(usize, &[u8], &str)] = &[
    (4, b"ftypavif", AVIF),
    (4, b"ftypavis", AVIF),
    (4, b"ftyphei", HEIC),
    (4, b"ftyphev", HEIC),
    (4, b"ftypmif1", HEIC),
    (4, b"ftypmsf1", HEIC),
    (4, b"ftypcrx", RAW),
    (4, b"ftyp", VIDEO),
    (4, b"moov", VIDEO),
    (0, b"\0\0\0\x0cJXL ", JXL),
    (0, b"\xff\x0a", JXL),
    (0, b"\0\0\0\x0cjP  ", JP2),
    (0, b"\xff\x4f\xff\x51", JP2),
    (0, b"II*\0\x10\0\0\0CR", RAW),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"8BPS", "a Photoshop file (export it as PNG)"),
    (0, b"gimp xcf", "a GIMP file (export it as PNG)"),
    (0, b"%PDF", "a PDF (export its images as PNG, for example with pdfimages -png)"),
    (0, b"%!PS", "a PostScript file (convert it to PNG)"),
    (0, b"qoif", "a QOI image (convert it to PNG)"),
    (0, b"DDS ", "a DDS texture (convert it to PNG)"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image (convert it to PNG)"),
    (0, b"#?RADIANCE", "a Radiance HDR image (convert it to PNG)"),
    (0, b"farbfeld", "a farbfeld image (convert it to PNG)"),
    (0, b"\0\0\x01\0", "an icon (convert it to PNG)"),
    (0, b"\x1a\x45\xdf\xa3", VIDEO),
    (8, b"AVI LIST", VIDEO),
    (0, b"FLV\x01", VIDEO),
    (0, b"\0\0\x01\xba", VIDEO),
    (0, b"\0\0\x01\xb3", VIDEO),
    (0, b"OggS", VIDEO),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),
    (0, b"Rar!\x1a\x07", "a RAR archive (unpack it, for example with unrar x FILE, and open the folder)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it, for example with 7z x FILE, and open the folder)"),
    (257, b"ustar", "a tar archive (open it by its own path)"),
    (0, b"\xfd7zXZ\0", "xz data (unpack it first, with tar xf FILE or unxz FILE)"),
    (0, b"BZh", "bzip2 data (unpack it first, with tar xf FILE or bunzip2 FILE)"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data (unpack it first, with tar xf FILE or unzstd FILE)"),
    (0, b"\x04\x22\x4d\x18", "lz4 data (unpack it first, with unlz4 FILE)"),
    (0, b"MSCF", "a CAB archive (unpack it and open the folder)"),
    (0, b"MATLAB 7.3", HDF5_MATLAB),
    (0, b"\x89HDF", HDF5),
    (0, b"MATLAB 5.0", "a MATLAB file (SVHN: open it by its own path)"),
    (0, b"PAR1", "a Parquet file (open it by its own path)"),
    (
        0,
        b"ARROW1",
        "an Arrow file (write its images to a folder, for example with the Python library datasets)",
    ),
    (0, b"\x93NUMPY", "a numpy array (open it by its own path)"),
    (0, b"SQLite format 3\0", "an SQLite database (write its images to a folder)"),
    (0, b"dcgan-pictures-1", "a cache (open it by its own path)"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself (run git lfs pull)"),
    (0, b"PK\x03\x04", "a zip (open it by its own path, or unpack it)"),
];

const AVIF: &str = "an AVIF image (convert it to PNG, for example with avifdec FILE FILE.png)";
const HEIC: &str = "a HEIC image (convert it to JPEG, for example with heif-convert FILE FILE.jpg)";
const JXL: &str = "a JPEG XL image (convert it to PNG, for example with djxl FILE FILE.png)";
const JP2: &str =
    "a JPEG 2000 image (convert it to PNG, for example with opj_decompress -i FILE -o FILE.png)";
const RAW: &str = "a camera raw file (export it as JPEG or PNG)";
const VIDEO: &str = "a video (write its frames to a folder, for example with ffmpeg -i FILE FOLDER/%06d.png)";
const HDF5: &str = "an HDF5 file (open it by its own path)";
const HDF5_MATLAB: &str = "an HDF5 file (in MATLAB, save with -v7)";
const SVG: &str = "an SVG drawing (convert it to PNG, for example with rsvg-convert FILE -o FILE.png)";
const TF_RECORD: &str =
    "a TFRecord file (write its images to a folder, with the TensorFlow program that reads it)";
const LMDB: &str = "an LMDB database (open it by its own path)";
const LMDB_DAMAGED: &str = "a damaged LMDB database (copy or download it again)";

/// What a file that starts with `head` is, with the fix; `None` for unknown content and for supported images.
pub(crate) fn describe(head: &[u8]) -> Option<&'static str> {
    let starts_at =
        |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if head.is_empty() {
        return Some("an empty file");
    }
    if let Some((.., what)) = MAGIC_NUMBERS.iter().find(|(offset, magic, _)| starts_at(*offset, magic)) {
        return Some(what);
    }
    if starts_at(16, &LMDB_MAGIC) {
        return Some(if is_whole_lmdb(head) { LMDB } else { LMDB_DAMAGED });
    }
    if is_tf_record(head) {
        return Some(TF_RECORD);
    }
    if is_pickle(head) {
        return Some("a Python pickle (batches of CIFAR: open their folder)");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if text.starts_with(b"<svg") || (text.starts_with(b"<") && text.windows(4).any(|part| part == b"<svg")) {
        return Some(SVG);
    }
    text.starts_with(b"<").then_some("a web page or XML, not images (a failed download?)")
}

/// The magic number of a meta page of LMDB, little-endian, after the page header of 16 bytes (`MDB_MAGIC` in `mdb.c`).
const LMDB_MAGIC: [u8; 4] = 0xbeef_c0de_u32.to_le_bytes();

/// Whether the first meta page has a data version (1 or 2) and a map size.
fn is_whole_lmdb(head: &[u8]) -> bool {
    matches!(head.get(20..24), Some([1 | 2, 0, 0, 0]))
        && head.get(32..40).is_some_and(|size| size.iter().any(|byte| *byte != 0))
}

/// Whether `head` starts with the length of a TFRecord and its masked CRC-32C.
fn is_tf_record(head: &[u8]) -> bool {
    let Some((length, [a, b, c, d, ..])) = head.split_at_checked(8) else { return false };
    let mut crc = !0_u32;
    for byte in length {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    let masked = (!crc).rotate_right(15).wrapping_add(0xa282_ead8);
    masked == u32::from_le_bytes([*a, *b, *c, *d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_magic_numbers_do_not_match_texts() {
        for (head, format) in [
            (&b"P6\n2 2\n255\n"[..], Some(ImageFormat::Pnm)),
            (b"P5#comment", Some(ImageFormat::Pnm)),
            (b"P7\nWIDTH 2", Some(ImageFormat::Pnm)),
            (b"P1,P2,P3", None),
            (b"P8\n", None),
            (b"BMW and others in a list", None),
            (b"BM\x9a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", Some(ImageFormat::Bmp)),
            (b"II*\0\x08\0\0\0\x01\0", Some(ImageFormat::Tiff)),
            (b"II*\0\x10\0\0\0CR\x02\0", None),
            (b"GIF89a", Some(ImageFormat::Gif)),
            (b"", None),
        ] {
            assert_eq!(image_format(head), format, "{head:?}");
        }
    }

    #[test]
    fn other_content_is_named() {
        // A record of 10 bytes: its length and the masked CRC-32C of the length.
        let record = [&10_u64.to_le_bytes()[..], &[0xae, 0xa3, 0xbf, 0x3a]].concat();
        let lmdb = |version: u8, size: u8| {
            let mut page = vec![0; 512];
            page[16..20].copy_from_slice(&LMDB_MAGIC);
            (page[20], page[34]) = (version, size);
            page
        };
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, part) in [
            (b"\0\0\0\x1cftypavif".to_vec(), "an AVIF image"),
            (b"\0\0\0\x18ftypheic".to_vec(), "a HEIC image"),
            (b"\0\0\0\x18ftypmif1".to_vec(), "a HEIC image"),
            (b"\0\0\0\x18ftypmp42".to_vec(), "a video"),
            (b"\0\0\0\x14ftypqt  ".to_vec(), "a video"),
            (b"\xff\x0a\x01".to_vec(), "a JPEG XL image"),
            (b"\0\0\0\x0cJXL \r\n".to_vec(), "a JPEG XL image"),
            (b"\0\0\0\x0cjP  \r\n".to_vec(), "a JPEG 2000 image"),
            (b"8BPS\0\x01".to_vec(), "a Photoshop file"),
            (b"<?xml version='1.0'?>\n<svg xmlns='x'>".to_vec(), "an SVG drawing"),
            (b"\xef\xbb\xbf <svg>".to_vec(), "an SVG drawing"),
            (b"<!DOCTYPE html>".to_vec(), "a web page"),
            (b"Rar!\x1a\x07\x01\0".to_vec(), "a RAR archive"),
            (b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(), "a 7z archive"),
            (tar, "a tar archive"),
            (b"\x89HDF\r\n\x1a\n".to_vec(), "an HDF5 file"),
            (b"PAR1".to_vec(), "a Parquet file"),
            (lmdb(1, 1), "an LMDB database"),
            (lmdb(0, 0), "a damaged LMDB database"),
            (record, "a TFRecord file"),
            (Vec::new(), "an empty file"),
        ] {
            let found = describe(&head).unwrap_or_default();
            assert!(found.starts_with(part), "{found:?} for {part:?}");
        }
        assert_eq!(describe(b"hello"), None);
    }
}
