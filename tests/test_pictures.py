"Pictures in any form, good and bad, as grey pixels."
import io
import os
import resource
import struct
import subprocess
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from digitfast.data import pictures
from digitfast.data.pictures import fit_square, one_line_name, read_grey, read_picture
from digitfast.errors import BadImage

#: No two corners are alike.
BLOCKS = np.array([[10, 90, 170], [130, 210, 250]], np.uint8).repeat(16, 0).repeat(16, 1)
INK = np.zeros((40, 30), bool)
INK[8:32, 12:18] = True
#: How a picture of each EXIF orientation is turned upright.
TURNS = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
         6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90}


def encoded(image: Image.Image, form: str, **kwargs) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **kwargs)
    return file.getvalue()


def noise(size, mode="L") -> Image.Image:
    depth = (3,) if mode == "RGB" else ()
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (*size, *depth), dtype=np.uint8))


def pixels(picture) -> np.ndarray:
    grey, scale = read_picture(picture)
    assert grey.dtype == np.uint8
    assert grey.ndim == 2
    assert scale == 1
    return grey


def refused(picture, name: str, reason: str = "") -> None:
    "Check that both functions refuse the picture in one line that names it."
    for read in (read_picture, read_grey):
        with pytest.raises(BadImage) as caught:
            read(picture)
        message = str(caught.value)
        assert name in message
        assert reason in message
        assert message.isprintable()


def claims(form: str, side: int) -> bytes:
    "A small file of this format whose header claims `side` × `side` pixels."
    data = bytearray(encoded(Image.new("L", (9, 7), 128), form))
    if form == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at:at + 4] = struct.pack(">HH", side, side)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif form == "TGA":
        data[12:16] = struct.pack("<HH", side, side)
    else:
        data = f"P5 {side} {side} 255\n".encode() + b"x" * 99
    return bytes(data)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", TURNS)
def test_upright_as_the_camera_says(orientation, form):
    exif = Image.Exif()
    exif[0x112] = orientation
    # only WEBP knows `lossless`
    data = encoded(Image.fromarray(BLOCKS).convert("RGB"), form, exif=exif, lossless=True)
    upright = TURNS[orientation](BLOCKS)
    for picture in (data, Image.open(io.BytesIO(data))):
        assert pixels(picture).shape == upright.shape
        assert np.abs(pixels(picture).astype(int) - upright).max() <= (6 if form == "JPEG" else 0)
    assert np.asarray(read_grey(data)).shape == upright.shape


@pytest.mark.parametrize("exif", [
    b"garbage", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0"], ids=str)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_damaged_metadata_leaves_the_picture_readable(form, exif):
    assert pixels(encoded(Image.fromarray(BLOCKS), form, exif=exif)).shape == BLOCKS.shape


def test_a_picture_of_the_callers_is_not_changed():
    image = Image.fromarray(BLOCKS).convert("RGBA")
    image.getexif()[0x112] = 6
    before = image.tobytes()
    assert pixels(image).shape == (48, 32)
    assert image.size == (48, 32)
    assert image.mode == "RGBA"
    assert image.tobytes() == before
    assert image.getexif()[0x112] == 6


@pytest.mark.parametrize("ink, paper", [(20, 255), (0, 255), (100, 255), (235, 0), (255, 0)])
@pytest.mark.parametrize("below", [0, 255])
def test_ink_on_nothing_lies_on_paper(ink, paper, below):
    grey = np.where(INK, ink, below).astype(np.uint8)
    opaque = np.where(INK, 255, 0).astype(np.uint8)
    wanted = np.where(INK, ink, paper)
    two = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(opaque)])
    four = Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.fromarray(opaque)])
    palette = Image.fromarray(INK.astype(np.uint8)).convert("P")
    palette.putpalette([below] * 3 + [ink] * 3 + [0] * 762)
    palette.info["transparency"] = 0
    for picture in (two, four, palette, palette.convert("PA"), encoded(two, "PNG"),
                    encoded(four, "PNG"), encoded(palette, "PNG"),
                    encoded(palette, "PNG", transparency=b"\0\xff"), encoded(palette, "GIF"),
                    encoded(four, "WEBP", lossless=True), encoded(four, "TIFF")):
        assert (pixels(picture) == wanted).all()


