"""Whatever is given to them, the readers answer in their contract's terms or raise `BadImage`.

The inputs are arrays of any shape, dtype and values; drawings and noise; PIL images of any mode;
random bytes; image files with bytes changed, cut out and put in; names. By default there are some
1,600 of them, always the same. `DIGITFAST_EXAMPLES=20 pytest -s tests/test_properties.py` tries 20
times as many, different ones each time, and prints how
many there were, how many were refused, and the slowest.
"""
import io
import math
import os
import resource
import struct
import tempfile
import time
import zlib
from collections import Counter

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from digitfast.data.pictures import read_picture
from digitfast.errors import BadImage
from digitfast.inference.predictor import Predictor
from digitfast.inference.torch_network import TorchNetwork
from digitfast.reading.reader import read_digit, read_digits
from digitfast.reading.result import Digit, Reading

MANY = int(os.environ.get("DIGITFAST_EXAMPLES", "1"))
LONGEST_SECONDS = 60
SEEN: Counter = Counter()
SLOWEST: list[tuple[float, str]] = []


def tries(n: int) -> settings:
    return settings(max_examples=n * MANY, derandomize=MANY == 1, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def report():
    yield
    if MANY > 1:
        print(f"\n{sum(SEEN.values()):,} inputs ({dict(SEEN)}), peak memory "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB; slowest:")
        print("\n".join(f"{seconds:6.2f} s  {what}" for seconds, what in sorted(SLOWEST)[:-11:-1]))


@pytest.fixture(autouse=True)
def some_are_read(request):
    "Where all inputs are refused, nothing is shown of the answers."
    before = sum(SEEN[how] for how in ("read", "without a digit"))
    yield
    if request.node.name in (
        "test_arrays",
        "test_images_of_any_mode",
        "test_damaged_files",
        "test_packed_network",
    ):
        assert sum(SEEN[how] for how in ("read", "without a digit")) > before + 10
        assert request.node.name != "test_packed_network" or SEEN["read"]


def stub() -> Predictor:
    "A network that has learnt nothing, and so says anything."
    torch.manual_seed(0)
    linear = torch.nn.Linear(28 * 28, 10)
    with torch.no_grad():
        linear.weight.mul_(10)
    return Predictor(
        TorchNetwork(torch.nn.Sequential(torch.nn.Flatten(), linear)),
        list("0123456789"),
        no_digit=True,
    )


STUB = stub()
configuration.set_hypothesis_home_dir(
    os.path.join(tempfile.gettempdir(), "hypothesis")
)  # not beside the tests


# What is given ------------------------------------------------------------------------------


def drawing(seed: int, h: int, w: int) -> np.ndarray:
    "A page of uint8 `[h, w]`: strokes, letters, lines, grain, uneven light, or mere noise."
    rng = np.random.default_rng(seed)
    kind = rng.integers(6)
    if kind == 0:
        return rng.integers(0, 256, (h, w), dtype=np.uint8)
    if kind == 1:
        return (rng.random((h, w)) < rng.random() ** 2).astype(np.uint8) * 255
    paper, ink = (int(x) for x in rng.integers(0, 256, 2))
    page = Image.new("L", (w, h), paper)
    pen = ImageDraw.Draw(page)
    for _ in range(rng.integers(1, 30)):
        points = [
            (int(rng.integers(-9, w + 9)), int(rng.integers(-9, h + 9)))
            for _ in range(rng.integers(2, 5))
        ]
        how = rng.integers(4)
        if how == 0:
            text = str(rng.integers(0, 10**rng.integers(1, 6)))
            pen.text(points[0], text, fill=ink, font_size=rng.integers(5, h + 9))
        elif how == 1:
            pen.ellipse(
                [*np.minimum(points[0], points[1]), *np.maximum(points[0], points[1])],
                outline=ink,
                width=3,
            )
        elif how == 2 and kind == 2:
            pen.line([(0, points[0][1]), (w, points[1][1])], fill=ink)
        else:
            pen.line(points, fill=ink, width=int(rng.integers(1, 9)))
    pixels = np.asarray(page).astype(float)
    if kind >= 4:
        pixels = pixels * np.linspace(rng.random(), 1, w) + rng.normal(
            0, rng.integers(0, 30), (h, w)
        )
    return pixels.clip(0, 255).astype(np.uint8)


def forms(page: np.ndarray, how: int):
    "The page in one of the forms that pictures come in; some of them are none."
    return [
        page,
        page / 255,
        page > 99,
        np.stack([page] * 3, -1),
        page[None],
        page[..., None],
        page[::-1, ::-1],
        page.T,
        page.astype(np.int64) - 1,
        page.astype(np.float32),
        torch.tensor(page),
        torch.tensor(page / 255).bfloat16(),
        page.astype(np.uint16) * 257,
        np.stack([page] * 4, -1),
        page.tolist(),
    ][how]


seeds, sides = (
    st.integers(0, 2**32),
    st.integers(1, 200) | st.sampled_from([1, 2, 27, 28, 63, 64, 65]),
)
pages = st.builds(drawing, seeds, sides, sides)
any_arrays = hnp.arrays(
    hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)
)
byte_arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))
arrays = st.builds(forms, pages, st.integers(0, 14)) | any_arrays | byte_arrays
modes = st.sampled_from(
    [
        "1",
        "L",
        "LA",
        "I",
        "F",
        "P",
        "PA",
        "RGB",
        "RGBX",
        "RGBA",
        "RGBa",
        "La",
        "CMYK",
        "YCbCr",
        "HSV",
        "LAB",
        "I;16",
        "I;16B",
    ]
)


