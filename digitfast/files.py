"""Files that are there whole or not at all."""
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKED = Path(__file__).parent / "packed"  # what comes with the package: digits, networks, named runs


@contextmanager
def whole_file(
    path: Path,  # of the file to write
) -> Iterator[Path]:  # of the file to write instead; it gets the name of `path` when the context ends well
    "So that a file is there either whole or not at all, whatever happens while it is written: a power cut, too."
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.partial")  # a name that nobody can have taken
    try:
        yield part
        _to_disk(part, os.O_RDWR)
        os.replace(part, path)
        with suppress(OSError):  # where a folder cannot be opened, as on Windows
            _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _to_disk(path: Path, flags: int = os.O_RDONLY) -> None:
    "Have the system write what it keeps of a file or folder in memory."
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
