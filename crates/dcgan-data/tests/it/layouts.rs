//! Layouts of folders and zips: published datasets, arrays, split folders.

use dcgan_data::{Dataset, Format, ImageShape, OpenOptions, Split, UnreadableImages};

use crate::fixtures::{
    CIFAR, Folder, MI_UINT8, PickleStyle, cifar_names, cifar_pickle, cifar10, gzip, idx, idx_images, npy,
    pixels, png, read, reordered, shape, stored_zip, svhn, zip,
};

/// What opening a path gives: format, numbers of the images, labels, a part of the report; or a part of the error.
type Expected<'a> = Result<(Format, &'a [usize], Option<&'a [u32]>, &'a str), &'a str>;

fn check(folder: &Folder, path: &str, split: Split, options: &OpenOptions, expected: Expected<'_>) {
    let opened = Dataset::open(&folder.join(path), &OpenOptions { split, ..options.clone() });
    match (opened, expected) {
        (Ok(dataset), Ok((format, numbers, labels, part))) => {
            assert_eq!(dataset.report().format, format, "{path}");
            assert_eq!((dataset.len(), dataset.labels()), (numbers.len(), labels), "{path} {split}");
            for (index, number) in numbers.iter().enumerate() {
                assert_eq!(read(&dataset, index), pixels(*number, options.shape), "{path}: image {index}");
            }
            let report = dataset.report().to_string();
            assert!(report.contains(part), "{part:?} is not in: {report}");
        }
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{path} {split}: {error}"),
        (opened, expected) => panic!("{path} {split}: {opened:?}, expected {expected:?}"),
    }
}

#[test]
fn published_layouts() {
    let labels = |count: u8| idx(&[u32::from(count)], &(0..count).collect::<Vec<_>>());
    // QMNIST: i32, eight columns, of which the first is the class.
    let qmnist: Vec<u8> = [0, 0, 12, 2, 0, 0, 0, 2, 0, 0, 0, 8]
        .into_iter()
        .chain((0..2_u8).flat_map(|row| [0, 0, 0, row + 3].into_iter().chain([0xff; 28])))
        .collect();
    let folder = Folder::new(&[
        ("torchvision/MNIST/raw/train-images-idx3-ubyte", idx_images(3)),
        ("torchvision/MNIST/raw/train-labels-idx1-ubyte", labels(3)),
        ("torchvision/MNIST/raw/t10k-images-idx3-ubyte.gz", gzip(&idx_images(2))),
        ("two/MNIST/raw/train-images-idx3-ubyte", idx_images(3)),
        ("two/FashionMNIST/raw/train-images-idx3-ubyte", idx_images(3)),
        ("emnist/emnist-letters-train-images-idx3-ubyte", idx_images(3)),
        ("emnist/emnist-letters-train-labels-idx1-ubyte", idx(&[3], &[1, 2, 3])), // a, b, c
        ("emnist/emnist-letters-test-images-idx3-ubyte.gz", gzip(&idx_images(1))),
        ("emnists/emnist-letters-train-images-idx3-ubyte", idx_images(3)),
        ("emnists/emnist-digits-train-images-idx3-ubyte", idx_images(2)),
        ("qmnist/qmnist-train-images-idx3-ubyte", idx_images(2)),
        ("qmnist/qmnist-train-labels-idx2-int.gz", gzip(&qmnist)),
        ("cifar/cifar-10-batches-bin/data_batch_1.bin", cifar10(0, 2)),
        ("svhn/train_32x32.mat", svhn(2, CIFAR, MI_UINT8, true)),
        ("test-only/t10k-images-idx3-ubyte", idx_images(1)),
    ]);
    let (train, test) = (Split::Train, Split::Test);
    let grey = OpenOptions::new(shape(5, 4, 1));
    let color = OpenOptions::new(CIFAR);
    let three = Some(&[0, 1, 2][..]);
    check(&folder, "torchvision", train, &grey, Ok((Format::Idx, &[0, 1, 2], three, "found in")));
    check(&folder, "torchvision/MNIST", test, &grey, Ok((Format::Idx, &[0, 1], None, "found in")));
    check(&folder, "torchvision/MNIST/raw", train, &grey, Ok((Format::Idx, &[0, 1, 2], three, "")));
    check(&folder, "two", train, &grey, Err("contains several datasets: open one of"));
    check(&folder, "emnist", train, &grey, Ok((Format::Idx, &[0, 1, 2], three, "EMNIST stores images with")));
    let emnist = Dataset::open(&folder.join("emnist"), &grey).unwrap();
    assert_eq!(emnist.class_names().unwrap(), ["a", "b", "c"]);
    check(&folder, "emnist", test, &grey, Ok((Format::Idx, &[0], None, "")));
    let several = "contains several datasets (emnist-digits-train-images-idx3-ubyte, emnist-letters-train";
    check(&folder, "emnists", train, &grey, Err(several));
    check(
        &folder,
        "emnists/emnist-digits-train-images-idx3-ubyte",
        train,
        &grey,
        Ok((Format::Idx, &[0, 1], None, "")),
    );
    check(&folder, "qmnist", train, &grey, Ok((Format::Idx, &[0, 1], Some(&[3, 4]), "")));
    check(&folder, "cifar", train, &color, Ok((Format::Cifar10, &[0, 1], Some(&[0, 1]), "found in")));

    // A split that is missing.
    let missing = "has no test split: expected t10k-images-idx3-ubyte, found train-images-idx3-ubyte";
    check(&folder, "two/MNIST/raw", test, &grey, Err(missing));
    check(&folder, "two/MNIST", test, &grey, Err(missing));
    check(
        &folder,
        "emnists",
        test,
        &grey,
        Err("has no test split: expected emnist-digits-test-images-idx3-ubyte"),
    );
    check(&folder, "qmnist", test, &grey, Err("expected qmnist-test-images-idx3-ubyte"));
    check(&folder, "test-only", train, &grey, Err("has no train split: expected train-images-idx3-ubyte"));
    let missing = "has no test split: expected test_batch.bin, found data_batch_1.bin";
    check(&folder, "cifar", test, &color, Err(missing));
    check(
        &folder,
        "svhn",
        test,
        &color,
        Err("has no test split: expected test_32x32.mat, found train_32x32.mat"),
    );
    check(&folder, "svhn", Split::Val, &color, Err("has no val split: expected train or test"));
}