def of_mode(
    page: np.ndarray, mode: str, orientation: int, opacity: int, key: int | None
) -> Image.Image:
    "The page as an image of that mode; in part transparent, where the mode has that."
    h, w = page.shape
    bands = Image.getmodebands(mode)
    if mode in ("1", "P"):
        image = Image.fromarray(page).convert(mode)
    elif mode in ("I", "F"):
        image = Image.fromarray(
            page.astype(np.int32 if mode == "I" else np.float32) * (key or 1) / 9
        )
    elif mode.startswith("I;"):
        image = Image.frombytes(mode, (w, h), (page.astype("<u2") * 257).tobytes())
    else:
        raw = np.stack([np.roll(page, opacity, i % 2) for i in range(bands)], -1)
        image = Image.frombytes(mode, (w, h), raw.tobytes())
    if key is not None and mode in ("L", "P", "1"):
        image.info["transparency"] = key
    if orientation:
        image.getexif()[0x112] = orientation
    return image


pil_images = st.builds(
    of_mode, pages, modes, st.integers(0, 9), st.integers(0, 255), st.none() | st.integers(0, 255)
)


def encodings() -> dict[str, bytes]:
    "A small file of each format, and of the ways that it can be written in."
    files = {}
    for seed, (h, w) in enumerate([(90, 110), (30, 24)]):
        page = Image.fromarray(drawing(seed + 30, h, w))
        colour, clear = page.convert("RGB"), page.convert("RGB")
        clear.putalpha(page.point(lambda value: 255 - value))
        deep = Image.fromarray(np.asarray(page) * np.uint16(257))
        exif = Image.Exif()
        exif[0x112] = 6
        for name, image, form, kwargs in [
            ("png", page, "PNG", {"exif": exif}),
            ("png rgb", colour, "PNG", {}),
            ("png rgba", clear, "PNG", {}),
            ("png palette", page.convert("P"), "PNG", {"transparency": bytes(range(256))}),
            ("png 16", deep, "PNG", {}),
            ("png 1", page.convert("1"), "PNG", {}),
            ("jpeg", colour, "JPEG", {"exif": exif}),
            ("jpeg grey", page, "JPEG", {}),
            ("jpeg progressive", colour, "JPEG", {"progressive": True}),
            ("jpeg cmyk", page.convert("CMYK"), "JPEG", {}),
            (
                "gif",
                page,
                "GIF",
                {"save_all": True, "append_images": [page.point(lambda v: 255 - v)]},
            ),
            ("bmp", page, "BMP", {}),
            ("bmp rgb", colour, "BMP", {}),
            ("tga", page, "TGA", {"compression": "tga_rle"}),
            ("tiff", page, "TIFF", {"exif": exif}),
            ("tiff lzw", page, "TIFF", {"compression": "tiff_lzw"}),
            ("tiff g4", page.convert("1"), "TIFF", {"compression": "group4"}),
            ("tiff 16", deep, "TIFF", {}),
            ("tiff jpeg", page, "TIFF", {"compression": "jpeg"}),
            ("tiff float", page.convert("F"), "TIFF", {}),
            ("webp", colour, "WEBP", {"exif": exif}),
            ("webp lossless", clear, "WEBP", {"lossless": True}),
            (
                "webp frames",
                clear,
                "WEBP",
                {"save_all": True, "append_images": [page.convert("RGBA")]},
            ),
            ("ico", clear, "ICO", {"sizes": [(24, 24)]}),
            ("ppm", page, "PPM", {}),
            ("jpeg2000", page, "JPEG2000", {}),
        ]:
            file = io.BytesIO()
            image.save(file, form, **kwargs)
            files[f"{name} {w}×{h}"] = file.getvalue()
    return files


FILES = encodings()


def changed(data: bytes, changes: list[tuple], checksums: bool) -> bytes:
    """`data` with bytes set, flipped, cut out, put in or repeated.

    The checksums of a PNG may be corrected afterwards."""
    for how, place, value, more in changes:
        at = int(place * len(data)) if isinstance(place, float) else min(place, len(data))
        rest = data[at:]
        rest = {
            "set": bytes([value]) + rest[1:],
            "flip": bytes(b ^ (1 << value % 8) for b in rest[:1]) + rest[1:],
            "cut": rest[len(more) + 1 :],
            "end": b"",
            "insert": more + rest,
            "overwrite": more + rest[len(more) :],
            "repeat": rest[:value] + rest,
            "zero": bytes(len(rest[:value])) + rest[value:],
            "large": b"\xff" * 2 + rest[2:],
        }[how]
        data = data[:at] + rest
    return with_right_checksums(data) if checksums and data[:4] == b"\x89PNG" else data


