"""Networks in .onnx files, run by onnxruntime. No need of torch."""
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from digitfast.errors import BadData, BadSetting
from digitfast.sealed import check_checksum

#: Where protobuf keeps the checksum: an entry of the model's `metadata_props`.
SEAL = re.compile(rb"\n\x06sha256\x12\x40([0-9a-f]{64})")
IMAGES, LOGITS = "images", "logits"  # names of what goes in and what comes out
EXTERNAL = "location"  # the key by which a tensor names another file that it lies in


class OnnxNetwork:
    "A network in an .onnx file as a `Predictor` asks it: NumPy in, NumPy out."

    def __init__(
        self,
        session,  # onnxruntime's
        path: object,  # of the file, for messages
    ):
        self.session, self.path = session, path

    def __call__(
        self,
        images: np.ndarray,  # float32 `[n, 1, size, size]`, 0 = paper to 1 = ink
    ) -> np.ndarray:  # float32 `[n, classes]`
        "The logits. Raises: `BadData` where the network cannot be run."
        try:
            return self.session.run([LOGITS], {IMAGES: images})[0]
        except Exception as e:  # onnxruntime's have no base of their own
            raise BadData(f"{self.path} cannot be run ({_line(e)})") from e


def read_onnx(
    path: str | Path,  # of an .onnx from `digitfast export`
) -> tuple[OnnxNetwork, Any]:  # the network, and what the file says of it, unchecked
    """The network in an .onnx file.

    No code in it is run: it may name no other file, and operators only that onnxruntime brings. Raises: `BadData`.
    """
    content = Path(path).read_bytes()
    check_checksum(path, content, SEAL)
    if EXTERNAL.encode() in content:
        raise BadData(f"{path} keeps weights in another file; the file must hold all of them")
    network = OnnxNetwork(open_session(content, path), path)
    try:
        header = json.loads(network.session.get_modelmeta().custom_metadata_map["digitfast"])
    except (LookupError, ValueError, RecursionError) as e:
        raise BadData(f"{path} has no header of digitfast's ({_line(e)})") from e
    names = [[value.name for value in values] for values in (network.session.get_inputs(),
                                                             network.session.get_outputs())]
    if names != [[IMAGES], [LOGITS]]:
        raise BadData(f"{path} maps {names[0]} to {names[1]}; it must map {IMAGES} to {LOGITS}")
    return network, header


def open_session(
    content: bytes,  # of an .onnx
    path: object,  # of the file, for messages
):
    "onnxruntime's session of a network. Raises: `BadSetting` where there is no onnxruntime, `BadData`."
    try:
        import onnxruntime
    except ImportError as e:
        raise BadSetting(f"{path} needs onnxruntime: pip install onnxruntime") from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said here, in one line
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise BadData(f"{path} is no network that onnxruntime opens ({_line(e)})") from e


def _line(e: Exception) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 200 else text[:200] + "…"
