"""Drawings that were put right on the draw page, kept as pictures in class folders."""
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from digitfast.data.folders import SPLITS
from digitfast.data.pictures import read_picture
from digitfast.errors import BadSetting


class KeptDrawings:
    "A folder of class folders that gets drawings, and gives back those that it got from this page."

    def __init__(
        self,
        folder: Path,  # made with the first drawing
        vocab: Sequence[str],  # the classes
    ):
        if folder.exists() and not folder.is_dir():
            raise BadSetting(f"{folder} is a file; --keep must name a folder")
        if not folder.absolute().parent.is_dir():
            raise BadSetting(f"{folder.absolute().parent} is not a folder; --keep must name one in "
                             "a folder that exists")
        splits = {name for pair in SPLITS for name in pair}
        if unfit := [label for label in vocab if Path(label).name != label or label in splits
                     or not label.isprintable() or not label or label[0] == "."]:
            raise BadSetting(f"--keep makes a folder per class, and {unfit[0]!r} cannot be one")
        self.folder = folder
        self.vocab = list(vocab)
        self.files: list[Path] = []  # kept since the page was served, the last one last

    def keep(
        self,
        picture: bytes,  # of an image file
        label: str,  # what it shows
        box: Sequence[int],  # left, top, right, bottom of the digit, in pixels of the picture
    ) -> Path:
        """Write the digit with some paper around it as a new .png, and return its path.

        Raises: `BadImage`; `BadSetting` for an unknown label or a box without pixels.
        """
        if label not in self.vocab:
            raise BadSetting(f"the label must be one of {', '.join(self.vocab)}, not {label!r}")
        grey, scale = read_picture(picture)
        left, top, right, bottom = (round(side * scale) for side in box)
        room = max(right - left, bottom - top) // 4
        part = grey[max(0, top - room):max(0, bottom + room),
                    max(0, left - room):max(0, right + room)]
        if not part.size:
            raise BadSetting(f"the box {list(box)} is outside the picture")
        folder = self.folder / label
        folder.mkdir(parents=True, exist_ok=True)
        n = 1
        while True:
            file = folder / f"drawn-{n}.png"
            try:
                with open(file, "xb") as new:
                    self.files.append(file)
                    Image.fromarray(part).save(new, "PNG")
            except FileExistsError:
                n += 1
            except OSError:  # a full disk
                self.take_back()
                raise
            else:
                return file

    def take_back(self) -> Path | None:
        "Remove the drawing that was kept last, and return its path; None if there is none."
        if not self.files:
            return None
        file = self.files.pop()
        file.unlink(missing_ok=True)
        return file