#[test]
fn the_python_version_of_cifar() {
    let batch = |style, key: &str| cifar_pickle(style, key, &[(3, 0), (7, 1)]);
    let ten: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    let hundred: Vec<String> = (0..100).map(|class| format!("class {class}")).collect();
    let options = OpenOptions::new(CIFAR);
    for style in [PickleStyle::Python2, PickleStyle::Latin1, PickleStyle::Python3] {
        let folder = Folder::new(&[
            ("root/cifar-10-batches-py/data_batch_1", batch(style, "labels")),
            ("root/cifar-10-batches-py/data_batch_2", cifar_pickle(style, "labels", &[(9, 5)])),
            ("root/cifar-10-batches-py/test_batch", cifar_pickle(style, "labels", &[(1, 8)])),
            ("root/cifar-10-batches-py/batches.meta", cifar_names(style, "label_names", &ten)),
            ("cifar-100-python/train", cifar_pickle(style, "fine_labels", &[(99, 2)])),
            ("cifar-100-python/meta", cifar_names(style, "fine_label_names", &hundred)),
            ("wrong/data_batch_1", cifar_pickle(style, "labels", &[(10, 0), (9, 1)])),
        ]);
        let (train, test) = (Split::Train, Split::Test);
        let all = Ok((Format::Cifar10Python, &[0, 1, 5][..], Some(&[3, 7, 9][..]), "only 2 of the 5"));
        check(&folder, "root", train, &options, all);
        check(&folder, "root/cifar-10-batches-py", train, &options, all);
        let one = Ok((Format::Cifar10Python, &[8][..], Some(&[1][..]), ""));
        check(&folder, "root", test, &options, one);
        check(&folder, "root/cifar-10-batches-py/test_batch", train, &options, one);
        let fine = Ok((Format::Cifar100Python, &[2][..], Some(&[99][..]), ""));
        check(&folder, "cifar-100-python", train, &options, fine);
        check(
            &folder,
            "cifar-100-python",
            test,
            &options,
            Err("has no test split: expected test, found train"),
        );
        check(&folder, "wrong", train, &options, Err("image 0: label 10 is not one of the 10 classes"));
        let skip = OpenOptions { unreadable_images: UnreadableImages::Skip, ..options.clone() };
        check(
            &folder,
            "wrong",
            train,
            &skip,
            Ok((Format::Cifar10Python, &[1], Some(&[9]), "skipped 1: label 10")),
        );
        let names = |path: &str| {
            let dataset = Dataset::open(&folder.join(path), &options).unwrap();
            dataset.class_names().map(<[String]>::to_vec)
        };
        assert_eq!((names("root"), names("cifar-100-python")), (Some(ten.clone()), Some(hundred.clone())));
    }
    // Other pickles are named, and nothing in them is executed.
    let folder = Folder::new(&[
        ("evil/data_batch_1", b"\x80\x02cos\nsystem\nU\x04true\x85R.".to_vec()),
        ("other", b"\x80\x02}(U\x01aK\x01u.".to_vec()),
        ("cut/data_batch_1", batch(PickleStyle::Python3, "labels")[..400].to_vec()),
    ]);
    check(&folder, "evil", Split::Train, &options, Err("refers to os.system: not a batch of CIFAR"));
    check(&folder, "other", Split::Train, &options, Err("is a pickle without a list `labels`"));
    check(&folder, "cut", Split::Train, &options, Err("data_batch_1: is truncated"));
}

