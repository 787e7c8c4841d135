"""Pack MNIST's four IDX files into digitfast's bundled archive, `mnist_png.tar.xz`.

    python tools/pack_mnist.py FOLDER_WITH_THE_IDX_FILES [OUTPUT]

The archive has the layout of fastai's own `mnist_png`,
`mnist_png/{training,testing}/{0..9}/{index}.png`, where `index` is the image's place in its IDX
file. The same input gives the same bytes: nothing in the archive depends on the clock, the user or
the order of a folder. The PNGs are uncompressed, so xz sees the pixels of neighbouring digits of
one class (11 MB, where compressed PNGs make 16 MB).
"""
import gzip
import hashlib
import io
import lzma
import struct
import sys
import tarfile
import zlib
from pathlib import Path

SPLITS = {"training": "train", "testing": "t10k"}
MD5 = {  # of the files as Yann LeCun published them, uncompressed
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SIDE = 28  # pixels


def read_idx(folder: Path, name: str) -> bytes:
    "Return the bytes of IDX file `name` in `folder`, plain or gzipped. Exit if their MD5 is wrong."
    plain = folder / name
    gzipped = folder / f"{name}.gz"
    if plain.exists():
        content = plain.read_bytes()
    elif gzipped.exists():
        content = gzip.decompress(gzipped.read_bytes())
    else:
        sys.exit(f"pack_mnist: neither {plain} nor {gzipped} exists")
    found = hashlib.md5(content).hexdigest()
    if found != MD5[name]:
        sys.exit(f"pack_mnist: {name} has MD5 {found}, MNIST's is {MD5[name]}; "
                 "download the file again")
    return content


def png(pixels: bytes) -> bytes:
    "Return a grey 8-bit PNG of 28×28 `pixels`, stored without filter or compression."
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + pixels[i:i + SIDE] for i in range(0, len(pixels), SIDE))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))


def add(tar: tarfile.TarFile, name: str, content: bytes | None = None) -> None:
    "Add a file, or a folder if `content` is None, with a fixed owner, mode and date."
    info = tarfile.TarInfo(name)
    info.mtime = 909878400  # 1998-11-01, the month of the paper; some tools (zip) refuse 1970
    if content is None:
        info.type = tarfile.DIRTYPE
        info.mode = 0o755
        tar.addfile(info)
    else:
        info.mode = 0o644
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def pack(folder: Path, output: Path) -> None:
    "Write the archive to `output` and print its size and SHA-256."
    image_header = 16  # bytes
    label_header = 8  # bytes
    size = SIDE * SIDE  # bytes of an image
    with (lzma.open(output, "wb", preset=9 | lzma.PRESET_EXTREME) as xz,
          tarfile.open(fileobj=xz, mode="w", format=tarfile.USTAR_FORMAT) as tar):
        add(tar, "mnist_png")
        for split, prefix in SPLITS.items():
            images = read_idx(folder, f"{prefix}-images-idx3-ubyte")[image_header:]
            labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte")[label_header:]
            add(tar, f"mnist_png/{split}")
            for digit in range(10):
                add(tar, f"mnist_png/{split}/{digit}")
                for i, label in enumerate(labels):
                    if label == digit:
                        pixels = images[i * size:(i + 1) * size]
                        add(tar, f"mnist_png/{split}/{digit}/{i}.png", png(pixels))
    content = output.read_bytes()
    print(f"{output}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    default = Path(__file__).parent.parent / "digitfast" / "packed" / "mnist_png.tar.xz"
    pack(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else default)
