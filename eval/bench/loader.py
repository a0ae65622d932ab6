"""Images a second from each format of datasets: dcgan-data's loader beside the Python loaders that people use.

Run: cargo build --release -p dcgan-data
     pip install torch torchvision webdataset datasets lmdb pillow
     python3 loader.py FOLDER [--images 6000] [--size 218x178] [--targets 32,64] [--threads 1,2] [--seconds 6]
         [--formats folder,zip,tar,lmdb,parquet,cache] [--binary target/release/dcgan-data] [--json out.json]

Writes the same JPEG images (smooth color noise, quality 90) to FOLDER/IMAGES-SIZE once in each format: a folder with
ten classes, a zip, WebDataset shards, an LMDB database, Parquet files. Then reads them in shuffled order, resized to
cover the target and cropped to its center, as u8 batches of 128, for some seconds each. Nothing is kept between epochs:
decoded images are discarded, except in the row `cache`, which reads the file of decoded images.

The peers do the same work: torchvision's ImageFolder and DataLoader (folder), webdataset (tar), datasets (Parquet), and
a Dataset of zipfile and lmdb with DataLoader; `threads` are processes there. Peers and ours run alternately.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BATCH = 128


def make(folder, count, height, width):
    import lmdb
    import numpy as np
    from PIL import Image

    done = folder / "done"
    if done.exists():
        return
    rng = np.random.default_rng(0)

    def jpeg():
        small = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).resize(
            (width, height), Image.BICUBIC
        )
        fine = rng.normal(0, 6, (height, width, 3))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(small) + fine, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    images = [jpeg() for _ in range(count)]
    label = lambda i: i * 10 // count
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for i, data in enumerate(images):
            path = folder / "folder" / f"c{label(i)}" / f"{i:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            archive.writestr(f"c{label(i)}/{i:06}.jpg", data)
    import webdataset

    (folder / "tar").mkdir(exist_ok=True)
    with webdataset.ShardWriter(str(folder / "tar" / "train-%06d.tar"), maxcount=1000, verbose=0) as writer:
        for i, data in enumerate(images):
            writer.write({"__key__": f"{i:06}", "jpg": data, "cls": label(i)})
    with lmdb.open(str(folder / "lmdb"), map_size=1 << 34) as env, env.begin(write=True) as transaction:
        for i, data in enumerate(images):
            transaction.put(f"{i:08}".encode(), data)
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    rows = {"image": [{"bytes": data, "path": None} for data in images], "label": [label(i) for i in range(count)]}
    (folder / "parquet").mkdir(exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "parquet" / "train-00000-of-00001.parquet")
    done.touch()


def transform(target):
    import numpy as np
    import torch
    from torchvision import transforms

    resize = transforms.Compose([transforms.Resize(target), transforms.CenterCrop(target)])
    return lambda image: torch.from_numpy(np.asarray(resize(image.convert("RGB"))))


def peer(kind, folder, target, threads, seconds):
    """Images a second of a Python loader."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1)
    change = transform(target)
    options = {"batch_size": BATCH, "num_workers": threads, "drop_last": True, "persistent_workers": True}

    class Values(Dataset):
        """Encoded images by index."""

        def __init__(self):
            self.handle = None
            if kind == "zip":
                with zipfile.ZipFile(folder / "images.zip") as archive:
                    self.names = [name for name in archive.namelist() if name.endswith(".jpg")]
            else:
                import lmdb

                with lmdb.open(str(folder / "lmdb"), readonly=True, lock=False) as env, env.begin() as transaction:
                    self.names = list(transaction.cursor().iternext(values=False))

        def __len__(self):
            return len(self.names)

        def __getitem__(self, i):
            if self.handle is None:  # in the worker
                if kind == "zip":
                    self.handle = zipfile.ZipFile(folder / "images.zip").read
                else:
                    import lmdb

                    env = lmdb.open(str(folder / "lmdb"), readonly=True, lock=False)
                    self.transaction = env.begin(buffers=True)
                    self.handle = self.transaction.get
            return change(Image.open(io.BytesIO(self.handle(self.names[i]))))

    if kind == "folder":
        from torchvision.datasets import ImageFolder

        loader = DataLoader(ImageFolder(folder / "folder", change), shuffle=True, **options)
    elif kind in ("zip", "lmdb"):
        loader = DataLoader(Values(), shuffle=True, **options)
    elif kind == "tar":
        import webdataset

        shards = sorted(map(str, (folder / "tar").glob("*.tar")))
        data = webdataset.WebDataset(shards, shardshuffle=100, nodesplitter=None).shuffle(1000).decode("pil")
        data = data.to_tuple("jpg", "cls").map_tuple(change, lambda label: label).batched(BATCH, partial=False)
        loader = webdataset.WebLoader(data, batch_size=None, num_workers=threads)
    elif kind == "parquet":
        import datasets

        data = datasets.load_dataset("parquet", data_files=str(folder / "parquet" / "*.parquet"), split="train")
        data.set_transform(lambda rows: {"image": [change(image) for image in rows["image"]], "label": rows["label"]})
        loader = DataLoader(data, shuffle=True, **options)
    else:  # cache: decoded images as a memory-mapped array
        count = len(list((folder / "folder").rglob("*.jpg")))
        path = folder / f"decoded-{target}.npy"
        if not path.exists():
            array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, target, target, 3))
            for i, name in enumerate(sorted((folder / "folder").rglob("*.jpg"))):
                array[i] = change(Image.open(name)).numpy()
            array.flush()

        class Decoded(Dataset):
            array = np.load(path, mmap_mode="r")

            def __len__(self):
                return len(self.array)

            def __getitem__(self, i):
                return torch.from_numpy(np.array(self.array[i]))

        loader = DataLoader(Decoded(), shuffle=True, **options)
    epochs = iter(lambda: None, 0)
    batches = (batch for _ in epochs for batch in loader)
    next(batches)  # workers have started
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        batch = next(batches)
        count += len(
            batch[0] if isinstance(batch, (list, tuple)) else batch["image"] if isinstance(batch, dict) else batch
        )
    return count / (time.perf_counter() - started)


