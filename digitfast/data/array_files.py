"""Files that hold many images: Kaggle's CSV, IDX as MNIST is published, and Keras' .npz."""
import gzip
import re
import zlib
from math import isqrt
from pathlib import Path

import numpy as np

from digitfast.data.labelled import LabelledImages, labelled_images
from digitfast.errors import BadData

TABLES = {".csv"}  # suffixes
#: Names of IDX files: what their data set is called, if anything, their split, and what they hold.
_IDX_NAME = re.compile(r"(?P<set>.*?)(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx\d")
_IDX_UBYTE = 8  # the only type of number in IDX files that images and their labels have


def read_table(
    file: Path,  # .csv with a column per pixel, and perhaps one for labels; commas between them
) -> tuple[np.ndarray, np.ndarray | None]:  # uint8 `[n, side, side]`; labels `[n]` if it has them
    """Return the images, and the labels if there are any, of a table with one image per row.

    The labels are the column called "label"; without names of columns, the first one if there is
    one more than the pixels of a square. A first line that is not numbers names the columns.

    Raises: `BadData` naming the file.
    """
    import pandas  # comes with fastai; takes half a second, and only tables need it
    try:
        with open(file, encoding="utf-8-sig") as text:
            heads = text.readline().rstrip("\r\n").replace('"', "").split(",")
        named = not all(_is_number(head) for head in heads)
        table = pandas.read_csv(file, header=0 if named else None, encoding="utf-8-sig")
    except (OSError, ValueError) as e:  # pandas' own errors are ValueErrors
        raise BadData(f"{file} is not a table of images: {' '.join(str(e).split())}") from e
    columns = [str(head).strip().lower() for head in table.columns]
    labels = None
    if named and "label" in columns:
        at = columns.index("label")
    elif not named and isqrt(len(columns) - 1)**2 == len(columns) - 1 > 0:
        at = 0
    else:
        at = None
    if at is not None:
        labels = table[table.columns[at]].to_numpy()
        table = table.drop(columns=table.columns[at])
    side = isqrt(table.shape[1])
    if side**2 != table.shape[1] or not len(table):
        raise BadData(f"{file} has {len(table):,} rows of {table.shape[1]} pixels; there must be "
                      "rows, each of a square image, such as label,pixel0,…,pixel783")
    values = table.to_numpy()
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise BadData(f"{file} holds more than whole numbers from 0 to 255, or has gaps")
    return values.astype(np.uint8).reshape(-1, side, side), labels


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def table_of_images(file: Path) -> LabelledImages:
    "Return the images of a .csv with labels. Raises: `BadData`."
    pixels, labels = read_table(file)
    if labels is None:
        raise BadData(f"{file} has no labels: one column must be called label")
    return labelled_images(pixels, labels, name=str(file))


def idx_sets(
    folder: Path,
) -> dict[str, dict[str, Path]]:  # files by their part, such as "train images", of each data set
    "Return the IDX files in a folder by what their names begin with, as their makers name them."
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        if name := _IDX_NAME.match(file.name):
            split = "train" if name["split"] == "train" else "test"
            found.setdefault(name["set"], {})[f"{split} {name['kind']}"] = file
    return found


def is_idx(
    file: Path,
) -> bool:
    "Return whether a file is named as IDX files of images and labels are."
    return _IDX_NAME.match(file.name) is not None


def images_of_idx(
    folder: Path,
    file: Path | None = None,  # of the data set, where the folder holds several
) -> LabelledImages:
    """Return the images of the IDX files in a folder, packed by gzip or not.

    Those of EMNIST are stored on their side, and are put upright.
    Raises: `BadData` naming the file.
    """
    sets = idx_sets(folder)
    name = _IDX_NAME.match(file.name)["set"] if file else next(iter(sets))
    if file is None and len(sets) > 1:
        raise BadData(f"{folder} holds {len(sets)} data sets, {', '.join(map(repr, sets))}; name "
                      "one of their files")
    parts = [f"{split} {kind}" for split in ("train", "test") for kind in ("images", "labels")]
    files = [sets[name][part] for part in parts if part in sets[name]]
    if len(files) not in (2, 4) or "train images" not in sets[name]:
        raise BadData(f"{folder} holds {', '.join(file.name for file in files)}; there must be "
                      "images and labels, of train and perhaps of t10k")
    arrays = [read_idx(file) for file in files]
    if name.startswith("emnist"):
        arrays[::2] = [images.swapaxes(1, 2) for images in arrays[::2]]
    return labelled_images(*arrays, name=str(folder), validated_on="test images")


def read_idx(
    file: Path,  # perhaps packed by gzip
) -> np.ndarray:  # uint8, of any number of dimensions
    """Return the array in an IDX file of bytes.

    Raises: `BadData` for other files.
    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", file formats.
    """
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as e:
        raise BadData(f"{file} cannot be read ({e})") from e
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != bytes([0, 0, _IDX_UBYTE]) or not dimensions or len(content) < start:
        raise BadData(f"{file} is not an IDX file of bytes")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(int).tolist()
    if len(content) - start != (size := int(np.prod(shape, dtype=object))):
        raise BadData(f"{file} must hold {' × '.join(map(str, shape))} = {size:,} bytes, "
                      f"not {len(content) - start:,}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def images_of_npz(
    file: Path,
) -> LabelledImages:
    "Return the images of an .npz as Keras has it. Raises: `BadData`."
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            there = list(arrays)
            found = [arrays[key] for key in keys if key in there]
    except Exception as e:  # a damaged file can make NumPy raise anything
        raise BadData(f"{file} is not an .npz of arrays ({e})") from e
    if len(found) not in (2, 4) or "x_train" not in there:
        raise BadData(f"{file} holds {', '.join(there) or 'nothing'}; it must hold "
                      f"{', '.join(keys)}, or the first two")
    return labelled_images(*found, name=str(file), validated_on="test images")
