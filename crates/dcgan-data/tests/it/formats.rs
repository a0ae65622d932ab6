//! Every format returns the pixels, labels and names that were written.

use dcgan_data::{Dataset, Format, ImageShape, OpenOptions, Split};
use image::ImageFormat;

use crate::fixtures::{
    CIFAR, Folder, MI_DOUBLE, MI_UINT8, cifar_record, cifar10, encoded, gzip, idx, idx_images, open, pixels,
    png, read, shape, svhn, zip,
};

/// Opens `path` and compares its images with the images `order`, and its labels.
fn check(
    folder: &Folder,
    path: &str,
    options: &OpenOptions,
    format: Format,
    order: &[usize],
    labels: Option<&[u32]>,
) {
    let dataset = Dataset::open(&folder.join(path), options).unwrap();
    assert_eq!(dataset.report().format, format, "{path}");
    assert_eq!((dataset.len(), dataset.report().images), (order.len(), order.len()), "{path}");
    assert_eq!(dataset.labels(), labels, "{path}");
    for (index, number) in order.iter().enumerate() {
        // Twice: the second read can come from the cache in memory.
        for _ in 0..2 {
            assert_eq!(read(&dataset, index), pixels(*number, options.shape), "{path}: image {index}");
        }
        let info = dataset.info(index).unwrap();
        assert_eq!(dataset.name(index).unwrap(), info.name, "{path}");
        let ImageShape { height, width, channels } = options.shape;
        assert_eq!(
            (info.height, info.width, info.channels),
            (height, width, channels),
            "{path}: {}",
            info.name
        );
    }
    assert!(dataset.name(order.len()).is_err());
    assert_eq!(dataset.fingerprint().len(), 64);
}

#[test]
fn raw_formats() {
    let test_split = |shape| OpenOptions { split: Split::Test, ..OpenOptions::new(shape) };
    let cifar100: Vec<u8> =
        [(7, 42, 0), (1, 99, 1)].map(|(coarse, fine, index)| cifar_record(&[coarse, fine], index)).concat();
    let folder = Folder::new(&[
        ("ten/data_batch_1.bin", cifar10(0, 3)),
        ("ten/data_batch_2.bin", cifar10(3, 2)),
        ("ten/test_batch.bin", cifar10(7, 1)),
        ("hundred/train.bin", cifar100),
        ("mnist/train-images-idx3-ubyte", idx_images(3)),
        ("mnist/train-labels-idx1-ubyte.gz", gzip(&idx(&[3], &[5, 0, 4]))),
        ("mnist/t10k-images-idx3-ubyte.gz", gzip(&idx_images(2))),
        ("svhn/train_32x32.mat", svhn(12, CIFAR, MI_UINT8, true)),
        ("svhn/test_32x32.mat", svhn(2, shape(3, 5, 3), MI_DOUBLE, false)),
    ]);
    let (grey, rgb) = (shape(5, 4, 1), CIFAR);
    let digits: Vec<u32> = (0..12).map(|index| index % 10).collect();
    let all: Vec<usize> = (0..12).collect();
    let plain = OpenOptions::new;
    check(&folder, "ten", &plain(rgb), Format::Cifar10, &all[..5], Some(&digits[..5]));
    check(&folder, "ten", &test_split(rgb), Format::Cifar10, &[7], Some(&[7]));
    check(&folder, "ten/data_batch_2.bin", &plain(rgb), Format::Cifar10, &[3, 4], Some(&[3, 4]));
    check(&folder, "hundred", &plain(rgb), Format::Cifar100, &[0, 1], Some(&[42, 99]));
    check(&folder, "mnist", &plain(grey), Format::Idx, &all[..3], Some(&[5, 0, 4]));
    check(&folder, "mnist", &test_split(grey), Format::Idx, &all[..2], None);
    check(&folder, "mnist/t10k-images-idx3-ubyte.gz", &plain(grey), Format::Idx, &all[..2], None);
    check(&folder, "svhn", &plain(rgb), Format::Svhn, &all, Some(&digits));
    check(&folder, "svhn/test_32x32.mat", &plain(shape(3, 5, 3)), Format::Svhn, &all[..2], Some(&[0, 1]));
}