def test_half_transparent_ink_is_half_as_dark():
    image = Image.new("RGBA", (20, 20))
    image.paste((0, 0, 0, 128), (5, 5, 15, 15))
    assert np.unique(pixels(image)).tolist() == [127, 255]


@pytest.mark.parametrize("paper, ink", [(255, 0), (0, 255), (250, 20), (140, 90)])
def test_what_is_opaque_stays_as_it_is(paper, ink):
    grey = np.where(INK, ink, paper).astype(np.uint8)
    image = Image.fromarray(grey)
    image.putalpha(255)
    for picture in (image, image.convert("RGBA"), encoded(image, "PNG"),
                    encoded(image.convert("RGBA"), "PNG")):
        assert (pixels(picture) == grey).all()
    image.putalpha(200)  # at least half opaque everywhere: the picture has paper already
    assert pixels(image)[0, 0] >= paper


def test_empty_and_wholly_transparent():
    assert (pixels(Image.new("RGBA", (9, 9))) == 255).all()


def test_colour_that_stands_for_nothing():
    grey = np.where(INK, 30, 0).astype(np.uint8)
    image = Image.fromarray(grey)
    for picture, key in ((image, 0), (image.convert("RGB"), (0, 0, 0))):
        assert (pixels(encoded(picture, "PNG", transparency=key)) == np.where(INK, 30, 255)).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits(form):
    deep = BLOCKS.astype(np.uint16) * 257
    assert (pixels(encoded(Image.fromarray(deep), form)) == BLOCKS).all()
    # the nearest level, not the next one below
    assert (pixels(encoded(Image.fromarray(deep + 100), form)) == BLOCKS).all()
    exif = Image.Exif()
    exif[0x112] = 6
    assert (pixels(encoded(Image.fromarray(deep), form, exif=exif)) == np.rot90(BLOCKS, -1)).all()


def test_twelve_bits_in_sixteen():
    grey = pixels(encoded(Image.fromarray(BLOCKS.astype(np.uint16) * 16), "TIFF"))
    assert np.abs(grey - BLOCKS.astype(float)).max() <= 1


def test_whole_numbers_beyond_sixteen_bits_are_cut_off():
    values = np.array([[-5, 0], [65535, 2**31 - 1]], np.int32)
    assert pixels(encoded(Image.fromarray(values), "TIFF")).tolist() == [[0, 0], [255, 255]]


def test_floats():
    levels = BLOCKS.astype(np.float32)
    shares = levels / 250
    assert np.abs(pixels(encoded(Image.fromarray(shares), "TIFF")) - shares * 255).max() <= 1
    assert (pixels(encoded(Image.fromarray(levels), "TIFF")) == BLOCKS).all()
    assert np.abs(pixels(Image.fromarray(levels * 200)) - shares * 255).max() <= 1
    strange = levels.copy()
    strange[0, :3] = np.nan, -np.inf, -3
    assert pixels(encoded(Image.fromarray(strange), "TIFF"))[0, :4].tolist() == [0, 0, 0, 10]
    strange[1, 1] = np.inf
    assert pixels(Image.fromarray(strange))[1, 1] == 255


def test_floats_of_the_callers_are_not_changed():
    values = BLOCKS.astype(np.float32) / 255
    image = Image.fromarray(values)
    pixels(image)
    assert (np.asarray(image) == values).all()


GREY = Image.fromarray(BLOCKS)


@pytest.mark.parametrize("picture", [
    *(GREY.convert(mode) for mode in ("L", "P", "RGB", "RGBA", "RGBX", "LA", "CMYK", "F")),
    GREY.convert("I").point(lambda value: value * 257), GREY.convert("RGBA").convert("RGBa"),
    *(encoded(GREY.convert(mode), form)
      for mode in ("L", "P", "RGB") for form in ("PNG", "GIF", "BMP", "TGA", "TIFF")),
    encoded(GREY, "PPM"), encoded(GREY.convert("CMYK"), "TIFF"),
    encoded(GREY, "TIFF", compression="tiff_lzw"),
    encoded(GREY, "JPEG2000"), encoded(GREY.convert("RGB"), "ICO", sizes=[GREY.size]),
    encoded(GREY.convert("RGB"), "WEBP", lossless=True),
    BLOCKS, BLOCKS[None], BLOCKS[..., None], np.stack([BLOCKS] * 3, -1), BLOCKS.astype(int),
    BLOCKS / 255, BLOCKS[:, ::-1].copy()[:, ::-1], np.asfortranarray(BLOCKS),
    BLOCKS.astype(">i4"), BLOCKS.tolist(), np.stack([BLOCKS] * 3),
    np.dstack([BLOCKS] * 3 + [np.full_like(BLOCKS, 255)]),
    torch.tensor(BLOCKS).expand(3, -1, -1), io.BytesIO(encoded(GREY, "PNG")),
    torch.tensor(BLOCKS), torch.tensor(BLOCKS / 255, requires_grad=True),
    torch.tensor(BLOCKS)[None].float() / 255,
], ids=lambda p: (str(p[:12]) if isinstance(p, bytes)
                  else f"{type(p).__name__} {getattr(p, 'mode', '')}"))
