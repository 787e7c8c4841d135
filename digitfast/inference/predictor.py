"""A trained network that answers for images, from any file; only a .safetensors needs torch."""
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from digitfast import __version__
from digitfast.data.mnist_form import SIDE
from digitfast.errors import BadData, BadImage, BadSetting, RunNotFound
from digitfast.files import PACKED, read_sealed, write_sealed
from digitfast.inference.calibration import probabilities
from digitfast.inference.header import FACTS, FORMAT, NORMALISATION, check_header
from digitfast.inference.onnx_network import read_onnx

PACKED_NETWORK = PACKED / "digitnet.safetensors"
MODEL = "model.safetensors"  # the network in a run folder
OWN_MODEL = "model.onnx"  # the same, where only the user has the code of its architecture
SUFFIXES = (".safetensors", ".onnx")  # of files that hold no code
#: Fields that a header and a `Predictor` share.
SHARED_FIELDS = ("arch", "vocab", "size", "form", "no_digit", "temperature", "threshold")


@dataclass(frozen=True, eq=False)
class Predictor:
    "A trained network, ready to answer, and what is known about it."
    network: Callable[[np.ndarray], np.ndarray]  # float32 `[n, 1, size, size]` in 0..1 to logits
    vocab: list[str]  # the classes
    no_digit: bool = False  # whether it was trained with `NonDigits`
    temperature: float = 1.0  # divides the logits, to calibrate the probabilities
    threshold: float = 0.5  # least probability of an answer; below it the answer is "unsure"
    arch: str = ""  # name of its architecture, if known
    size: int = SIDE  # side of the images, in pixels
    form: str = "mnist"  # of the images: "mnist" for MNIST's form, "as it comes" for whole pictures
    facts: dict[str, Any] = field(default_factory=dict)  # run, settings, accuracy, versions

    @classmethod
    def packed(cls) -> "Predictor":
        "Return the bundled network."
        return _open_packed()

    @property
    def source(self) -> str:
        "What it was trained on."
        return self.facts.get("settings", {}).get("source", "mnist")

    def to(
        self,
        device,  # a `torch.device`
    ) -> "Predictor":
        "Move the network to a device, and return the predictor. Raises: `BadSetting` for an .onnx."
        if hasattr(self.network, "to"):
            self.network.to(device)
        elif device.type != "cpu":
            raise BadSetting(f"an .onnx answers on the CPU, not on {device}; use the .safetensors")
        return self

    def chances(
        self,
        images: np.ndarray,  # uint8 `[n, size, size]`, 0 = paper to 255 = ink
    ) -> np.ndarray:  # float64 `[n, classes + 1]`, "no digit" last
        """Return calibrated probabilities of the classes and of "no digit".

        Raises: `BadImage` for other shapes, `BadData` if the network does not answer with logits.
        """
        allowed = f"uint8 [n, {self.size}, {self.size}]"
        try:
            images = np.asarray(images)
        except ValueError as e:
            raise BadImage(f"images must be {allowed}; these differ in shape") from e
        if images.dtype != np.uint8 or images.shape[1:] != (self.size, self.size):
            raise BadImage(f"images must be {allowed}, not {images.dtype} {list(images.shape)}")
        n_classes = len(self.vocab)
        bs = 512  # images per call of the network
        batches = [images[i:i + bs, None].astype(np.float32, order="C") / np.float32(255)
                   for i in range(0, len(images), bs)]
        logits = [self.network(batch) for batch in batches]
        if any(part.shape != (len(batch), n_classes)
               for part, batch in zip(logits, batches, strict=True)):
            given = f"{list(logits[0].shape)} for {len(batches[0])} images"
            raise BadData(f"the network gives {given}; "
                          f"it must give a logit for each of {n_classes} classes")
        logits = np.concatenate([np.zeros((0, n_classes), np.float32), *logits])
        if not np.isfinite(logits).all():
            raise BadData("the network's answer is not a number; its training has diverged")
        return probabilities(logits, self.temperature, self.no_digit)


