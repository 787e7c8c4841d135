"""Run networks in .onnx files with onnxruntime, without torch."""
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from digitfast.errors import BadData, BadSetting
from digitfast.files import check_checksum

#: Where protobuf keeps the checksum: an entry of the model's `metadata_props`.
SEAL = re.compile(rb"\n\x06sha256\x12\x40([0-9a-f]{64})")
IMAGES = "images"  # name of the network's input
LOGITS = "logits"  # name of its output
EXTERNAL = "location"  # the key under which a tensor names another file with its values


class OnnxNetwork:
    "A network in an .onnx file, as a `Predictor` calls it: NumPy in, NumPy out."

    def __init__(
        self,
        session,  # onnxruntime's
        path: object,  # of the file, for messages
    ):
        self.session = session
        self.path = path

    def __call__(
        self,
        images: np.ndarray,  # float32 `[n, 1, size, size]`, 0 = paper to 1 = ink
    ) -> np.ndarray:  # float32 `[n, classes]`
        "Return the logits. Raises: `BadData` if the network cannot be run."
        try:
            return self.session.run([LOGITS], {IMAGES: images})[0]
        except Exception as e:  # onnxruntime's errors have no base class of their own
            raise BadData(f"{self.path} cannot be run ({_one_line(e)})") from e


def read_onnx(
    path: str | Path,  # of an .onnx from `digitfast export`
) -> tuple[OnnxNetwork, Any]:  # the network and its header, which is not checked
    """Return the network in an .onnx file, and its header.

    No code in the file is run: it may refer to no other file, and use only onnxruntime's own
    operators. Raises: `BadData`; `BadSetting` without onnxruntime.
    """
    content = Path(path).read_bytes()
    check_checksum(path, content, SEAL)
    if EXTERNAL.encode() in content:
        raise BadData(f"{path} keeps weights in another file; it must hold all of them itself")
    network = OnnxNetwork(open_session(content, path), path)
    try:
        header = json.loads(network.session.get_modelmeta().custom_metadata_map["digitfast"])
    except (LookupError, ValueError, RecursionError) as e:
        raise BadData(f"{path} has no digitfast header ({_one_line(e)}); "
                      "it must be an .onnx from digitfast export") from e
    inputs = [value.name for value in network.session.get_inputs()]
    outputs = [value.name for value in network.session.get_outputs()]
    if (inputs, outputs) != ([IMAGES], [LOGITS]):
        raise BadData(f"{path} maps {inputs} to {outputs}; it must map {IMAGES} to {LOGITS}")
    return network, header


def open_session(
    content: bytes,  # of an .onnx
    path: object,  # of the file, for messages
):
    """Return an onnxruntime session for a network.

    Raises: `BadSetting` without onnxruntime, `BadData` for a network that it cannot open.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise BadSetting(f"{path} needs onnxruntime: pip install onnxruntime") from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are reported below, in one line
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise BadData(f"{path} cannot be opened with onnxruntime ({_one_line(e)})") from e


def _one_line(e: Exception) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 200 else text[:200] + "…"
