"""De-duplication checked on planted near-duplicates: how many are found, and how many pairs are different images.

Run: cargo build --release -p dcgan-features
     python3 dedup.py FOLDER --data bedrooms=bedrooms-64.zip [--data NAME=ZIP ...] [--images 10000] [--planted 500]
         [--binary target/release/dcgan-eval] [--million ZIP] [-- OPTIONS of `dcgan-eval dedup`]
     (Python 3.11; pillow and numpy)

For each zip of images, writes a folder with IMAGES of them and changed copies of the first ones, PLANTED of each kind:
encoded as JPEG of quality 70, moved by a pixel, 15 % brighter or darker, and all of these together. Prints a table
in Markdown: planted copies found by each rule, and pairs of the list that are neither planted nor copies in the zip
itself (images whose pixels agree to 2 levels in the mean; look at FOLDER/NAME.png for the others).

With --million, only the time is measured: 1,000,000 images of 32x32 (3 GB), each image of the zip in as many crops as
it takes, turned and mirrored.
"""

import argparse
import io
import json
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def changes():
    import numpy as np
    from PIL import Image

    draw = random.Random(0)

    def encoded_again(image):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=70)
        return Image.open(buffer).convert("RGB")

    def moved(image):
        step = draw.choice([(0, 1), (1, 0), (0, -1), (-1, 0)])
        return Image.fromarray(np.roll(np.asarray(image), step, (0, 1)))

    def brighter(image):
        factor = draw.choice([0.85, 1.15])
        return Image.fromarray(np.clip(np.asarray(image) * factor, 0, 255).astype(np.uint8))

    return {
        "encoded again": encoded_again,
        "moved by a pixel": moved,
        "brighter or darker": brighter,
        "all of these": lambda image: encoded_again(brighter(moved(image))),
    }


def plant(zip_path, folder, count, planted):
    """Writes the images and the copies; file names tell the number of the image and the kind."""
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kinds = changes()
    with zipfile.ZipFile(zip_path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg", ".webp"))]
        for number, name in enumerate(sorted(names)[:count]):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            image.save(folder / f"{number:06}-0.png")
            if number < planted:
                for kind, change in enumerate(kinds.values(), 1):
                    change(image).save(folder / f"{number:06}-{kind}.png")
    return list(kinds), min(planted, len(names), count)


def distance(folder, first, second):
    import numpy as np
    from PIL import Image

    values = [np.asarray(Image.open(folder / name)).astype(float) for name in (first, second)]
    return float(np.abs(values[0] - values[1]).mean())


def million(zip_path, folder, binary, options, count=1_000_000):
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "million.npy"
    with zipfile.ZipFile(zip_path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg", ".webp"))]
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 32, 32, 3))
        draw = random.Random(0)
        for i, name in enumerate(names):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            for j in range(i, count, len(names)):
                side = draw.randint(image.width // 2, image.width * 3 // 4)
                x, y = (draw.randint(0, size - side) for size in image.size)
                crop = image.crop((x, y, x + side, y + side)).resize((32, 32), Image.BILINEAR)
                turned = np.rot90(np.asarray(crop), draw.randrange(4))
                images[j] = turned[:, ::-1] if draw.random() < 0.5 else turned
    del images
    command = [binary, "dedup", path, "--out", folder / "million.txt", "--json", "--quiet", *options]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    print(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=ZIP")
    parser.add_argument("--million", metavar="ZIP")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "dcgan-eval")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args, options = parser.parse_args(words[:end]), words[end + 1 :]
    if args.million:
        million(args.million, args.folder, args.binary, options)
        return
    print("| images | planted | found | by equal codes | by perceptual hashes |\n|---|---|---|---|---|")
    notes = []
    for entry in args.data:
        name, zip_path = entry.split("=", 1)
        folder = args.folder / name
        kinds, planted = plant(zip_path, folder, args.images, args.planted)
        found, results = {}, {}
        for rule in ("tables", "equal-codes", "phash"):
            out = args.folder / f"{name}-{rule}.txt"
            command = [args.binary, "dedup", folder, "--out", out, "--rule", rule, "--json", "--quiet", *options]
            if rule == "tables":
                command += ["--montage", args.folder / f"{name}.png"]
            done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
            results[rule] = json.loads(done.stdout)
            lines = [line.split("\t") for line in out.read_text().splitlines() if not line.startswith("#")]
            found[rule] = lines
        groups = {rule: {removed: kept for removed, kept, *_ in lines} for rule, lines in found.items()}
        for kind, what in enumerate(kinds, 1):
            counts = []
            for rule in groups:
                # An image and its copy are in one group.
                first = lambda file: groups[rule].get(file, file)
                same = sum(first(f"{number:06}-{kind}.png") == first(f"{number:06}-0.png") for number in range(planted))
                counts.append(f"{100 * same / planted:.1f} %")
            print(f"| {name} | {what} | {' | '.join(counts)} |", flush=True)
        for rule, lines in found.items():
            pairs = [(removed, like) for removed, _, like, *_ in lines]
            other = [pair for pair in pairs if pair[0][:6] != pair[1][:6]]
            copies = sum(distance(folder, *pair) < 2 for pair in other)
            share = 100 * (len(other) - copies) / max(len(pairs), 1)
            notes.append(
                f"{name}, {rule}: {len(pairs)} pairs, {len(other)} not planted, {copies} of these copies in the zip; "
                f"others {share:.2f} %"
            )
        result = results["tables"]
        notes.append(f"{name}: {result['images']:,} images in {result['seconds']:.0f} s")
    print("\n" + "\n".join(f"- {note}" for note in notes))


if __name__ == "__main__":
    main()