#[test]
fn numpy_arrays() {
    let color = shape(5, 6, 3);
    let hwc =
        |numbers: &[usize]| -> Vec<u8> { numbers.iter().flat_map(|number| pixels(*number, color)).collect() };
    let chw: Vec<u8> = reordered(4, color, |row, column, channel| channel * 30 + row * 6 + column);
    let images = npy("|u1", &[2, 5, 6, 3], &hwc(&[0, 1]));
    let labels = npy("<i8", &[2], &[[3_u8, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]].concat());
    let floats = npy("<f4", &[2], &[0; 8]);
    let splits = [
        ("x_train.npy", images.clone()),
        ("y_train.npy", labels.clone()),
        ("x_test.npy", npy("|u1", &[1, 5, 6, 3], &hwc(&[7]))),
        ("y_test.npy", npy("|u1", &[1, 1], &[9])),
    ];
    let mut damaged = stored_zip(&[("images.npy", images.clone())]);
    damaged[200] ^= 1;
    let folder = Folder::new(&[
        ("a/images.npy", images.clone()),
        ("a/labels.npy", labels.clone()),
        ("chw.npy", npy("|u1", &[1, 3, 5, 6], &chw)),
        ("one.npy", npy("|u1", &[5, 6, 3], &hwc(&[6]))),
        ("float.npy", npy("<f4", &[1, 1, 1], &[0; 4])),
        ("flat.npy", npy("|u1", &[2, 90], &hwc(&[0, 1]))),
        ("cut.npy", images[..images.len() - 1].to_vec()),
        ("long.npy", [&images[..], &[0]].concat()),
        ("stored.npz", stored_zip(&[("images.npy", images.clone()), ("labels.npy", labels.clone())])),
        ("deflated.npz", zip(&[("arr_0.npy", images.clone()), ("arr_1.npy", labels.clone())])),
        ("only.npz", zip(&[("pixels.npy", images.clone()), ("mean.npy", floats.clone())])),
        ("splits.npz", stored_zip(&splits)),
        ("test.npz", stored_zip(&splits[2..])),
        ("float-labels.npz", zip(&[("x.npy", images.clone()), ("y.npy", floats.clone())])),
        ("fid.npz", zip(&[("mu.npy", floats.clone()), ("sigma.npy", floats)])),
        ("damaged.npz", damaged),
    ]);
    let options = OpenOptions::new(color);
    let (train, test) = (Split::Train, Split::Test);
    let both = Ok((Format::Npy, &[0, 1][..], Some(&[3, 1][..]), "labels from"));
    check(&folder, "a/images.npy", train, &options, both);
    check(&folder, "chw.npy", train, &options, Ok((Format::Npy, &[4], None, "no labels")));
    check(&folder, "one.npy", train, &options, Ok((Format::Npy, &[6], None, "")));
    let missing = "has no train split: expected an array x_train, found x_test, y_test";
    check(&folder, "test.npz", train, &options, Err(missing));
    check(&folder, "stored.npz", train, &options, both);
    check(&folder, "deflated.npz", train, &options, both);
    check(&folder, "splits.npz", train, &options, both);
    check(&folder, "splits.npz", test, &options, Ok((Format::Npy, &[7], Some(&[9]), "array x_test")));
    check(
        &folder,
        "splits.npz",
        Split::Val,
        &options,
        Err("has no val split: expected an array x_val, found x_train"),
    );
    check(&folder, "only.npz", train, &options, Ok((Format::Npy, &[0, 1], None, "array pixels")));
    let unlabeled = "unlabeled: y contains values of type <f4, expected integers";
    check(&folder, "float-labels.npz", train, &options, Ok((Format::Npy, &[0, 1], None, unlabeled)));
    check(&folder, "float.npy", train, &options, Err("contains values of type <f4, expected u8"));
    check(&folder, "flat.npy", train, &options, Err("has sizes (2, 90) |u1, expected (n, h, w)"));
    check(&folder, "cut.npy", train, &options, Err("with 179 bytes of values (truncated?)"));
    check(&folder, "long.npy", train, &options, Err("with 181 bytes of values"));
    check(
        &folder,
        "fid.npz",
        train,
        &options,
        Err("contains the arrays mu (2) <f4, sigma (2) <f4: expected one"),
    );
    check(&folder, "damaged.npz", train, &options, Err("checksum of images.npy does not match"));
}

