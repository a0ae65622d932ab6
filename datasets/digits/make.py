"""Extracts the embedded digits from MNIST's training files.

    python3 datasets/digits/make.py FOLDER

FOLDER contains train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz (see ../mnist.toml). The script writes the
first 10,000 images and labels to its own folder. The same input gives the same bytes: the gzip header has no file name
and no time.
"""

import gzip
import hashlib
import pathlib
import struct
import sys

COUNT = 10_000
# SHA-256 of the uncompressed training files: only the official files are accepted.
SOURCES = {
    "images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
}


def main(folder):
    here = pathlib.Path(__file__).parent
    for name, sha256 in SOURCES.items():
        data = gzip.decompress((folder / f"train-{name}.gz").read_bytes())
        if hashlib.sha256(data).hexdigest() != sha256:
            sys.exit(f"train-{name}.gz is not the official file")
        dimensions = data[3]
        header = 4 + 4 * dimensions
        sizes = struct.unpack(f">{dimensions}I", data[4:header])
        record = (len(data) - header) // sizes[0]
        subset = data[:4] + struct.pack(f">{dimensions}I", COUNT, *sizes[1:]) + data[header : header + COUNT * record]
        (here / f"{name}.gz").write_bytes(gzip.compress(subset, 9, mtime=0))


main(pathlib.Path(sys.argv[1]))
