//! Images of every format, in files with any name, with color, alpha and trailing data.

use dcgan_data::{Background, Dataset, OpenOptions, UnreadableImages};
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba, RgbaImage};

use crate::fixtures::{Folder, QUARTERS, encoded_as, gzip, open, palette_tiff, quarters, read, shape, zip};

/// The pixels in the middle of the four quarters of an image of 16 x 16.
fn quarter_pixels(pixels: &[u8], channels: usize) -> Vec<&[u8]> {
    [(4, 4), (4, 12), (12, 4), (12, 12)]
        .into_iter()
        .map(|(y, x)| &pixels[(y * 16 + x) * channels..][..channels])
        .collect()
}

/// Opens `path` and compares the quarters of every image, each value within `tolerance`.
fn check_quarters(folder: &Folder, path: &str, images: usize, tolerance: u8) {
    let dataset = open(&folder.join(path), shape(16, 16, 3));
    assert_eq!(dataset.len(), images, "{path}: {}", dataset.report());
    for index in 0..images {
        let pixels = read(&dataset, index);
        for (found, expected) in quarter_pixels(&pixels, 3).into_iter().zip(QUARTERS) {
            let is_near =
                found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= tolerance);
            assert!(is_near, "{}: {found:?}, expected {expected:?}", dataset.name(index).unwrap());
        }
    }
}

#[test]
fn every_format_is_read_by_its_content_whatever_its_name() {
    let image = DynamicImage::from(quarters());
    let formats = [
        ("png", ImageFormat::Png),
        ("bmp", ImageFormat::Bmp),
        ("gif", ImageFormat::Gif),
        ("tiff", ImageFormat::Tiff),
        ("ppm", ImageFormat::Pnm),
        ("webp", ImageFormat::WebP),
    ];
    let encoded: Vec<(&str, Vec<u8>)> =
        formats.map(|(name, format)| (name, encoded_as(&image, format))).into_iter().collect();
    let names = |rename: &dyn Fn(&str) -> String| -> Vec<(String, Vec<u8>)> {
        encoded.iter().map(|(name, content)| (rename(name), content.clone())).collect()
    };
    let same: Vec<(String, Vec<u8>)> = names(&|name| format!("{name}.{name}"));
    let wrong = names(&|name| format!("{name}.jpg"));
    let other = names(&|name| format!("{name}.dat"));
    let none = names(&str::to_owned);
    let zipped: Vec<(String, Vec<u8>)> =
        encoded.iter().map(|(name, content)| (format!("{name}.jpg"), gzip(content))).collect();
    for files in [&same, &wrong, &other, &none, &zipped] {
        let files: Vec<(&str, Vec<u8>)> =
            files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        let folder = Folder::new(&files);
        check_quarters(&folder, ".", files.len(), 0);
        let archive = Folder::new(&[("x.zip", zip(&files))]);
        check_quarters(&archive, "x.zip", files.len(), 0);
        for (name, _) in &files {
            check_quarters(&folder, name, 1, 0);
        }
    }
}

