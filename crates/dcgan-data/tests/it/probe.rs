//! Sizes and color of some images, before a shape is chosen.

use std::fs;

use dcgan_data::{Dataset, ImageShape, OpenOptions, Probe, pack, probe};
use image::{GrayImage, Rgb, RgbImage, Rgba, RgbaImage};

#[test]
fn sizes_and_color() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["grey", "grey-in-color", "mixed", "transparent", "jpeg"] {
        fs::create_dir(path(name)).unwrap();
    }
    let orange = Rgb([200, 120, 40]);
    GrayImage::new(28, 30).save(path("grey/a.png")).unwrap();
    RgbImage::from_pixel(20, 10, Rgb([70, 70, 70])).save(path("grey-in-color/a.png")).unwrap();
    // JPEG does not keep the channels of grey equal.
    RgbImage::from_fn(64, 64, |x, y| Rgb([u8::try_from(x * y % 256).unwrap(); 3]))
        .save(path("jpeg/a.jpg"))
        .unwrap();
    for i in 0..100 {
        GrayImage::new(50, 40).save(path("mixed").join(format!("{i:03}.png"))).unwrap();
    }
    RgbImage::from_pixel(300, 200, orange).save(path("mixed/000.png")).unwrap();
    fs::write(path("mixed/001.png"), "not an image").unwrap();
    // A color that cannot be seen.
    RgbaImage::from_pixel(9, 9, Rgba([200, 120, 40, 0])).save(path("transparent/a.png")).unwrap();

    let found = |name: &str| {
        let Probe { sizes, is_color, .. } = probe(&path(name)).unwrap();
        (sizes, is_color)
    };
    assert_eq!(found("grey"), (vec![(30, 28)], false));
    assert_eq!(found("grey-in-color"), (vec![(10, 20)], false));
    assert_eq!(found("jpeg"), (vec![(64, 64)], false));
    assert_eq!(found("transparent"), (vec![(9, 9)], false));
    let mixed = probe(&path("mixed")).unwrap();
    assert!(mixed.is_color && mixed.sizes.len() > 30 && mixed.sizes.last() == Some(&(200, 300)), "{mixed:?}");
    assert_eq!(mixed.median_size(), Some((40, 50)));
    assert!(probe(&path("absent")).is_err());

    // A dataset's own images, whatever they are resized to; a cache has one shape.
    let shape = ImageShape { height: 16, width: 24, channels: 3 };
    let dataset = Dataset::open(&path("jpeg"), &OpenOptions::new(shape)).unwrap();
    assert_eq!(dataset.probe(), probe(&path("jpeg")).unwrap());
    pack(&dataset, &path("cache"), |_| {}).unwrap();
    let cache = probe(&path("cache")).unwrap();
    assert_eq!((cache.stored_shape, &*cache.sizes), (Some(shape), &[(16, 24)][..]));
}