def ours(args, kind, target, threads):
    path = {
        "folder": "folder",
        "zip": "images.zip",
        "tar": "tar",
        "lmdb": "lmdb",
        "parquet": "parquet",
        "cache": "folder",
    }[kind]
    command = [args.binary, "bench", args.folder / path, "--size", target, "--threads", threads, "--json"]
    command += ["--seconds", args.seconds, "--loader-memory", 0, "--batch-size", BATCH, "--quiet"]
    env = dict(os.environ, DCGAN_CACHE=str(args.folder / "decoded"))
    if kind == "cache":
        # The first run fills the file.
        fill = [*command, "--images", 4 * args.images]
        subprocess.run(list(map(str, fill)), env=env, check=True, capture_output=True)
    else:
        command += ["--decoded-images", "discard"]
    done = subprocess.run(list(map(str, command)), env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--size", default="218x178")
    parser.add_argument("--targets", default="32,64")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--formats", default="folder,zip,tar,lmdb,parquet,cache")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "dcgan-data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", help="one measurement of a peer, in a process of its own: KIND,TARGET,THREADS")
    args = parser.parse_args()
    if args.peer:
        kind, target, threads = args.peer.split(",")
        print(peer(kind, args.folder, int(target), int(threads), args.seconds))
        return
    args.folder /= f"{args.images}-{args.size}"
    args.folder.mkdir(parents=True, exist_ok=True)
    make(args.folder, args.images, *map(int, args.size.split("x")))
    rows = []
    print(
        "| format | pixels | threads | ours, images/s | memory | peer, images/s | ratio |\n|---|---|---|---|---|---|---|"
    )
    for kind in args.formats.split(","):
        for target in map(int, args.targets.split(",")):
            for threads in map(int, args.threads.split(",")):
                own = ours(args, kind, target, threads)
                command = [sys.executable, __file__, args.folder, "--peer", f"{kind},{target},{threads}"]
                command += ["--seconds", args.seconds]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                if done.returncode != 0:
                    sys.exit(done.stderr)
                other = float(done.stdout.split()[-1])
                speed, memory = own["images_per_second"], own["peak_memory_bytes"]
                rows.append(
                    {
                        "format": kind,
                        "pixels": target,
                        "threads": threads,
                        "ours": speed,
                        "peer": other,
                        "memory": memory,
                    }
                )
                print(
                    f"| {kind} | {target} | {threads} | {speed:,.0f} | {memory / 1e6:.0f} MB | {other:,.0f} "
                    f"| {speed / other:.2f} |",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
