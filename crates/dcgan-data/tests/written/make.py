"""Files of other programs for the tests of the readers: each format as its own writer writes it.

Run: pip install -r requirements.txt && python3 make.py
     (Python 3.11)

Pixels follow a formula, that of `fixtures::value`: the tests compute what each reader must return.
"""

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import datasets
import h5py
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image

HERE = Path(__file__).parent
SHAPE = (40, 20, 3)  # as an uncompressed BMP longer than half a page of LMDB


def pixels(index, shape=SHAPE):
    row, column, channel = np.indices(shape)
    return ((index * 97 + row * 31 + column * 7 + channel * 59) % 256).astype(np.uint8)


def encoded(index, kind="png", shape=SHAPE):
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(pixels(index, shape)).save(buffer, kind, **options)
    return buffer.getvalue()


def folder(name):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def lmdb_file(path, values):
    """A database as LSUN's: the file alone, its lock file is not needed to read it."""
    with lmdb.open(str(path), map_size=1 << 20, lock=False) as env, env.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)


def make_lmdb():
    root = folder("lsun")
    # Enough keys for branch pages; LSUN's keys are SHA-1 in hexadecimal.
    bedrooms = {f"{i:040x}".encode(): encoded(i) for i in range(40)}
    lmdb_file(root / "bedroom_train_lmdb", bedrooms)
    # WebP as in LSUN, and BMP, whose values are on overflow pages.
    churches = {b"a": encoded(40, "webp"), b"b": encoded(41, "bmp"), b"\x00\xff": encoded(42, "bmp")}
    lmdb_file(root / "church_outdoor_train_lmdb", churches)
    lmdb_file(root / "bedroom_val_lmdb", {b"x": encoded(43)})
    # A count beside the images, as StyleGAN2 in PyTorch writes, and a database within the database.
    path = folder("mixed_lmdb")
    with lmdb.open(str(path / "all.lmdb"), map_size=1 << 20, lock=False, max_dbs=2, subdir=False) as env:
        inner = env.open_db(b"inner")
        several = env.open_db(b"several", dupsort=True)
        with env.begin(write=True) as transaction:
            transaction.put(b"length", b"2")
            transaction.put(b"note", b"a text that is longer than sixteen bytes")
            transaction.put(b"1", encoded(1))
            transaction.put(b"0", encoded(0))
            transaction.put(b"2", encoded(2), db=inner)
            transaction.put(b"3", b"x", db=several)


