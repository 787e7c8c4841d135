import gzip
import struct

import numpy as np
import pytest
from torchvision.datasets.mnist import read_image_file, read_label_file

from digitfast.data.array_files import (
    images_of_idx,
    images_of_npz,
    read_idx,
    read_table,
    table_of_images,
)
from digitfast.errors import BadData

PIXELS = np.zeros((6, 28, 28), np.uint8)
PIXELS[:, 5:20, 10:15] = np.random.default_rng(0).integers(50, 256, (6, 15, 5))
LABELS = np.array([4, 2, 4, 2, 4, 2], np.uint8)


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, prefix="", pack=False, names=("train", "t10k")):
    for name in names:
        for kind, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
            file = folder / f"{prefix}{name}-{kind}-ubyte{'.gz' if pack else ''}"
            content = idx_bytes(array)
            file.write_bytes(gzip.compress(content) if pack else content)


def write_table(file, head=None, labels=LABELS, end="\n"):
    rows = PIXELS.reshape(6, 784).tolist()
    if labels is not None:
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    if head:
        rows.insert(0, head)
    file.write_text(end.join(",".join(map(str, row)) for row in rows) + end)
    return file


KAGGLE = [f"pixel{i}" for i in range(784)]


@pytest.mark.parametrize("head", [["label", *KAGGLE], ["Label", *KAGGLE], None],
                         ids=["kaggle", "capital", "no head"])
def test_a_table(tmp_path, head):
    pixels, labels = read_table(write_table(tmp_path / "train.csv", head))
    assert np.array_equal(pixels, PIXELS)
    assert labels.tolist() == LABELS.tolist()


def test_a_table_without_labels(tmp_path):
    pixels, labels = read_table(write_table(tmp_path / "test.csv", KAGGLE, labels=None))
    assert np.array_equal(pixels, PIXELS)
    assert labels is None
    with pytest.raises(BadData, match="test.csv has no labels"):
        table_of_images(tmp_path / "test.csv")


def test_a_table_as_windows_writes_it(tmp_path):
    file = write_table(tmp_path / "train.csv", ["label", *KAGGLE], end="\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert table_of_images(file).vocab == ["2", "4"]


@pytest.mark.parametrize("text, problem", [
    ("", "is not a table of images"), ("label,a,b\n1,2,3\n", "1 rows of 2 pixels"),
    ("label,a\n1,300\n", "whole numbers from 0 to 255"), ("label,a\n1,\n", "or has gaps"),
    ("id,p0\n1,2\n", "1 rows of 2 pixels"), ("label,a\n1,x\n", "whole numbers from 0 to 255"),
    ("label,a\n", "0 rows of 1 pixels")])
def test_tables_that_are_none(tmp_path, text, problem):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(BadData, match=f"train.csv.* {problem}"):
        read_table(tmp_path / "train.csv")


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzip"])
def test_idx_files(tmp_path, pack):
    write_idx(tmp_path, pack=pack)
    found = images_of_idx(tmp_path)
    assert np.array_equal(found.pixels, np.concatenate([PIXELS, PIXELS]))
    assert (found.n_training, found.validated_on) == (6, "test images")


def test_idx_as_torchvision_reads_it(tmp_path):
    write_idx(tmp_path)
    for kind, read in (("images-idx3", read_image_file), ("labels-idx1", read_label_file)):
        file = tmp_path / f"train-{kind}-ubyte"
        assert np.array_equal(read_idx(file), read(str(file)).numpy())


def test_idx_of_emnist_is_put_upright(tmp_path):
    write_idx(tmp_path, "emnist-letters-", names=("train", "test"))
    assert np.array_equal(images_of_idx(tmp_path).pixels[:6], PIXELS.swapaxes(1, 2))


def test_idx_for_training_only(tmp_path):
    write_idx(tmp_path, names=("train",))
    assert images_of_idx(tmp_path).n_training == 6


def test_one_of_several_data_sets_is_named_by_its_file(tmp_path):
    for name in ("emnist-digits-", "emnist-letters-"):
        write_idx(tmp_path, name, names=("train", "test"))
    with pytest.raises(BadData, match="2 data sets, 'emnist-digits-', 'emnist-letters-'; name one"):
        images_of_idx(tmp_path)
    (tmp_path / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"damaged")
    file = tmp_path / "emnist-digits-test-labels-idx1-ubyte"
    assert len(images_of_idx(tmp_path, file)) == 12


def test_idx_files_that_are_missing(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(BadData, match="there must be images and labels"):
        images_of_idx(tmp_path)


@pytest.mark.parametrize("content, problem", [
    (b"", "not an IDX file"), (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "not an IDX file of bytes"),
    (b"\0\0\x08\3\0\0\0\1", "not an IDX file"), (b"\x1f\x8bxxxx", "cannot be read"),
    (idx_bytes(PIXELS)[:-5], "must hold 6 × 28 × 28 = 4,704 bytes, not 4,699"),
    (b"\0\0\x08\3" + b"\xff" * 12, "must hold 4294967295 × 4294967295")])
def test_idx_files_that_are_none(tmp_path, content, problem):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(BadData, match=problem):
        read_idx(tmp_path / "train-images-idx3-ubyte")


def test_an_npz(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    assert images_of_npz(tmp_path / "mnist.npz").n_training == 6


def test_npz_that_are_none(tmp_path):
    np.savez(tmp_path / "other.npz", images=PIXELS)
    with pytest.raises(BadData, match="holds images; it must hold x_train"):
        images_of_npz(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(BadData, match="is not an .npz"):
        images_of_npz(tmp_path / "text.npz")


def test_an_npz_with_code_in_it_is_not_opened(tmp_path):
    np.savez(tmp_path / "code.npz", x_train=np.array([print], object), y_train=LABELS)
    with pytest.raises(BadData, match="is not an .npz of arrays"):
        images_of_npz(tmp_path / "code.npz")