def predictor_of(
    learn,  # a fastai `Learner`
    summary: dict[str, Any] | None = None,  # of its run; a `Run` has one
) -> Predictor:
    """Return the network of a `Learner`, with what its run's summary says about it.

    Without a `summary` the form of the images is unknown, and they are taken as they come.
    Raises: `BadSetting` for images that are not square.
    """
    from fastai.data.transforms import IntToFloatTensor

    from digitfast.inference.torch_network import TorchNetwork
    summary = getattr(summary, "summary", summary) or {}
    settings = summary.get("settings", {})
    calibration = summary.get("calibration", {})
    file = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(file, "PNG")
    dl = learn.dls.test_dl([file.getvalue()], num_workers=0)
    example = dl.one_batch()[0]
    _, channels, height, width = example.shape
    if height != width:
        raise BadSetting(f"the network's images must be square, not {height} × {width} pixels; "
                         "train with square ones")

    def apply_transforms(x):
        "Return the images as the learner's transforms leave them."
        x = x.mul(255).repeat(1, channels, 1, 1).to(dl.device).as_subclass(type(example))
        return dl.after_batch((x,))[0]
    is_transformed = channels > 1 or any(
        type(tfm) is not IntToFloatTensor and tfm.split_idx != 0 for tfm in dl.after_batch.fs)
    model = learn.model.to(dl.device)
    facts = {key: summary[key] for key in FACTS if key in summary}
    if "data" in summary:
        facts["data_sha256"] = summary["data"]["sha256"]
    return Predictor(
        network=TorchNetwork(model, apply_transforms if is_transformed else None),
        vocab=list(map(str, learn.dls.vocab)),
        no_digit=bool(settings.get("non_digits")),
        temperature=calibration.get("temperature", 1.0),
        threshold=calibration.get("threshold", 0.5),
        arch=settings.get("arch", ""),
        size=height,
        form=summary.get("form", "as it comes"),
        facts=facts)


def save_predictor(
    predictor: Predictor,
    path: str | Path,  # of the .safetensors
) -> Path:
    """Write weights and facts to one file that holds no code.

    Raises: `BadSetting` for a network without known `arch`, and for one with transforms.
    """
    check_predictor(predictor)
    if not (predictor.arch and hasattr(predictor.network, "model")):
        raise BadSetting("a .safetensors can only hold a torch network whose arch is known by "
                         "name, such as one of a run; export this one as .pkl")
    check_plain(predictor, path)
    return write_sealed(path, predictor.network.model.state_dict(), header_of(predictor))


def check_predictor(thing: object) -> None:
    "Raise `BadSetting` if it is not a `Predictor`, and say how to make one."
    if not isinstance(thing, Predictor):
        raise BadSetting(f"predictor must be a Predictor, not {type(thing).__name__}; make one "
                         "with predictor_of(learn) or find_run(name).predictor()")


def check_plain(
    predictor: Predictor,
    path: object,  # of the file to write, for messages
) -> None:
    "Raise `BadSetting` for a network with transforms of its `Learner`, which a file cannot hold."
    if getattr(predictor.network, "before", None):
        raise BadSetting(f"{path} cannot hold the learner's transforms, such as Normalize or three "
                         "channels; train without them, or export the learner as .pkl")


def header_of(predictor: Predictor) -> dict[str, Any]:
    "Return what a file says about a network in addition to its weights."
    versions = {"versions": {"digitfast": __version__, "torch": version("torch")}}
    return {"format": FORMAT,
            **{name: getattr(predictor, name) for name in SHARED_FIELDS},
            "normalisation": NORMALISATION,
            "facts": {**versions, **predictor.facts}}


def open_predictor(
    path: str | Path,  # of a .safetensors or .onnx, or of a run folder; or a `Run`
    network=None,  # torch module that gets the weights of a .safetensors, where it has no name
) -> Predictor:
    """Return the network in a file that can hold no code.

    Everything that the file says is checked.
    Raises: `RunNotFound`, `BadData`, `BadSetting` without onnxruntime.
    """
    path = Path(getattr(path, "path", path))  # the folder of a `Run`
    if (path / MODEL).is_file():
        has_no_name = network is None and (path / OWN_MODEL).is_file()
        path = path / (OWN_MODEL if has_no_name else MODEL)
    if path.suffix not in SUFFIXES or not path.is_file():
        if path.is_dir():
            problem = f"is a folder without {MODEL}"
        elif path.exists():
            problem = "is not a network"
        else:
            problem = "does not exist"
        raise RunNotFound(f"{path} {problem}; it must be a run folder, or a "
                          f"{' or '.join(SUFFIXES)} from digitfast export")
    if path.suffix == ".onnx":
        network, header = read_onnx(path)
        header = check_header(header, path)
    else:
        weights, header = read_sealed(path)
        header = check_header(header, path)
        from digitfast.inference.torch_network import rebuild_network
        arch = network if network is not None else header["arch"]
        network = rebuild_network(weights, arch, len(header["vocab"]), header["size"], path)
    shared = {name: header[name] for name in SHARED_FIELDS}
    return Predictor(network=network, facts=header["facts"], **shared)


@cache
def _open_packed() -> Predictor:
    return open_predictor(PACKED_NETWORK)