#[test]
fn images_of_folders_and_zips_are_sorted_by_name() {
    let (rgb, grey) = (shape(5, 4, 3), shape(5, 4, 1));
    let files = [
        ("b/2.webp", encoded(2, rgb, ImageFormat::WebP)),
        // Formats are detected from the content, not from the extension. In a folder, images need no known extension.
        ("b/10.jpg", png(1)),
        ("a/1.PNG", png(0)),
    ];
    let folder = Folder::new(&[
        ("x.zip", zip(&files)),
        ("one.png", png(4)),
        ("grey/noending", encoded(3, grey, ImageFormat::Png)),
    ]);
    files.iter().for_each(|(name, content)| folder.write(&format!("tree/{name}"), content));
    let labels: &[u32] = &[0, 1, 1];
    check(&folder, "tree", &OpenOptions::new(rgb), Format::ImageFolder, &[0, 1, 2], Some(labels));
    check(&folder, "x.zip", &OpenOptions::new(rgb), Format::ImageZip, &[0, 1, 2], Some(labels));
    check(&folder, "one.png", &OpenOptions::new(rgb), Format::Image, &[4], None);
    check(&folder, "grey", &OpenOptions::new(grey), Format::ImageFolder, &[3], None);
}

#[test]
fn exif_orientation_is_applied_to_jpeg() {
    let wide = image::GrayImage::from_fn(32, 16, |x, _| image::Luma([if x < 16 { 0 } else { 255 }]));
    let mut out = std::io::Cursor::new(Vec::new());
    wide.write_to(&mut out, ImageFormat::Jpeg).unwrap();
    let jpeg = out.into_inner();
    // Orientation 6: rotation by 90 degrees clockwise, which moves the dark half to the top.
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let rotated = [&jpeg[..2], exif, &jpeg[2..]].concat();
    let folder = Folder::new(&[("plain.jpg", jpeg), ("rotated.jpg", rotated)]);
    let plain = read(&open(&folder.join("plain.jpg"), shape(16, 32, 1)), 0);
    let rotated = read(&open(&folder.join("rotated.jpg"), shape(32, 16, 1)), 0);
    assert!(plain[0] < 20 && plain[31] > 235 && plain[15 * 32] < 20, "dark on the left");
    assert!(rotated[0] < 20 && rotated[15] < 20 && rotated[31 * 16] > 235, "dark on top");
}

#[test]
fn the_embedded_digits_are_the_first_of_mnist() {
    let digits = Dataset::embedded_digits(shape(28, 28, 1)).unwrap();
    assert_eq!(digits.len(), 10_000);
    assert_eq!(&digits.labels().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    let ink: u32 = read(&digits, 0).iter().map(|value| u32::from(*value)).sum();
    assert_eq!(ink, 27_525, "the sum of the first image's pixels");
    let enlarged = Dataset::embedded_digits(shape(32, 32, 3)).unwrap();
    let pixels = read(&enlarged, 0);
    assert!(pixels.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
}

#[test]
fn the_fingerprint_depends_on_data_and_transform_and_not_on_the_path() {
    let files = [("a.png", png(0)), ("b.png", png(1))];
    let (here, there) = (Folder::new(&files), Folder::new(&files));
    let print = |folder: &Folder, options: &OpenOptions| {
        Dataset::open(folder.path(), options).unwrap().fingerprint().to_owned()
    };
    let options = OpenOptions::new(shape(5, 4, 3));
    let first = print(&here, &options);
    assert_eq!(first, print(&there, &options));
    assert_ne!(first, print(&here, &OpenOptions::new(shape(4, 4, 3))));
    assert_ne!(first, print(&here, &OpenOptions { crop: Some(3), ..options.clone() }));
    there.write("c.png", &png(2));
    assert_ne!(first, print(&there, &options));
}
