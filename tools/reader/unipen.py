"""Read the isolated characters of UNIPEN's train_r01_v07: pen strokes with labels and writers.

Source: I. Guyon, L. Schomaker, R. Plamondon, M. Liberman and S. Janet, "UNIPEN project of on-line
data exchange and recognizer benchmarks", ICPR 1994; the files of doi 10.5281/zenodo.1195803,
CC BY 4.0.
"""
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_INCLUDES = 8  # files that include one another; the data need two

POINT = re.compile(r"[\s\d.eE+-]+")  # a line of numbers, not the text of a comment
SEGMENT = re.compile(
    r'\.SEGMENT\s+CHARACTER\s+(?P<components>[\d,\-]+)\s+\S+\s+"(?P<label>.+)"\s*$')


@dataclass(frozen=True, eq=False, kw_only=True)
class Character:
    "One character as somebody wrote it."
    label: str  # what it is said to be
    writer: str  # provider of the data and name of the writer
    name: str  # file and components, which tell it from all others
    strokes: list[np.ndarray]  # points of each stroke, float `[k, 2]`: x to the right, y downwards


def read_characters(
    folder: Path,  # with the folders `data` and `include`
    kind: str,  # "1a" digits, "1b" capitals, "1c" small letters, "1d" signs
) -> list[Character]:
    """Return the isolated characters of one kind, in the order of their files.

    Segments that name a part of a stroke, or strokes that are missing, are left out.
    Raises: `ValueError` for a folder without such files.
    """
    files = sorted((folder / "data" / kind).rglob("*.dat"))
    if not files:
        raise ValueError(f"{folder} must hold data/{kind}/…/*.dat and include/, as UNIPEN's "
                         "train_r01_v07 does")
    return [character for file in files for character in _characters_of(file, folder)]


def _characters_of(file: Path, folder: Path) -> Iterator[Character]:
    lines = list(_lines(file, folder / "include"))
    strokes, writers = _strokes(lines)
    name = file.relative_to(folder / "data")
    for line in lines:
        segment = SEGMENT.match(line)
        if segment is None:
            continue
        components = _numbers(segment["components"])
        if not components or max(components) >= len(strokes):
            continue
        written = [strokes[i] for i in components if len(strokes[i])]
        if written:
            writer = writers[components[0]] or name.stem
            yield Character(label=segment["label"], writer=f"{name.parts[1]}/{writer}",
                            name=f"{name} {segment['components']}", strokes=written)


def _lines(file: Path, include: Path, depth: int = 0) -> Iterator[str]:
    "Yield the lines of a file and, in their place, those of the files that it includes."
    for line in file.read_text(encoding="latin-1").splitlines():
        if not line.startswith(".INCLUDE"):
            yield line
            continue
        included = include / line.split()[1]
        inside = included.resolve().is_relative_to(include.resolve())
        if inside and included.is_file() and depth < MAX_INCLUDES:
            yield from _lines(included, include, depth + 1)


def _strokes(lines: list[str]) -> tuple[list[np.ndarray], list[str]]:
    "Return the points of each stroke that the pen wrote, and who wrote it (\"\" if unknown)."
    columns = ["X", "Y"]
    strokes: list[list[tuple[float, float]]] = []
    writers: list[str] = []
    writer = ""
    is_down = False
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == ".COORD":
            columns = words[1:]
        elif words[0] == ".WRITER_ID":
            writer = " ".join(words[1:])
        elif words[0] == ".PEN_DOWN":
            is_down = True
            strokes.append([])
            writers.append(writer)
        elif words[0].startswith("."):
            is_down = is_down and words[0] in (".DT", ".COMMENT")
        elif is_down and len(words) >= len(columns) and POINT.fullmatch(line):
            x, y = (float(words[columns.index(axis)]) for axis in "XY")
            strokes[-1].append((x, -y))
    return [np.array(stroke, float).reshape(-1, 2) for stroke in strokes], writers


def _numbers(components: str) -> list[int]:
    "Return `3-5,8` as 3, 4, 5, 8; nothing for what is not such a list."
    numbers: list[int] = []
    for part in components.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not all(end.isdigit() for end in ends):
            return []
        numbers += range(int(ends[0]), int(ends[-1]) + 1)
    return numbers
