"""A network of torch's → an .onnx file, tried out before it gets its name."""
import io
import json
import logging
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from digitfast.errors import BadData, BadSetting
from digitfast.inference.onnx_network import EXTERNAL, IMAGES, LOGITS, SEAL, OnnxNetwork, open_session
from digitfast.inference.predictor import Predictor, check_plain, header_of
from digitfast.sealed import BLANK, write_with_checksum

TRIED, TOLERANCE = 1000, 1e-4  # images that it is tried out on; largest difference of a logit
MEASURED = 500  # of them whose activations give int8 its scales
OPSET = 18
PREPROCESSING = ("Grey images of {size}×{size} pixels as float32 [n, 1, {size}, {size}], 0 = paper to 1 = ink: bytes "
                 "(0 = paper, 255 = ink) divided by 255. {form} Divide the logits by {temperature}, then take the "
                 "softmax{none}.")
FORM = {"mnist": "Digits are in MNIST's form: light ink on a dark ground, scaled into a box of 20×20 pixels of 28×28, "
                 "the centre of mass in the middle.",
        "as it comes": "Pictures are as those that the network was trained on, with black at the sides where they are "
                       "not square."}


def export_onnx(
    predictor: Predictor,  # of a run or a .safetensors
    path: str | Path,  # of the .onnx to write
    images: np.ndarray,  # uint8 `[n, size, size]`, to try it out on, and to take scales for int8 from
    int8: bool = False,  # whether to compute in integers of 8 bits
) -> Path:
    """Write an .onnx for any number of images at once, which says in its metadata what they go through first.

    Raises: `BadData` if its logits differ from torch's by more than 1e-4 (in float32); then there is no file.
    """
    try:
        import onnx
    except ImportError as e:
        raise BadSetting(f"{path} needs onnx and onnxruntime: pip install onnx onnxscript onnxruntime") from e
    if not hasattr(predictor.network, "model"):
        raise BadSetting(f"{path}: an .onnx is made from a network of torch's, of a run or a .safetensors")
    check_plain(predictor, path)
    import torch
    example = torch.zeros(2, 1, predictor.size, predictor.size)
    model = in_onnx(predictor.network.model, example, (IMAGES, LOGITS), {0: "n"})
    if int8:
        model = _in_int8(model, images[:MEASURED])
    header = json.dumps(header_of(predictor))
    none = ", with a further logit of 0 for \"no digit\"" * predictor.no_digit
    onnx.helper.set_model_props(model, {
        "digitfast": header.replace(EXTERNAL, f"\\u{ord(EXTERNAL[0]):04x}{EXTERNAL[1:]}"),  # the same text to JSON
        "pre-processing": PREPROCESSING.format(size=predictor.size, form=FORM[predictor.form], none=none,
                                               temperature=predictor.temperature),
        "sha256": BLANK})
    content = model.SerializeToString()
    if not int8:
        _try_out(predictor, content, path, images)
    return write_with_checksum(path, content, SEAL)


def in_onnx(
    model,  # of torch's
    example,  # tensor that it takes
    names: tuple[str, str],  # of what goes in and what comes out
    sizes: dict[int, str],  # dimension of what goes in, of any size: its name
):
    "A network as onnx's `ModelProto`, without where in torch's code each operation comes from."
    import torch
    with _quiet():
        proto = torch.onnx.export(model, (example,), input_names=names[:1], output_names=names[1:], dynamo=True,
                                  dynamic_shapes=(sizes,), opset_version=OPSET, verbose=False).model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        del part.metadata_props[:]
    return proto


def _in_int8(model, images: np.ndarray):
    "The network with weights and activations in 8 bits; the images show how far activations reach."
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(np.array_split(images[:, None].astype(np.float32) / 255, max(1, len(images) // 50)))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {IMAGES: batch}

    with _quiet(), TemporaryDirectory() as folder:
        whole, ready, small = (str(Path(folder) / name) for name in ("whole.onnx", "ready.onnx", "small.onnx"))
        onnx.save(model, whole)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(ready, small, Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        return onnx.load(small)


def _try_out(predictor: Predictor, content: bytes, path: str | Path, images: np.ndarray) -> None:
    "Raise `BadData` if the file's logits are not torch's."
    floats = images[:, None].astype(np.float32) / np.float32(255)
    network = OnnxNetwork(open_session(content, path), path)
    difference = float(np.abs(network(floats) - predictor.network(floats)).max(initial=0))
    if not difference <= TOLERANCE:
        raise BadData(f"{path} was not written: its logits differ from torch's by {difference:.1e}, and at most "
                      f"it must be at most {TOLERANCE}; was the network trained until its loss was a number?")


@contextmanager
def _quiet():
    "Nothing of what the exporters print, log and warn."
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