def with_right_checksums(png: bytes) -> bytes:
    "So that what was changed in a PNG gets to the decoder."
    done, at = png[:8], 8
    while at + 12 <= len(png):
        n = min(struct.unpack(">I", png[at:at + 4])[0], len(png) - at - 12)
        body = png[at + 4:at + 8 + n]
        done += struct.pack(">I", n) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + n
    return done


hows = st.sampled_from(
    ["set", "set", "flip", "flip", "cut", "end", "insert", "overwrite", "repeat", "zero", "large"]
)
changes = st.lists(
    st.tuples(
        hows, st.floats(0, 1) | st.integers(0, 80), st.integers(0, 255), st.binary(max_size=9)
    ),
    min_size=1,
    max_size=6,
)
damaged = st.builds(changed, st.sampled_from(list(FILES.values())), changes, st.booleans())
starts = st.sampled_from([data[:n] for data in FILES.values() for n in (2, 8, 30, 80)])
any_bytes = st.binary(max_size=3000) | st.builds(
    lambda start, rest: start + rest, starts, st.binary(max_size=500)
)
names = st.text(max_size=40) | st.sampled_from(
    ["\0", "..", "a/../..", "\n", "/dev/null", "~", "x" * 300, "\udcff"]
)


# What comes back ----------------------------------------------------------------------------


def check(picture, one: bool, predictor: Predictor = STUB) -> None:
    "Read `picture`; the answer keeps its contract, or it is refused in one line."
    start = time.monotonic()
    try:
        if one:
            reading = read_digit(picture, predictor)
            digit = reading.digit
        else:
            digit, reading = None, read_digits(picture, predictor)
    except BadImage as e:
        assert str(e).isprintable() and str(e)
        SEEN["refused"] += 1
        return
    finally:
        SLOWEST.append((time.monotonic() - start, described(picture)))
        SLOWEST.sort(reverse=True)
        del SLOWEST[10:]
    assert time.monotonic() - start < LONGEST_SECONDS
    SEEN["read" if reading.lines else "without a digit"] += 1
    check_reading(reading, picture, predictor)
    if digit is not None:
        assert any(digit is d for line in reading.lines for d in line)


def check_reading(reading: Reading, picture, predictor: Predictor) -> None:
    grey, density = reading.grey, reading.ink.density
    assert grey.dtype == np.uint8 and grey.ndim == 2 and grey.size <= 3_000_000
    assert (
        density.shape == grey.shape and density.min(initial=0) >= 0 and density.max(initial=0) <= 1
    )
    assert density.dtype == np.float32
    h, w = grey.shape
    if max(h, w) > 1000:  # it may have been larger; the sides of a smaller one are rounded up
        scale = read_picture(picture)[1]
        h, w = math.ceil(h / scale), math.ceil(w / scale)
    for line in reading.lines:
        assert line
        for digit in line:
            check_digit(digit, h, w, predictor)
    assert len(reading.text.split("\n")) == max(1, len(reading.lines))
    assert set(reading.text) <= set("0123456789?.,'-:/ \n")
    assert all(digit.label is not None for digit in reading.digits)


def check_digit(digit: Digit, h: int, w: int, predictor: Predictor) -> None:
    left, top, right, bottom = digit.box
    assert all(type(x) is int for x in digit.box)
    assert 0 <= left < right <= w and 0 <= top < bottom <= h
    assert digit.image.dtype == np.uint8 and digit.image.shape == (28, 28)
    chances = [*digit.probabilities.values(), digit.no_digit]
    assert all(math.isfinite(p) and 0 <= p <= 1 for p in chances) and math.isclose(
        sum(chances), 1, abs_tol=1e-6
    )
    assert list(digit.probabilities) == predictor.vocab
    assert (
        digit.probability == max(digit.probabilities.values()) == digit.probabilities[digit.guess]
    )
    assert digit.label == (digit.guess if digit.probability >= predictor.threshold else None)
    assert digit.answer in (*predictor.vocab, "unsure", "no digit")


def described(picture) -> str:
    if isinstance(picture, bytes):
        return f"{len(picture)} bytes, {picture[:30]!r}"
    return f"{type(picture).__name__} {getattr(picture, 'size', '')} {getattr(picture, 'mode', '')}"


@tries(500)
@given(arrays, st.booleans())
def test_arrays(picture, one):
    check(picture, one)


@tries(200)
@given(pil_images, st.booleans())
def test_images_of_any_mode(picture, one):
    check(picture, one)


@tries(200)
@given(any_bytes, st.booleans())
def test_bytes(picture, one):
    check(picture, one)


@tries(600)
@given(damaged, st.booleans())
def test_damaged_files(picture, one):
    check(picture, one)


@tries(60)
@given(names, st.booleans())
def test_names(name, one):
    check(os.path.join("/tmp/there is no such folder", name), one)


@tries(60)
@given(pages, st.booleans())
def test_packed_network(page, one):
    check(page, one, Predictor.packed())


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_as_long_as_they_are_whole(name):
    "Else damage would prove nothing."
    assert read_picture(FILES[name])[0].size
