"""Files written whole or not at all."""
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKED = Path(__file__).parent / "packed"  # bundled digits, networks and named runs


@contextmanager
def whole_file(
    path: Path,  # of the file to write
) -> Iterator[Path]:  # of the file to write to; renamed to `path` if the context ends without error
    "Write a file whole or not at all, whatever happens meanwhile, even a power cut."
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.partial")  # a unique name
    try:
        yield part
        _flush_to_disk(part, os.O_RDWR)
        os.replace(part, path)
        with suppress(OSError):  # where folders cannot be opened, as on Windows
            _flush_to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _flush_to_disk(path: Path, flags: int = os.O_RDONLY) -> None:
    "Make the system write a file or folder from its memory to disk."
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
