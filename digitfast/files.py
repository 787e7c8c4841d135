"""Files that are there whole or not at all."""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(
    path: Path,  # of the file to write
) -> Iterator[Path]:  # of the file to write instead; it gets the name of `path` when the context ends well
    "So that a file is there either whole or not at all, whatever happens while it is written."
    part = path.with_name(f".{path.name}.partial")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