def test_every_form_gives_the_same_pixels(picture):
    assert (pixels(picture) == BLOCKS).all()


@pytest.mark.parametrize("picture, error", [
    (GREY.convert("YCbCr"), 1), (GREY.convert("RGB").convert("HSV"), 1),
    (torch.tensor(BLOCKS / 255).bfloat16(), 1), ((BLOCKS / 255).astype(np.float16), 1),
    *((encoded(GREY.convert(mode), "JPEG", quality=95), 4) for mode in ("L", "RGB", "CMYK")),
    (encoded(GREY.convert("RGB"), "WEBP", quality=95), 8),
], ids=lambda p: type(p).__name__)
def test_forms_that_lose_a_little(picture, error):
    assert np.abs(pixels(picture).astype(int) - BLOCKS).max() <= error


def test_one_bit():
    image = Image.fromarray(np.where(INK, 0, 255).astype(np.uint8)).convert("1")
    for picture in (image, encoded(image, "PNG"), encoded(image, "TIFF", compression="group4"),
                    ~INK, torch.tensor(~INK)):
        assert (pixels(picture) == np.where(INK, 0, 255)).all()


def test_of_an_animation_the_first_image():
    frames = [Image.new("L", (20, 10), grey) for grey in (200, 100, 0)]
    for form, more in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {}),
                       ("MPO", {})):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **more)
        assert (pixels(data) == 200).all()


@pytest.mark.parametrize("form, mode, kwargs", [
    ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"keep_rgb": True}), ("MPO", "RGB", {}), ("PNG", "L", {})])
def test_large_pictures_come_back_smaller(form, mode, kwargs):
    image = Image.new("L", (4000, 3000), 250)
    image.paste(10, (2400, 600, 2800, 1800))
    grey, scale = read_picture(encoded(image.convert(mode), form, **kwargs))
    assert grey.shape == (1500, 2000)
    assert scale == 0.5
    inside = np.zeros(grey.shape, bool)
    inside[300:900, 1200:1400] = True
    assert np.abs(grey[inside] - 10.0).max() < 30
    assert np.abs(grey[~inside] - 250.0).mean() < 2


@pytest.mark.parametrize("size", [
    (2000, 1), (2001, 3), (1, 6001), (5001, 3999), (4032, 3024), (3100, 3100), (9000, 12000),
    (3582, 100), (40000, 1500)])
def test_sides_and_scale_of_large_pictures(size):
    for form in ("JPEG", "PNG"):
        grey, scale = read_picture(encoded(Image.new("L", size, 200), form))
        assert min(size[0] * size[1], 2_000_000) <= grey.size <= 3_000_000
        assert scale == pytest.approx(max(grey.shape) / max(size))
        assert (np.abs(grey - 200.0) <= 1).all()
        for side, full in zip(grey.shape[::-1], size, strict=True):
            assert abs(side - full * scale) < 1


