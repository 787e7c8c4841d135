"""Export a torch network to an .onnx file, compared with torch before it is written."""
import io
import json
import logging
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from digitfast.errors import BadData, BadSetting
from digitfast.files import BLANK, write_with_checksum
from digitfast.inference.onnx_network import (
    EXTERNAL,
    IMAGES,
    LOGITS,
    SEAL,
    OnnxNetwork,
    open_session,
)
from digitfast.inference.predictor import Predictor, check_plain, header_of

TRIED = 1000  # images on which an exported network is compared with torch


def export_onnx(
    predictor: Predictor,  # of a run or a .safetensors
    path: str | Path,  # of the .onnx to write
    images: np.ndarray,  # uint8 `[n, size, size]`, to compare with torch, or to find int8 scales
    int8: bool = False,  # whether to compute in integers of 8 bits
) -> Path:
    """Write an .onnx for any number of images at once, with their preprocessing in its metadata.

    Raises: `BadData` if its logits differ from torch's by more than 1e-4 (in float32); then no file
    is written. `BadSetting` without onnx, and for a network that cannot be exported.
    """
    try:
        import onnx
    except ImportError as e:
        raise BadSetting(f"{path} needs onnx and onnxruntime: "
                         "pip install onnx onnxscript onnxruntime") from e
    if not hasattr(predictor.network, "model"):
        raise BadSetting(f"{path}: only a torch network can be exported as .onnx; "
                         "open the run or its .safetensors")
    check_plain(predictor, path)
    import torch
    example = torch.zeros(2, 1, predictor.size, predictor.size)
    try:
        model = in_onnx(predictor.network.model, example, (IMAGES, LOGITS), {0: "n"})
    except Exception as e:  # of torch's exporter, or of the user's code
        reason = str(e).strip().partition("\n")[0]
        raise BadSetting(f"{path}: torch cannot export this network as .onnx ({reason})") from e
    if int8:
        model = _quantize(model, images[:500])  # enough for the scales
    header = json.dumps(header_of(predictor))
    escaped = f"\\u{ord(EXTERNAL[0]):04x}{EXTERNAL[1:]}"  # the same text to JSON
    onnx.helper.set_model_props(model, {
        "digitfast": header.replace(EXTERNAL, escaped),
        "pre-processing": _describe_preprocessing(predictor),
        "sha256": BLANK})
    content = model.SerializeToString()
    if not int8:
        _compare_with_torch(predictor, content, path, images)
    return write_with_checksum(path, content, SEAL)


def in_onnx(
    model,  # a torch network
    example,  # a tensor that it takes
    names: tuple[str, str],  # of its input and its output
    sizes: dict[int, str],  # the input's dimensions of any size: their names
):
    "Return a network as an onnx `ModelProto`, without references to the code of its operations."
    import torch
    with _quiet():
        program = torch.onnx.export(
            model, (example,), input_names=names[:1], output_names=names[1:], dynamo=True,
            dynamic_shapes=(sizes,), opset_version=18, verbose=False)
        proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        del part.metadata_props[:]
    return proto


def _describe_preprocessing(predictor: Predictor) -> str:
    "Return how to turn a picture into the network's input, and its logits into probabilities."
    size = predictor.size
    form = {
        "mnist": "Digits are in MNIST's form: light ink on a dark ground, scaled into a box of "
                 "20×20 pixels of 28×28, the centre of mass in the middle.",
        "as it comes": "Pictures are as those that the network was trained on, with black at the "
                       "sides where they are not square.",
    }[predictor.form]
    none = ", with a further logit of 0 for \"no digit\"" if predictor.no_digit else ""
    return (f"Grey images of {size}×{size} pixels as float32 [n, 1, {size}, {size}], 0 = paper to "
            f"1 = ink: bytes (0 = paper, 255 = ink) divided by 255. {form} Divide the logits by "
            f"{predictor.temperature}, then take the softmax{none}.")


def _quantize(model, images: np.ndarray):
    """Return the network with weights and activations in 8 bits (static quantization).

    The images show the range of each activation.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            floats = images[:, None].astype(np.float32) / 255
            self.batches = iter(np.array_split(floats, max(1, len(images) // 50)))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {IMAGES: batch}

    with _quiet(), TemporaryDirectory() as folder:
        whole = str(Path(folder) / "whole.onnx")
        ready = str(Path(folder) / "ready.onnx")
        small = str(Path(folder) / "small.onnx")
        onnx.save(model, whole)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(ready, small, Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        return onnx.load(small)


def _compare_with_torch(
    predictor: Predictor,
    content: bytes,  # of the .onnx
    path: str | Path,  # of the file, for messages
    images: np.ndarray,
    tolerance: float = 1e-4,  # largest difference of a logit
) -> None:
    "Raise `BadData` if the file's logits are not torch's."
    floats = images[:, None].astype(np.float32) / np.float32(255)
    network = OnnxNetwork(open_session(content, path), path)
    difference = float(np.abs(network(floats) - predictor.network(floats)).max(initial=0))
    if not difference <= tolerance:  # or it is nan
        raise BadData(f"{path} was not written: its logits differ from torch's by {difference:.1e} "
                      f"and must differ by at most {tolerance}; did the training diverge?")


@contextmanager
def _quiet():
    "Suppress what the exporters print, log and warn."
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (warnings.catch_warnings(), redirect_stdout(io.StringIO()),
              redirect_stderr(io.StringIO())):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