/// What opening a split gives: numbers of the images, labels, class names, a part of the report; or a part of the
/// error.
type ExpectedSplit<'a> = Result<(&'a [usize], Option<&'a [u32]>, &'a [&'a str], &'a str), &'a str>;

/// An archive of `files` in this order.
fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &content[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Writes images with `names` (the number of an image is its position) to a folder, to a zip, and to a tar with a text
/// beside each image, and opens all of them.
fn check_splits(names: &[&str], split: Split, expected: ExpectedSplit<'_>) {
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().enumerate().map(|(number, name)| (*name, png(number))).collect();
    let folder = Folder::new(&files);
    let text = |name: &str| name.replace(".png", ".txt");
    let with_texts = files
        .iter()
        .flat_map(|(name, image)| [((*name).to_owned(), image.clone()), (text(name), b"a caption".to_vec())]);
    let samples = tar(&with_texts.collect::<Vec<_>>());
    let archive = Folder::new(&[("x.zip", zip(&files)), ("x.tar", samples)]);
    let options = OpenOptions::new(shape(5, 4, 3));
    for (folder, path, format) in [
        (&folder, ".", Format::ImageFolder),
        (&archive, "x.zip", Format::ImageZip),
        (&archive, "x.tar", Format::WebDataset),
    ] {
        let expected_names = expected.ok().map(|(_, _, names, _)| names);
        let expected = expected.map(|(numbers, labels, _, part)| (format, numbers, labels, part));
        check(folder, path, split, &options, expected);
        if let Some(names) = expected_names {
            let dataset =
                Dataset::open(&folder.join(path), &OpenOptions { split, ..options.clone() }).unwrap();
            assert_eq!(dataset.class_names().unwrap_or_default(), names, "{path} {split}");
        }
    }
}

#[test]
fn folders_of_splits_are_not_classes() {
    let (train, val, test) = (Split::Train, Split::Val, Split::Test);
    let three = [
        "test/cat/0.png",
        "test/dog/0.png",
        "train/cat/0.png",
        "train/cow/0.png",
        "train/dog/0.png",
        "val/cow/0.png",
    ];
    let classes = &["cat", "cow", "dog"][..];
    // A class has the same number in each split, also if a split lacks it.
    check_splits(
        &three,
        train,
        Ok((&[2, 3, 4], Some(&[0, 1, 2]), classes, "split train; split folders: test, train")),
    );
    check_splits(&three, test, Ok((&[0, 1], Some(&[0, 2]), classes, "split test")));
    check_splits(&three, val, Ok((&[5], Some(&[1]), classes, "split val")));
    let other_names = ["Data/TRAIN/a/0.png", "Data/Validation/a/0.png", "Data/TRAIN/b/0.png"];
    check_splits(&other_names, train, Ok((&[0, 2], Some(&[0, 1]), &["a", "b"], "split train")));
    let instead = "split val in place of test, which is missing";
    check_splits(&other_names, test, Ok((&[1], Some(&[0]), &["a", "b"], instead)));
    // The test images of ImageNet are in no class folder.
    let flat_test = ["test/0.png", "train/a/0.png", "train/b/0.png"];
    check_splits(&flat_test, train, Ok((&[1, 2], Some(&[0, 1]), &["a", "b"], "")));
    check_splits(&flat_test, test, Ok((&[0], None, &[], "")));
    check_splits(&flat_test, val, Err("has no val split: expected a folder val, found test, train"));
    // Only one folder of a split.
    check_splits(&["train/a/0.png", "train/b/0.png"], train, Ok((&[0, 1], Some(&[0, 1]), &["a", "b"], "")));
    check_splits(&["train/a/0.png"], test, Err("has no test split: expected a folder test, found train"));
    check_splits(&["test/a/0.png"], train, Err("has no train split: expected a folder train, found test"));
    check_splits(&["0.png", "test/0.png"], train, Ok((&[0], None, &[], "split train; split folders: test")));
    check_splits(&["0.png", "test/0.png"], test, Ok((&[1], None, &[], "")));
    check_splits(
        &["0.png", "train/0.png"],
        train,
        Ok((&[1], None, &[], "1 images outside the split folders")),
    );
    // A train among cars is a class.
    let vehicles = ["car/0.png", "train/0.png"];
    let note = "the folder train is a class, not a split";
    check_splits(&vehicles, train, Ok((&[0, 1], Some(&[0, 1]), &["car", "train"], note)));
    check_splits(&vehicles, test, Err("has no test split: expected a folder test, found car, train"));
    let extra = ["extra/0.png", "test/0.png", "train/0.png"];
    check_splits(&extra, train, Ok((&[2], None, &[], "folders that are not splits are not read: extra")));
    // Without split folders, all images are read and the report says so.
    check_splits(
        &["a/0.png", "b/0.png"],
        test,
        Ok((&[0, 1], Some(&[0, 1]), &["a", "b"], "no split folders: all")),
    );
}

#[test]
fn stl10_in_columns() {
    const STL10: ImageShape = shape(96, 96, 3);
    let image = |index| reordered(index, STL10, |row, column, channel| channel * 9216 + column * 96 + row);
    let names = (0..10).map(|class| format!("class {class}\n")).collect::<String>();
    let folder = Folder::new(&[
        ("root/stl10_binary/train_X.bin", [image(0), image(1)].concat()),
        ("root/stl10_binary/train_y.bin", vec![10, 1]),
        ("root/stl10_binary/test_X.bin", image(2)),
        ("root/stl10_binary/unlabeled_X.bin", image(3)),
        ("root/stl10_binary/class_names.txt", names.into_bytes()),
        ("wrong/train_X.bin", image(0)),
        ("wrong/train_y.bin", vec![0]),
        ("few/train_X.bin", image(0)),
        ("few/train_y.bin", vec![1, 2]),
        ("cut/train_X.bin", image(0)[1..].to_vec()),
    ]);
    let (train, test, options) = (Split::Train, Split::Test, OpenOptions::new(STL10));
    let stl10 = Format::Stl10;
    check(&folder, "root", train, &options, Ok((stl10, &[0, 1], Some(&[9, 0]), "found in")));
    check(&folder, "root/stl10_binary", test, &options, Ok((stl10, &[2], None, "no labels")));
    let unlabeled = "root/stl10_binary/unlabeled_X.bin";
    check(&folder, unlabeled, train, &options, Ok((stl10, &[3], None, "no labels")));
    check(&folder, "wrong", train, &options, Err("image 0: label 0 is not one of 1 to 10"));
    check(&folder, "few", train, &options, Err("train_y.bin: contains 2 labels, expected 1"));
    check(&folder, "cut", train, &options, Err("27647 bytes are not a whole number of images of 27648"));
}
