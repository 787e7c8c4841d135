import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from digitfast.data import pixel_cache as tensors
from digitfast.data.pixel_cache import cache_file, load_pixels
from digitfast.errors import BadImage


@pytest.fixture
def files(copy_of_digits):
    return sorted(copy_of_digits.rglob("*.png"))


@pytest.fixture
def decoded(monkeypatch):
    "The number of images that each call decodes."
    counts = []
    decode = tensors._decode

    def counting(files, rows, pixels, size):
        counts.append(len(rows))
        decode(files, rows, pixels, size)
    monkeypatch.setattr(tensors, "_decode", counting)
    return counts


def check(files, root):
    pixels = load_pixels(files, root)
    assert pixels.dtype == torch.uint8 and pixels.shape == (len(files), 28, 28)
    for file, row in zip(files, pixels, strict=True):
        assert (np.asarray(Image.open(file)) == row.numpy()).all()


def test_decoded_once_in_any_order(files, copy_of_digits, decoded):
    check(files, copy_of_digits)
    check(files[::-1], copy_of_digits)
    check(files[:7], copy_of_digits)
    assert decoded == [420, 0, 0]


def test_only_what_changed_is_decoded_again(files, copy_of_digits, decoded):
    check(files, copy_of_digits)
    Image.new("L", (28, 28), 7).save(files[3])
    check(files, copy_of_digits)
    added = files[0].with_name("added.png")
    Image.new("L", (28, 28), 9).save(added)
    check([added, *files], copy_of_digits)
    files.remove(added.with_name(files[5].name))
    os.replace(added, added.with_name("renamed.png"))
    check([added.with_name("renamed.png"), *files], copy_of_digits)
    assert decoded == [420, 1, 1, 1]


def test_a_file_of_the_same_size_and_date_in_anothers_place(files, copy_of_digits, decoded):
    for file in files:  # as an archive unpacks them
        Image.open(file).save(file, compress_level=0)
        os.utime(file, (909878400, 909878400))
    check(files, copy_of_digits)
    os.replace(files[50], files[3])
    files.pop(50)
    check(files, copy_of_digits)
    assert decoded == [420, 1]


def test_names_that_are_no_utf8(files, copy_of_digits, decoded):
    strange = files[0].with_name(os.fsdecode(b"zw\xf6lf\n.png"))
    files[0] = files[0].rename(strange)
    check(files, copy_of_digits)
    check(files, copy_of_digits)
    assert decoded == [420, 0]
    assert tensors.pixels_checksum(([strange.name], torch.zeros(1, 2, 2, dtype=torch.uint8)))


def test_splits_share_the_cache(files, copy_of_digits, decoded):
    training = [f for f in files if "training" in f.parts]
    testing = [f for f in files if "testing" in f.parts]
    for some in (training, testing, training, testing):
        check(some, copy_of_digits)
    assert decoded == [300, 120, 0, 0]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_cache_is_made_again(files, copy_of_digits, decoded, damage):
    check(files, copy_of_digits)
    cache = cache_file(copy_of_digits)
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-1000], "flip": content, "empty": b"", "other": b"PK not a cache"}
    cache.write_bytes(damaged[damage])
    check(files, copy_of_digits)
    check(files, copy_of_digits)
    assert decoded == [420, 420, 0]


def test_a_cache_runs_no_code(files, copy_of_digits):
    class Evil:
        def __reduce__(self): return os.mkdir, (str(copy_of_digits / "was here"),)
    cache = cache_file(copy_of_digits)
    cache.parent.mkdir(exist_ok=True)
    np.savez(cache, names=np.array([Evil()], dtype=object), stamps=np.zeros((1, 3), np.int64),
             pixels=np.zeros((1, 28, 28)))
    check(files, copy_of_digits)
    assert not (copy_of_digits / "was here").exists()


def test_a_cache_that_cannot_be_written(files, copy_of_digits, monkeypatch):
    def full(*args, **kwargs): raise OSError("disk full")
    monkeypatch.setattr(tensors.np, "savez", full)
    before = set(cache_file(copy_of_digits).parent.glob(".*"))
    check(files, copy_of_digits)
    assert not cache_file(copy_of_digits).exists()
    assert set(cache_file(copy_of_digits).parent.glob(".*")) == before


def test_two_processes_at_once(files, copy_of_digits, fastai_home):
    code = ("import sys; from pathlib import Path; "
            "from digitfast.data.pixel_cache import load_pixels; root = Path(sys.argv[1]); "
            "print(int(load_pixels(sorted(root.rglob('*.png')), root).sum()))")
    command = [sys.executable, "-W", "ignore", "-c", code, str(copy_of_digits)]
    environment = {**os.environ, "FASTAI_HOME": str(fastai_home)}
    both = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment)
            for _ in range(2)]
    sums = {process.communicate()[0] for process in both}
    assert sums == {f"{int(load_pixels(files, copy_of_digits).sum())}\n"}


def test_other_sizes_and_bad_images(files, copy_of_digits):
    assert load_pixels(files[:2], copy_of_digits, size=40).shape == (2, 40, 40)
    assert cache_file(copy_of_digits, 40) != cache_file(copy_of_digits)
    files[2].write_text("no image")
    with pytest.raises(BadImage, match=str(files[2])):
        load_pixels(files, copy_of_digits)
