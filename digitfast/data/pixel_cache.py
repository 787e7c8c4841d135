"""Image files as one uint8 tensor, decoded once, cached, and decoded again only if changed."""
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fastai.data.external import fastai_path
from fastcore.imports import IN_NOTEBOOK
from fastprogress.fastprogress import progress_bar

from digitfast.data.pictures import fit_square, read_grey


def load_pixels(
    files: Sequence[Path],  # image files, all below `root`
    root: Path,  # folder of digits that the cache is for
    size: int = 28,  # side of the square that every image is scaled to, in pixels
) -> torch.Tensor:  # uint8 `[len(files), size, size]`, in the order of `files`
    """Return the pixels of `files`, 0 = paper to 255 = ink, as `read_grey` and `fit_square` do.

    They are cached in one file in fastai's data folder. An image that is not in it, or whose size
    or date has changed, is decoded; a damaged cache file is replaced, and one that cannot be
    written is skipped.

    Memory: `size * size` bytes per image, 55 MB for all of MNIST.
    Raises: `BadImage` naming the file.
    """
    root = root.absolute()
    cache = cache_file(root, size)
    names = [file.absolute().relative_to(root).as_posix() for file in files]
    stamps = np.array([_stamp(file) for file in files], dtype=np.int64).reshape(-1, 3)
    pixels = np.empty((len(files), size, size), dtype=np.uint8)
    kept_names, kept_stamps, kept_pixels = _read(cache, size)
    row_of = {name: i for i, name in enumerate(kept_names)}
    rows = np.array([row_of.get(name, -1) for name in names], dtype=np.int64)
    fresh = rows >= 0
    fresh[fresh] = (kept_stamps[rows[fresh]] == stamps[fresh]).all(axis=1)
    pixels[fresh] = kept_pixels[rows[fresh]]
    stale = np.flatnonzero(~fresh)
    _decode(files, stale, pixels, size)
    if len(stale):
        asked = set(names)  # with holdout, of one split only: the other one stays in the cache
        others = [i for i, name in enumerate(kept_names)
                  if name not in asked and (root / name).exists()]
        _write(cache, [*names, *(kept_names[i] for i in others)],
               np.concatenate([stamps, kept_stamps[others]]),
               np.concatenate([pixels, kept_pixels[others]]))
    return torch.from_numpy(pixels)


def pixels_checksum(
    # names such as "training/3/7.png", and their pixels, uint8 `[n, h, w]`
    *splits: tuple[Sequence[str], torch.Tensor],
) -> str:  # SHA-256 in hexadecimal digits
    "Return a checksum of all names and pixels, in order; the files' compression does not matter."
    digest = hashlib.sha256()
    for names, pixels in splits:
        digest.update(b"%d images\0" % len(names))
        for name, row in zip(names, pixels.cpu().numpy(), strict=True):
            digest.update(os.fsencode(name) + b"\0")
            digest.update(row)
    return digest.hexdigest()


def cache_file(
    root: Path,  # folder of digits
    size: int = 28,  # side of the images, in pixels
) -> Path:
    "Return the path of the cache file for the images below `root`."
    key = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:12]
    return fastai_path("data") / "digitfast" / f"{root.absolute().name}-{size}-{key}.npz"


def _stamp(file: Path) -> tuple[int, int, int]:
    "Return a file's size in bytes, and its times of modification and of renaming in nanoseconds."
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # an archive's files may share two


def _decode(files: Sequence[Path], rows: np.ndarray, pixels: np.ndarray, size: int) -> None:
    "Decode the images of `rows` into `pixels`, with a progress bar for many images."
    with_bar = len(rows) > 2000 and (IN_NOTEBOOK or sys.stdout.isatty())
    for i in progress_bar(rows.tolist(), leave=False) if with_bar else rows.tolist():
        pixels[i] = np.asarray(fit_square(read_grey(files[i]), size))


def _read(cache: Path, size: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    "Return the names, stamps and pixels in a cache file, all empty if it is missing or damaged."
    try:
        with np.load(cache, allow_pickle=False) as kept:  # checks every array's CRC
            names = os.fsdecode(bytes(kept["names"])).split("\0")
            stamps = kept["stamps"]
            pixels = kept["pixels"]
            n = len(names)
            if (stamps.shape, pixels.shape, pixels.dtype) == ((n, 3), (n, size, size), np.uint8):
                return names, stamps, pixels
    except Exception:  # a damaged file, or one that is no cache, can make NumPy raise anything
        pass  # the images are decoded instead
    return [], np.empty((0, 3), np.int64), np.empty((0, size, size), np.uint8)


def _write(cache: Path, names: list[str], stamps: np.ndarray, pixels: np.ndarray) -> None:
    "Write the cache file in one step; of two processes that do so at once, the last one wins."
    part = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            joined_names = np.frombuffer(os.fsencode("\0".join(names)), np.uint8)
            np.savez(file, names=joined_names, stamps=stamps, pixels=pixels)
        os.replace(part, cache)
    except OSError:
        pass  # a full disk or a read-only folder: the next run decodes again
    finally:
        part.unlink(missing_ok=True)
