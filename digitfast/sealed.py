"""Tensors and facts in one file that holds no code and shows any change of a byte: safetensors with a checksum."""
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from digitfast.errors import BadData
from digitfast.files import whole_file

_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # inside the JSON of the facts its quotes have backslashes
_BLANK = "0" * 64  # what stands there while the checksum is taken


def write_sealed(
    path: str | Path,  # of the .safetensors to write
    tensors: dict,  # name: torch tensor, on any device
    facts: dict[str, Any],  # what JSON can hold
) -> Path:
    "Write a sealed file, in one step: a file of that name is always whole. Raises: `OSError`, as for a full disk."
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    blank = save(tensors, {"digitfast": json.dumps(facts, ensure_ascii=False), "sha256": _BLANK})
    start, end = _SEAL.search(blank).span(1)
    with whole_file(path) as part, open(part, "wb") as file:
        file.write(blank[:start])
        file.write(sha256(blank).hexdigest().encode())
        file.write(memoryview(blank)[end:])
    return path


def read_sealed(
    path: str | Path,  # of a file from `write_sealed`
) -> tuple[dict, dict[str, Any]]:  # tensors by name, on the CPU; facts
    "What a sealed file holds; no code in it is run. Raises: `BadData` for one that was changed, cut off or is another."
    content = Path(path).read_bytes()
    header = content[:8 + int.from_bytes(content[:8], "little")]
    if not (seal := _SEAL.search(header)):
        raise BadData(f"{path} is no file that digitfast sealed: it has no checksum")
    start, end = seal.span(1)
    checked = sha256(content[:start])
    checked.update(_BLANK.encode())
    checked.update(memoryview(content)[end:])
    if checked.hexdigest().encode() != seal.group(1):
        raise BadData(f"{path} is damaged: it does not have the checksum that it was written with")
    try:
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8:8 + length])["__metadata__"]["digitfast"])
        return load(content), facts
    except (SafetensorError, LookupError, ValueError, TypeError) as e:
        raise BadData(f"{path} is no file that digitfast sealed ({e})") from e
