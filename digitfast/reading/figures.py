"""What was read in a picture, drawn: the digits in their boxes, and the steps from the picture to
each of them.
"""
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from digitfast.data.pictures import read_picture
from digitfast.errors import BadSetting
from digitfast.reading.result import Digit, Reading

SURE = (0, 130, 60)  # colour of the boxes of sure digits: red, green, blue
UNSURE = (200, 90, 0)
PANEL = 480  # pixels of the longer side of a step


def check_figures(
    images: Iterable[str | Path],  # the pictures that are asked for
    *paths: str | Path | None,  # of the .png to draw one of them into
) -> None:
    "Raise `BadSetting` for paths that cannot be written to, and for several pictures per figure."
    wanted = [Path(path).absolute() for path in filter(None, paths)]
    for path in wanted:
        if path in [Path(image).absolute() for image in images] or wanted.count(path) > 1:
            raise BadSetting(f"{path} is named twice; name another file to draw into, such as "
                             f"{path.with_name(path.stem + '-drawn.png')}")
    for path in filter(None, paths):
        _check_png(path)
        if len(list(images)) != 1 or Path(*images).is_dir():
            raise BadSetting(f"{path} can show only one picture; name one at a time")


def _check_png(path: str | Path) -> None:
    is_path = isinstance(path, (str, os.PathLike))
    if (not is_path or Path(path).suffix.lower() != ".png"
            or not Path(path).absolute().parent.is_dir()):
        raise BadSetting(f"a figure must be written to a .png in an existing folder, not {path!r}")


def draw_boxes(
    picture,  # what `reading` was read from
    reading: Reading,
    path: str | Path,  # of the .png to write
) -> None:
    "Draw a box around each digit on the picture, with what it is above."
    _check_png(path)
    grey, scale = read_picture(picture)
    image = Image.fromarray(grey).convert("RGB")
    pen = ImageDraw.Draw(image)
    for digit in (digit for line in reading.lines for digit in line):
        left, top, right, bottom = (x * scale for x in digit.box)
        size = min(max(14, (bottom - top) / 4), 0.06 * max(grey.shape))
        colour = SURE if digit.label else UNSURE
        pen.rectangle((left - 3, top - 3, right + 3, bottom + 3), outline=colour,
                      width=max(2, round(size / 10)))
        text = f"{digit.label} {digit.probability:.0%}" if digit.label else f"{digit.guess}?"
        pen.text((left, max(0, top - 1.3 * size)), text, fill=colour,
                 font=ImageFont.load_default(size), stroke_width=2, stroke_fill="white")
    image.save(path)


def draw_steps(
    reading: Reading,
    path: str | Path,  # of the .png to write
) -> None:
    "Draw the picture, its ink, and each digit as the network saw it."
    _check_png(path)
    ink = Image.fromarray((255 * (1 - reading.ink.density)).round().astype("uint8"))
    panels = [("the picture, in grey", Image.fromarray(reading.grey)), ("ink", ink)]
    steps = [_titled(name, ImageOps.contain(panel.convert("RGB"), (PANEL, PANEL)))
             for name, panel in panels]
    digits = [_seen(digit) for line in reading.lines for digit in line]
    rows = [_beside(steps), *(_beside(digits[i:i + 12]) for i in range(0, len(digits), 12))]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)),
                      "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path)


def _seen(digit: Digit) -> Image.Image:
    "Return a digit in MNIST's form, below the answer for it."
    sure = (f"{digit.label}  {digit.probability:.1%}" if digit.label
            else f"{digit.answer} ({digit.guess}?)")
    return _titled(sure, Image.fromarray(digit.image).resize(
        (112, 112), Image.Resampling.NEAREST).convert("RGB"))


def _titled(title: str, image: Image.Image) -> Image.Image:
    "Return an image below its title."
    font = ImageFont.load_default(15)
    width = max(image.width, round(font.getlength(title)))
    sheet = Image.new("RGB", (width, image.height + 24), "white")
    ImageDraw.Draw(sheet).text((0, 3), title, fill="black", font=font)
    sheet.paste(image, (0, 24))
    return ImageOps.expand(sheet, 6, "white")


def _beside(images: Iterable[Image.Image]) -> Image.Image:
    "Return images side by side, in one."
    images = list(images)
    sheet = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet
