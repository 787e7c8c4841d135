"""Files written whole or not at all, and sealed ones: tensors and facts, no code, a checksum."""
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from digitfast.errors import BadData

PACKED = Path(__file__).parent / "packed"  # bundled digits, networks and named runs
BLANK = "0" * 64  # placeholder for the checksum while it is computed
# cannot match inside the facts' JSON, whose quotes are escaped
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def expanded(
    path: str | os.PathLike,
) -> Path:
    "Return `path` with a leading `~` as the home folder, or as it is where there is none."
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return Path(path)


@contextmanager
def whole_file(
    path: Path,  # of the file to write
) -> Iterator[Path]:  # of the file to write to; renamed to `path` if the context ends without error
    "Write a file whole or not at all, whatever happens meanwhile, even a power cut."
    part = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}.partial")  # a unique name
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


def write_sealed(
    path: str | Path,  # of the .safetensors to write
    tensors: dict,  # name: torch tensor, on any device
    facts: dict[str, Any],  # anything that JSON can hold
) -> Path:
    "Write a sealed file in one step, so it is always whole. Raises: `OSError`, as for a full disk."
    from safetensors.torch import save  # here: checksums of other files need no torch
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    blank = save(tensors, {"digitfast": json.dumps(facts), "sha256": BLANK})
    return write_with_checksum(path, blank, _SEAL)


def read_sealed(
    path: str | Path,  # of a file from `write_sealed`
) -> tuple[dict, dict[str, Any]]:  # tensors by name, on the CPU; facts
    """Return the content of a sealed file without running code in it.

    Raises: `BadData` for a file that was changed or truncated, or that is not sealed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    check_checksum(path, content, _SEAL, 8 + length)
    try:
        facts = json.loads(json.loads(content[8:8 + length])["__metadata__"]["digitfast"])
        return load(content), facts
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as e:
        raise BadData(f"{path} is not a file that digitfast sealed ({e})") from e


def write_with_checksum(
    path: str | Path,  # of the file to write
    content: bytes,  # with `BLANK` where the checksum belongs
    place: re.Pattern,  # its first group matches `BLANK` there
) -> Path:
    "Write `content` with its SHA-256 in it, in one step. Raises: `OSError`."
    path = Path(path)
    start, end = place.search(content).span(1)
    with whole_file(path) as part, open(part, "wb") as file:
        file.write(memoryview(content)[:start])
        file.write(_sha256(content))
        file.write(memoryview(content)[end:])
    return path


def check_checksum(
    path: str | Path,  # of the file, for the message
    content: bytes,  # of a file from `write_with_checksum`
    place: re.Pattern,  # as given there
    head: int | None = None,  # bytes at the start to search for the checksum; None: all
) -> None:
    "Raise `BadData` for content that was changed or truncated, or that has no checksum."
    if not (seal := place.search(content[:head])):
        raise BadData(f"{path} is not a file that digitfast sealed: it has no checksum")
    start, end = seal.span(1)
    view = memoryview(content)
    if _sha256(view[:start], BLANK.encode(), view[end:]) != seal.group(1):
        raise BadData(f"{path} is damaged: its checksum does not match its content")


def _sha256(*parts: bytes | memoryview) -> bytes:
    "Return the SHA-256 of all parts together, in hexadecimal digits."
    from hashlib import sha256  # importing it takes longer than the rest of this module
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