def test_a_large_turned_photo_keeps_its_scale():
    exif = Image.Exif()
    exif[0x112] = 6
    grey, scale = read_picture(encoded(Image.new("RGB", (4000, 3000)), "JPEG", exif=exif))
    assert grey.shape == (2000, 1500)
    assert scale == 0.5


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("tenths", range(10))
def test_truncated(tmp_path, form, tenths):
    whole = encoded(noise((60, 80), "RGB"), form)
    file = tmp_path / "cut.png"
    file.write_bytes(whole[:len(whole) * tenths // 10])
    refused(file, str(file))
    refused(file.read_bytes(), f"{file.stat().st_size} bytes")
    if tenths > 5:
        with pytest.raises(BadImage, match="the PIL image"):
            read_picture(Image.open(file))  # Pillow reads the pixels only now


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TGA", "PPM"])
def test_headers_that_claim_too_much(form):
    "They are refused at once, before memory is taken for the pixels."
    data = claims(form, 50_000)
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    try:
        refused(data, f"{len(data)} bytes", "178,000,000")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 2
    # kB, Pillow's pixels included
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("side", [12_000, 13_000])
def test_headers_that_claim_as_much_as_is_allowed(side):
    "The pixels are not there, so none of them is worked on."
    start = time.monotonic()
    refused(claims("PNG", side), "bytes", "damaged")
    assert time.monotonic() - start < 5


def test_too_many_pixels(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 32 - 1)
    file = tmp_path / "large.png"
    file.write_bytes(encoded(Image.fromarray(BLOCKS), "PNG"))
    refused(file, str(file), "48 × 32 pixels; allowed are 1 to 1,535")
    with pytest.raises(BadImage, match="the PIL image has 48 × 32 pixels"):
        read_picture(Image.fromarray(BLOCKS))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 32)
    assert pixels(file).shape == BLOCKS.shape


def test_the_limit_is_one_that_pillow_lets_through():
    assert pictures.MAX_PIXELS <= 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("content", [
    b"", b"\0", b"\x89", b"no image", b"P5", b"GIF89a", b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n", b"BM" + bytes(99), bytes(10_000), b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 99, "Größe 10\n" * 1000,
], ids=lambda c: repr(c[:20]))
def test_what_is_no_image(tmp_path, content):
    file = tmp_path / "picture.png"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(file, str(file), "it is not an image, or it is damaged")
    refused(file.read_bytes(), f"{file.stat().st_size} bytes")


SVG = (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
       b'<image href="file:///etc/passwd"/></svg>')


@pytest.mark.parametrize("content", [
    encoded(Image.new("L", (20, 20)), "EPS"), encoded(Image.new("L", (20, 20)), "PDF"), SVG,
    b"%!PS\n(/tmp/x) (w) file\n", b"\xd7\xcd\xc6\x9a" + bytes(80),
], ids=["EPS", "PDF", "SVG", "PostScript", "WMF"])
def test_no_other_program_is_started(tmp_path, monkeypatch, content):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")  # as if it were installed
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    monkeypatch.setattr(os, "system", started.append)
    for name in ("picture.png", "picture.eps", "picture.pdf"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name)
    assert not started


def test_one_pixel():
    for form in ("PNG", "JPEG", "GIF", "BMP"):
        assert pixels(encoded(Image.new("L", (1, 1), 77), form)).shape == (1, 1)
    assert pixels(np.zeros((1, 1))).tolist() == [[0]]


@pytest.mark.parametrize("name", [
    "two words.png", "zwölf 数字.png", "line\nend.png", "tab\t.png", "-x.png", "'\".png",
    "right\u202eleft.png", os.fsdecode(b"no utf-8 \xff.png")], ids=ascii)
def test_any_name(tmp_path, name):
    file = tmp_path / name
    refused(file, one_line_name(file), "No such file or directory")
    refused(str(file), one_line_name(file), "No such file or directory")
    file.write_bytes(b"no image")
    refused(file, one_line_name(file), "it is not an image")
    file.write_bytes(encoded(Image.fromarray(BLOCKS), "PNG"))
    assert (pixels(file) == BLOCKS).all()
    assert (pixels(str(file)) == BLOCKS).all()


def test_names_as_they_are_shown():
    assert one_line_name("two words é.png") == "two words é.png"
    assert one_line_name(Path("a/b.png")) == "a/b.png"
    assert one_line_name("a\nb") == r"'a\nb'"
    assert one_line_name("") == "''"


@pytest.mark.parametrize("name, shown, reason", [
    ("null\0byte.png", r"'null\x00byte.png'", "null"), ("x" * 5000, "xxx", "too long"),
    ("", "''", "No such file"), ("absent/x.png", "absent/x.png", "No such file"),
    ("/dev/null/x.png", "/dev/null/x.png", "Not a directory"),
    ("/dev/null", "/dev/null", "not an image"), (".", ".", "directory"),
], ids=["null byte", "long", "empty", "absent", "under a file", "device", "directory"])
def test_names_of_no_picture(tmp_path, monkeypatch, name, shown, reason):
    monkeypatch.chdir(tmp_path)
    refused(name, shown, reason)


def test_file_without_permission(tmp_path, monkeypatch):
    file = tmp_path / "secret.png"
    file.write_bytes(encoded(Image.fromarray(BLOCKS), "PNG"))

    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", denied)
        refused(file, str(file), "Permission denied")
    monkeypatch.setattr(Image, "open", denied)
    refused(file, str(file), "Permission denied")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_only_others_may_read(tmp_path):
    file = tmp_path / "secret.png"
    file.write_bytes(encoded(Image.fromarray(BLOCKS), "PNG"))
    file.chmod(0)
    refused(file, str(file), "Permission denied")


@pytest.mark.parametrize("error", [
    MemoryError(), RecursionError(), struct.error("x"), IndexError(), OSError("x"),
    AssertionError(), ZeroDivisionError(), SyntaxError("x"), EOFError()], ids=repr)
def test_whatever_a_decoder_meets(monkeypatch, error):
    def fail(*args):
        raise error
    data = encoded(Image.fromarray(BLOCKS), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    refused(data, f"{len(data)} bytes", "it is not an image, or it is damaged")


def test_ctrl_c_is_no_bad_image(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_picture(encoded(Image.fromarray(BLOCKS), "PNG"))


def closed() -> Image.Image:
    image = Image.new("L", (9, 9))
    image.close()
    return image


@pytest.mark.parametrize("picture", [
    Image.new("L", (0, 0)), Image.new("RGB", (0, 5)), closed(), Image.new("LAB", (9, 9)), None, 3,
    "", {}, object(), [[1, 2], [3]], [["a"]], np.zeros((0, 9)), np.zeros((2, 9, 9)),
    np.zeros((9, 9, 5)), np.zeros((1, 1, 9, 9)), np.zeros((9, 9), complex),
    np.zeros((9, 9), object), np.full((9, 9), "a"), np.full((9, 9), np.nan),
    np.full((9, 9), np.inf), np.full((9, 9), 1.1), np.full((9, 9), -1), np.full((9, 9), 256),
    np.zeros((9, 9), "datetime64[s]"), np.zeros(9, "u1,u1"), torch.zeros(9, 9).to_sparse(),
    torch.zeros(9, 9, device="meta"), torch.zeros(9, 9, dtype=torch.complex64), bytearray(b"x"),
    io.BytesIO(b"x"),
], ids=lambda p: f"{type(p).__name__} {getattr(p, 'shape', '')}{getattr(p, 'dtype', '')}")
def test_what_is_no_picture(picture):
    with pytest.raises(BadImage) as caught:
        read_picture(picture)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("size", [(28, 28), (1, 1), (1, 28), (9, 280), (3000, 1), (1, 3000)])
def test_fit_square_takes_any_proportions(size):
    assert fit_square(Image.new("L", size, 255), 28).size == (28, 28)


def test_open_files(tmp_path):
    GREY.save(tmp_path / "x.png")
    with open(tmp_path / "x.png", "rb") as file:
        assert (pixels(file) == BLOCKS).all()
    with open(tmp_path / "x.png") as file, pytest.raises(BadImage, match='open as text.*mode "rb"'):
        read_picture(file)


@pytest.mark.parametrize(("form", "words"), [
    ("TIFF", "has 3 pages"), ("GIF", "has several images")])
def test_further_pages_are_reported(tmp_path, form, words):
    others = [Image.new("L", GREY.size, shade) for shade in (10, 200)]
    GREY.save(tmp_path / "x", form, save_all=True, append_images=others)
    with pytest.warns(UserWarning, match=f"{tmp_path / 'x'} {words}; only the first is read"):
        assert (pixels(tmp_path / "x") == BLOCKS).all()


def test_one_page_is_not_reported(tmp_path, recwarn):
    for form in ("TIFF", "GIF", "PNG", "WEBP"):
        pixels(encoded(GREY, form))
    assert not recwarn.list


def test_of_a_pdf_the_way_to_its_pages_is_named(tmp_path):
    (tmp_path / "form.png").write_bytes(b"%PDF-1.4 and so on")
    words = "form.png is a PDF, which has pages: .*document_pages"
    with pytest.raises(BadImage, match=words):
        read_picture(tmp_path / "form.png")