def add(archive, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def tar_bytes(members, form=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            add(archive, name, data)
    return buffer.getvalue()


def make_tar():
    root = folder("tar")
    long = "dog/" + "x" * 120 + "é.png"
    for form, name in ((tarfile.PAX_FORMAT, "pax"), (tarfile.GNU_FORMAT, "gnu")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            folder_entry = tarfile.TarInfo("./cat")
            folder_entry.type = tarfile.DIRTYPE
            archive.addfile(folder_entry)
            add(archive, "./cat/b.png", encoded(0))
            add(archive, "./cat/a.webp", encoded(1, "webp"))
            add(archive, "cat/.hidden.png", b"")
            link = tarfile.TarInfo("cat/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "b.png"
            archive.addfile(link)
            add(archive, long, encoded(2))
        (root / f"{name}.tar").write_bytes(buffer.getvalue())
    # ILSVRC2012_img_train.tar: an archive for each class.
    classes = {
        "n01443537": [("n01443537_2.JPEG", encoded(4)), ("n01443537_10.JPEG", encoded(5))],
        "n01440764": [("n01440764_1.JPEG", encoded(3))],
    }
    inner = [(f"{name}.tar", tar_bytes(members)) for name, members in classes.items()]
    (root / "ilsvrc.tar").write_bytes(tar_bytes(inner))
    # The same as a folder of archives.
    for name, data in inner:
        (folder(f"classes_of_tar/{name[:-4]}") / name).write_bytes(data)


def make_webdataset():
    root = folder("webdataset")
    samples = [("train-000000", [0, 1]), ("train-000001", [2]), ("val-000000", [3])]
    for name, numbers in samples:
        with webdataset.TarWriter(str(root / f"{name}.tar")) as writer:
            for i in numbers:
                # A mask beside the image, and a class.
                sample = {"__key__": f"{i:06}", "png": encoded(i), "seg.png": encoded(i + 50), "cls": 7 - i}
                writer.write(sample)
    with webdataset.TarWriter(str(folder("webdataset_json") / "a-0.tar")) as writer:
        writer.write({"__key__": "x.1/0", "webp": encoded(4, "webp"), "json": {"label": 5, "caption": "four"}})
        writer.write({"__key__": "x.1/1", "webp": encoded(5, "webp"), "json": {"caption": "five"}})


def make_parquet():
    root = folder("parquet")
    (root / "data").mkdir()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog", "owl"]),
            "text": datasets.Value("string"),
        }
    )

    def rows(numbers):
        images = [{"bytes": encoded(i), "path": f"{i}.png"} for i in numbers]
        return {"image": images, "label": [i % 3 for i in numbers], "text": ["x"] * len(numbers)}

    splits = {"train-00000-of-00002": range(0, 5), "train-00001-of-00002": range(5, 7), "test-00000-of-00001": [8]}
    for name, numbers in splits.items():
        data = datasets.Dataset.from_dict(rows(list(numbers)), features=features)
        data.to_parquet(root / "data" / f"{name}.parquet")
    # Without metadata of datasets: a column of bytes; each compression, both page versions, several groups and pages.
    root = folder("parquet_plain")
    for compression, version, dictionary in (
        ("none", "1.0", False), ("snappy", "1.0", True), ("gzip", "1.0", False), ("zstd", "2.0", True), ("lz4", "2.0", False),
    ):  # fmt: skip
        images = [encoded(i) for i in range(9)]
        table = pa.table(
            {"id": list(range(9)), "jpg": pa.array(images, pa.binary()), "cls": pa.array([1] * 9, pa.int32())}
        )
        pq.write_table(
            table, root / f"{compression}.parquet", compression=compression, data_page_version=version,
            row_group_size=5, data_page_size=1, write_batch_size=2, use_dictionary=["jpg"] if dictionary else False,
            dictionary_pagesize_limit=1 << 11,
        )  # fmt: skip
    nulls = pa.array([{"bytes": encoded(0), "path": "0"}, None, {"bytes": None, "path": "far.png"}])
    pq.write_table(pa.table({"image": nulls}), folder("parquet_nulls") / "nulls.parquet")


def make_imagenet():
    shape = (8, 8, 3)

    def batch(numbers):
        planes = np.stack([pixels(i, shape).transpose(2, 0, 1).reshape(-1) for i in numbers])
        labels = [i + 1 for i in numbers]
        return {"data": planes, "labels": labels, "mean": planes.mean(0)}

    root = folder("imagenet8")
    np.savez(root / "train_data_batch_1.npz", **batch([0, 1]))
    np.savez_compressed(root / "train_data_batch_2.npz", **batch([2]))
    np.savez(root / "val_data.npz", **batch([999]))
    root = folder("imagenet8_pickles")
    for name, numbers in (("train_data_batch_1", [0, 1]), ("train_data_batch_2", [2]), ("val_data", [999])):
        with open(root / name, "wb") as file:
            pickle.dump(batch(numbers), file, protocol=4)


def make_celeba():
    root = folder("celeba")
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/", b"")
        for i in range(5):
            archive.writestr(f"img_align_celeba/{i + 1:06}.png", encoded(i))
    splits = [0, 0, 1, 2]
    (root / "list_eval_partition.txt").write_text("".join(f"{i + 1:06}.png {s}\n" for i, s in enumerate(splits)))
    (root / "list_attr_celeba.txt").write_text("2\nMale Smiling\n000001.png  1 -1\n000002.png -1 -1\n")
    # The copy on Kaggle: a folder in a folder, lists as CSV.
    root = folder("celeba_kaggle")
    (root / "img_align_celeba/img_align_celeba").mkdir(parents=True)
    for i in range(3):
        (root / f"img_align_celeba/img_align_celeba/{i + 1:06}.png").write_bytes(encoded(i))
    (root / "list_eval_partition.csv").write_text("image_id,partition\n000001.png,1\n000002.png,0\n000003.png,0\n")


def make_hdf5():
    """As BigGAN's make_hdf5.py: (n, c, h, w) in chunks, LZF, labels as int64."""
    root = folder("hdf5")
    images = np.stack([pixels(i, (8, 6, 3)).transpose(2, 0, 1) for i in range(7)])
    for name, options in (("lzf", {"compression": "lzf"}), ("gzip", {"compression": "gzip"}), ("plain", {})):
        with h5py.File(root / f"{name}.hdf5", "w") as file:
            chunks = None if name == "plain" else (3, 3, 8, 6)
            file.create_dataset("imgs", data=images, dtype="uint8", chunks=chunks, **options)
            file.create_dataset("labels", data=np.arange(7) % 4, dtype="int64", **options)
    # Labels as columns, of PatchCamelyon's sizes and of other types.
    for name, dtype, sizes in (("column", "uint64", (7, 1)), ("patches", "int8", (7, 1, 1, 1))):
        with h5py.File(root / f"{name}.hdf5", "w") as file:
            file.create_dataset("x", data=images.transpose(0, 2, 3, 1), dtype="uint8")
            file.create_dataset("y", data=(np.arange(7) % 4).reshape(sizes), dtype=dtype)
    # As PatchCamelyon's files: images and labels apart.
    with h5py.File(root / "split_train_x.h5", "w") as file:
        file.create_dataset("x", data=images.transpose(0, 2, 3, 1), dtype="uint8")
    with h5py.File(root / "split_train_y.h5", "w") as file:
        file.create_dataset("y", data=(np.arange(7) % 4).reshape(7, 1, 1, 1), dtype="uint8")


if __name__ == "__main__":
    for make in (make_lmdb, make_tar, make_webdataset, make_parquet, make_imagenet, make_celeba, make_hdf5):
        make()
