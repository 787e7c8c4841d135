"""Read a folder of real pictures with other programs: `python benchmarks/peers.py FOLDER`.

FOLDER has a `truth.tsv`, as for `digitfast evaluate --sets FOLDER`. The peers are RapidOCR
(`pip install rapidocr-onnxruntime`, with its default networks), which takes a picture of one digit
for one line of text, as its text detection misses most, and Tesseract (Debian's `tesseract-ocr`),
which is told to look for digits only; one that is not installed is left out. Both get tiny pictures
enlarged, as they find no text of 28 pixels, and what is no digit in their answers is left out.
"""
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from digitfast import read_digit, read_digits
from digitfast.evaluation.accuracy import edit_distance
from digitfast.evaluation.real_pictures import RealPicture, real_pictures

#: What a reader sees in a picture: its lines of digits, from the top.
Read = Callable[[RealPicture], list[str]]
#: Kinds that are no upright handwriting.
LEFT_OUT = ("printed", "sudoku", "sideways")


def main(folder: str) -> None:
    pictures = [p for p in real_pictures(folder) if p.kind not in LEFT_OUT]
    singles = [p for p in pictures if p.is_single]
    several = [p for p in pictures if not p.is_single]
    print(f"{len(singles)} pictures of one digit, {len(several)} of several")
    print(f"{'reader':12} {'one digit, right':>16}  {'digits, right':>13}  {'pictures, right':>15}")
    for name, read in readers():
        right = sum(read(p) == [p.truth] for p in singles) / max(1, len(singles))
        digits = wrong = whole = 0
        for picture in several:
            lines = read(picture)
            truth = picture.truth.split("/")
            digits += len("".join(truth))
            wrong += edit_distance("".join(lines), "".join(truth))
            whole += lines == truth
        print(f"{name:12} {right:16.2%}  {1 - wrong / max(1, digits):13.2%}  "
              f"{whole / max(1, len(several)):15.2%}", flush=True)


def readers() -> list[tuple[str, Read]]:
    "Return digitfast and those of its peers that are installed, by name."
    found: list[tuple[str, Read]] = [("digitfast", with_digitfast)]
    if find_spec("rapidocr_onnxruntime"):
        found.append(("RapidOCR", rapidocr()))
    if shutil.which("tesseract"):
        found.append(("Tesseract", with_tesseract))
    return found


def with_digitfast(picture: RealPicture) -> list[str]:
    if picture.is_single:
        digit = read_digit(picture.path).digit
        return [digit.label] if digit is not None and digit.label else []
    return digits_only(read_digits(picture.path).text.split("\n"), also="?")


def rapidocr() -> Read:
    from rapidocr_onnxruntime import RapidOCR
    engine = RapidOCR()

    def read(picture: RealPicture) -> list[str]:
        image = np.asarray(as_shown(picture.path))
        if picture.is_single:
            found, _ = engine(image, use_det=False, use_cls=False)
            return digits_only([text for text, _ in found or []])
        found, _ = engine(image)
        boxes = sorted(found or [], key=lambda line: min(y for _, y in line[0]))
        return digits_only([text for _, text, _ in boxes])
    return read


def with_tesseract(picture: RealPicture) -> list[str]:
    mode = "10" if picture.is_single else "6"  # one character, or one block of text
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        as_shown(picture.path).save(file.name)
        command = ["tesseract", file.name, "-", "--psm", mode,
                   "-c", "tessedit_char_whitelist=0123456789"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return digits_only(done.stdout.split("\n"))


def as_shown(path: Path, least: int = 64) -> Image.Image:
    "Return the picture upright and on white, enlarged if it is tiny."
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if min(image.size) < least:
        factor = -(-2 * least // min(image.size))
        image = image.resize([factor * side for side in image.size], Image.Resampling.BICUBIC)
    return image


def digits_only(lines: list[str], also: str = "") -> list[str]:
    kept = ("".join(c for c in line if c in "0123456789" + also) for line in lines)
    return [line for line in kept if line]


if __name__ == "__main__":
    main(sys.argv[1])
