"""Files that hold many images: Kaggle's CSV, IDX as MNIST is published, and Keras' .npz."""
import gzip
import zlib
from math import isqrt
from pathlib import Path

import numpy as np

from digitfast.data.labelled import LabelledImages, labelled_images
from digitfast.errors import BadData

TABLES = {".csv"}  # suffixes
_IDX_PARTS = (("train", "t10k"), ("train", "test"))  # words in the names of the files of each split
_IDX_UBYTE = 8  # the only type of number in IDX files that images and their labels have


def read_table(
    file: Path,  # .csv with a column per pixel, and perhaps one for labels; commas between them
) -> tuple[np.ndarray, np.ndarray | None]:  # uint8 `[n, side, side]`; labels `[n]` if it has them
    """Return the images, and the labels if there are any, of a table with one image per row.

    The labels are the column called "label", or the first one if there is one more than the pixels
    of a square. A first line that is not numbers names the columns.

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
    elif isqrt(len(columns) - 1)**2 == len(columns) - 1 > 0:
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


def idx_files(
    folder: Path,
) -> dict[str, Path]:  # training images and labels, then those of the test, if they are there
    "Return the IDX files of a data set in a folder, as MNIST's makers name them; {} for none."
    there = [file for file in sorted(folder.iterdir()) if "-ubyte" in file.name
             or ".idx" in file.name]
    for words in _IDX_PARTS:
        found = {f"{word} {kind}": file for word in words for kind in ("images", "labels")
                 for file in there if word in file.name and kind in file.name}
        if f"{words[0]} images" in found:
            return found
    return {}


def images_of_idx(
    folder: Path,
) -> LabelledImages:
    """Return the images of the IDX files in a folder, packed by gzip or not.

    Those of EMNIST are stored on their side, and are put upright.
    Raises: `BadData` naming the file.
    """
    files = idx_files(folder)
    arrays = [read_idx(file) for file in files.values()]
    if len(arrays) not in (2, 4):
        raise BadData(f"{folder} holds {', '.join(file.name for file in files.values())}; there "
                      "must be images and labels, of train and perhaps of t10k")
    if next(iter(files.values())).name.startswith("emnist"):
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