#[test]
fn tiff_images_with_a_palette_are_read() {
    let files = [
        ("little.tif", palette_tiff(false, 8, true)),
        ("big.tif", palette_tiff(true, 8, true)),
        ("shallow.tif", palette_tiff(false, 8, false)),
        ("packed.tif", gzip(&palette_tiff(true, 8, false))),
    ];
    check_quarters(&Folder::new(&files), ".", 4, 0);
    let whole = palette_tiff(true, 8, true);
    let mut no_colors = whole.clone();
    let entry = whole.len() - 4 - 12;
    no_colors[entry + 1] = 0;
    for (content, part) in [
        (palette_tiff(false, 4, true), "with a palette and 4 bits per pixel: convert it to PNG"),
        (no_colors, "without the colors of its palette: it is damaged"),
    ] {
        let folder = Folder::new(&[("a.tif", content)]);
        let error = open(folder.path(), shape(16, 16, 3)).read(0, &mut [0; 768]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn other_forms_of_netpbm_are_read() {
    let rows: [(&str, Vec<u8>, u8); 6] = [
        ("a.pgm", b"P5\n# comment\n2 1\n255\n\x07\x09".to_vec(), 7),
        ("a.pgm", b"P2 2 1 255 7 9".to_vec(), 7),
        ("a.pbm", b"P1\n2 1\n0 1\n".to_vec(), 255),
        ("a.pbm", b"P4\n2 1\n\x40".to_vec(), 255),
        ("a.ppm", b"P3 2 1 255 7 7 7 9 9 9".to_vec(), 7),
        (
            "a.pam",
            b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n\x07\x09".to_vec(),
            7,
        ),
    ];
    for (name, content, first) in rows {
        let folder = Folder::new(&[(name, content)]);
        assert_eq!(read(&open(folder.path(), shape(1, 2, 1)), 0)[0], first, "{name}");
    }
}

#[test]
fn a_jpeg_ends_at_its_end_marker() {
    let jpeg = encoded_as(&quarters().into(), ImageFormat::Jpeg);
    let video = b"\0\0\0\x18ftypmp42 \xff\xd9 \xff\xda".repeat(40);
    let exif_thumbnail =
        [&[0xff, 0xe1][..], &u16::try_from(jpeg.len() + 2).unwrap().to_be_bytes(), &jpeg].concat();
    let files = [
        ("motion.jpg", [&jpeg[..], &video].concat()),
        ("mpf.jpg", jpeg.repeat(2)),
        ("zeros.jpg", [&jpeg[..], &[0; 500]].concat()),
        ("thumbnail.jpg", [&jpeg[..2], &exif_thumbnail, &jpeg[2..]].concat()),
        ("fill.jpg", [&jpeg[..2], &[0xff; 5], &jpeg[2..]].concat()),
    ];
    let folder = Folder::new(&files);
    check_quarters(&folder, ".", files.len(), 12);
    for (name, content) in files {
        // Cut before the end of the image itself.
        let end = content.len() - if name == "motion.jpg" { video.len() + 2 } else { 0 };
        let cut = match name {
            "motion.jpg" => end,
            "mpf.jpg" => jpeg.len() - 2,
            "zeros.jpg" => jpeg.len() - 2,
            _ => content.len() - 2,
        };
        let folder = Folder::new(&[(name, content[..cut].to_vec())]);
        let dataset = open(folder.path(), shape(16, 16, 3));
        let error = dataset.read(0, &mut [0; 768]).unwrap_err().to_string();
        assert!(error.contains("is truncated: the end of the JPEG data is missing"), "{name}: {error}");
    }
}

#[test]
fn grey_is_the_luma_of_rec_601_and_the_fingerprint_changes_only_where_bytes_do() {
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_fn(16, 16, |x, y| {
        Rgb(quarters().get_pixel(x, y).0.map(|value| u16::from(value) * 257))
    });
    let grey = GrayImage::from_fn(16, 16, |x, _| Luma([u8::try_from(x * 16).unwrap()]));
    let deep_grey: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(16, 16, Luma([0x8080]));
    let grey_alpha: ImageBuffer<LumaA<u8>, Vec<u8>> = ImageBuffer::from_pixel(16, 16, LumaA([9, 128]));
    // The fingerprints of the version before, for one channel.
    let rows: [(&str, DynamicImage, ImageFormat, Option<&str>); 7] = [
        ("a.png", quarters().into(), ImageFormat::Png, None),
        ("a.png", deep.into(), ImageFormat::Png, None),
        ("a.jpg", quarters().into(), ImageFormat::Jpeg, None),
        ("a.png", grey.clone().into(), ImageFormat::Png, Some("old")),
        ("a.png", deep_grey.into(), ImageFormat::Png, Some("old")),
        ("a.png", grey_alpha.into(), ImageFormat::Png, Some("old")),
        ("a.jpg", grey.into(), ImageFormat::Jpeg, Some("old")),
    ];
    for (name, image, format, old) in rows {
        let content = encoded_as(&image, format);
        let bytes = content.len() as u64;
        let folder = Folder::new(&[(name, content.clone())]);
        let archive = Folder::new(&[("x.zip", zip(&[(name, content)]))]);
        let dataset = open(folder.path(), shape(16, 16, 1));
        if old.is_none() && format == ImageFormat::Png {
            let pixels = read(&dataset, 0);
            let found: Vec<u8> = quarter_pixels(&pixels, 1).into_iter().map(|pixel| pixel[0]).collect();
            assert_eq!(found, [88, 134, 58, 211]);
        }
        let before = fingerprint_before(name, bytes);
        assert_eq!(dataset.fingerprint() == before, old.is_some(), "{name} {:?}", image.color());
        let of_zip =
            |channels| open(&archive.join("x.zip"), shape(16, 16, channels)).fingerprint().to_owned();
        assert_ne!(of_zip(1), of_zip(3));
    }
}

/// The fingerprint of a folder of one image, 16 x 16 with one channel, in versions with Rec. 709 grey.
fn fingerprint_before(name: &str, bytes: u64) -> String {
    use dcgan_base::digest::Digest;
    let identity = Digest::default().field(name).number(bytes).field("").hex();
    let mut digest = Digest::default();
    digest.field("dcgan-data 1").field(&identity);
    for size in [16, 16, 1, 0] {
        digest.number(size);
    }
    digest.hex()
}

#[test]
fn alpha_is_composited_on_the_background_and_said_once() {
    let drawing = RgbaImage::from_fn(16, 16, |x, y| {
        let is_ink = (4..12).contains(&x) && (4..12).contains(&y);
        if is_ink { Rgba([0, 0, 0, 255]) } else { Rgba([255, 255, 255, 0]) }
    });
    let opaque = RgbaImage::from_pixel(16, 16, Rgba([9, 9, 9, 255]));
    let drawing = encoded_as(&drawing.into(), ImageFormat::Png);
    let folder = Folder::new(&[("a.png", drawing.clone()), ("b.png", drawing)]);
    let opaque = Folder::new(&[("a.png", encoded_as(&opaque.into(), ImageFormat::Png))]);
    let options = |background: &str, channels| OpenOptions {
        background: background.parse().unwrap(),
        ..OpenOptions::new(shape(16, 16, channels))
    };
    let rows = [
        ("black", 3, [0, 0, 0], "composited on black"),
        ("white", 3, [255, 255, 255], "composited on white"),
        ("#102030", 3, [16, 32, 48], "composited on #102030"),
    ];
    let mut fingerprints = std::collections::BTreeSet::new();
    for (background, channels, corner, note) in rows {
        let dataset = Dataset::open(folder.path(), &options(background, channels)).unwrap();
        let pixels = read(&dataset, 0);
        assert_eq!((&pixels[..3], &pixels[(8 * 16 + 8) * 3..][..3]), (&corner[..], &[0, 0, 0][..]));
        let notes = dataset.report().notes.iter().filter(|found| found.contains(note)).count();
        assert_eq!(notes, 1, "{:?}", dataset.report().notes);
        fingerprints.insert(dataset.fingerprint().to_owned());
    }
    assert_eq!(fingerprints.len(), rows.len());
    assert!(
        fingerprints.contains(open(folder.path(), shape(16, 16, 3)).fingerprint()),
        "black is the default"
    );
    // Nothing is composited: images without transparent pixels, and four channels.
    let plain = Dataset::open(opaque.path(), &options("white", 3)).unwrap();
    let four = Dataset::open(folder.path(), &options("white", 4)).unwrap();
    for dataset in [&plain, &four] {
        assert!(!dataset.report().to_string().contains("composited"), "{}", dataset.report());
    }
    assert_eq!(four.fingerprint(), Dataset::open(folder.path(), &options("black", 4)).unwrap().fingerprint());
    // A cache keeps its background, and is not read with another one.
    let white = Dataset::open(folder.path(), &options("white", 3)).unwrap();
    dcgan_data::pack(&white, &folder.join("cache"), |_| ()).unwrap();
    let cache = open(&folder.join("cache"), shape(16, 16, 3));
    assert_eq!((read(&cache, 0), cache.fingerprint()), (read(&white, 0), white.fingerprint()));
    let error = Dataset::open(&folder.join("cache"), &options("#102030", 3)).unwrap_err().to_string();
    assert!(error.contains("16x16x3 (background white), expected 16x16x3 (background #102030)"), "{error}");
    assert_eq!(white.shape(), dcgan_data::cache_shape(&folder.join("cache")).unwrap().unwrap());
    assert_eq!(Background::default(), Background::BLACK);
}

#[test]
fn other_content_is_named_with_the_cure() {
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0".to_vec();
    let folder = Folder::new(&[
        ("good.png", encoded_as(&quarters().into(), ImageFormat::Png)),
        ("photo.jpg", heic.clone()),
        ("photo.heic", heic),
        ("clip.mov", b"\0\0\0\x14ftypqt  \0\0\0\0".to_vec()),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
    ]);
    let error = open(folder.path(), shape(16, 16, 3)).read(1, &mut [0; 768]).unwrap_err().to_string();
    assert!(error.contains("photo.jpg: is a HEIC image (convert it to JPEG"), "{error}");
    let options =
        OpenOptions { unreadable_images: UnreadableImages::Skip, ..OpenOptions::new(shape(16, 16, 3)) };
    let dataset = Dataset::open(folder.path(), &options).unwrap();
    assert_eq!(dataset.len(), 1);
    let report = dataset.report().to_string();
    for part in ["is a HEIC image", "(photo.heic)", "a video (write its frames", "an SVG drawing (convert it"]
    {
        assert!(report.contains(part), "{part:?} is not in: {report}");
    }
}
