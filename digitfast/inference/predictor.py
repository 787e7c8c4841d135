"""A trained network that answers for images, whatever file it is kept in. No need of torch, but for .safetensors."""
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
from digitfast.files import PACKED
from digitfast.inference.calibration import probabilities
from digitfast.inference.header import FACTS, FORMAT, FORMS, NORMALISATION, check_header
from digitfast.inference.onnx_network import read_onnx
from digitfast.sealed import read_sealed, write_sealed

PACKED_NETWORK = PACKED / "digitnet.safetensors"
MODEL = "model.safetensors"  # the network in a run folder
SUFFIXES = (".safetensors", ".onnx")  # of files that hold no code
NAMES = ("arch", "vocab", "size", "form", "no_digit", "temperature", "threshold")  # fields of a header as they are here
BATCH = 512  # images that a network is asked of at once


@dataclass(frozen=True, eq=False)
class Predictor:
    "A network that is ready to answer, and what is known of it."
    network: Callable[[np.ndarray], np.ndarray]  # float32 `[n, 1, size, size]` in 0..1 to logits `[n, classes]`
    vocab: list[str]  # the classes
    no_digit: bool = False  # whether it was trained with `NonDigits`
    temperature: float = 1.0  # that logits are divided by, so that probabilities are as often right as they say
    threshold: float = 0.5  # least probability of an answer; below it the answer is "unsure"
    arch: str = ""  # name of its architecture, where that is known
    size: int = SIDE  # side of the images, in pixels
    form: str = FORMS[0]  # of the images: mnist, or as it comes: whole pictures, as in a folder of one's own
    facts: dict[str, Any] = field(default_factory=dict)  # run, settings, accuracy, versions

    @classmethod
    def packed(cls) -> "Predictor":
        "The network that comes with digitfast."
        return _packed()

    @property
    def source(self) -> str:
        "What it was trained on."
        return self.facts.get("settings", {}).get("source", "mnist")

    def chances(
        self,
        images: np.ndarray,  # uint8 `[n, size, size]`, 0 = paper to 255 = ink
    ) -> np.ndarray:  # float64 `[n, classes + 1]`, the last one that it is no digit
        "Calibrated probabilities of the classes and of \"no digit\". Raises: `BadImage` for other shapes, `BadData`."
        wanted = f"uint8 [n, {self.size}, {self.size}]"
        try:
            images = np.asarray(images)
        except ValueError as e:
            raise BadImage(f"the images differ in shape; they are {wanted}") from e
        if images.dtype != np.uint8 or images.shape[1:] != (self.size, self.size):
            raise BadImage(f"{images.dtype} {list(images.shape)}: images are {wanted}")
        batches = [images[i:i + BATCH, None].astype(np.float32, order="C") / np.float32(255)
                   for i in range(0, len(images), BATCH)]
        logits = [self.network(batch) for batch in batches]
        if any(part.shape != (len(batch), len(self.vocab)) for part, batch in zip(logits, batches, strict=True)):
            raise BadData(f"the network gives {list(logits[0].shape)} for {len(batches[0])} images; "
                          f"it must be a logit for each of {len(self.vocab)} classes")
        logits = np.concatenate([np.zeros((0, len(self.vocab)), np.float32), *logits])
        if not np.isfinite(logits).all():
            raise BadData("the network's answer is not a number; its training has diverged")
        return probabilities(logits, self.temperature, self.no_digit)


def predictor_of(
    learn,  # a fastai `Learner`
    summary: dict[str, Any] | None = None,  # of its run
) -> Predictor:
    """The network of a `Learner` with what its run says of it.

    Without a `summary` nothing is known of the images' form: they are taken as they come.
    Raises: `BadSetting` for images that are not square.
    """
    from fastai.data.transforms import IntToFloatTensor

    from digitfast.inference.torch_network import TorchNetwork
    summary = getattr(summary, "summary", summary) or {}  # of a `Run`
    settings, calibration = summary.get("settings", {}), summary.get("calibration", {})
    file = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(file, "PNG")
    dl = learn.dls.test_dl([file.getvalue()], num_workers=0)
    seen = dl.one_batch()[0]
    _, channels, height, width = seen.shape
    if height != width:
        raise BadSetting(f"the network takes images of {height} × {width} pixels; they must be square")

    def as_trained(x):
        "The images as the learner's transforms leave them."
        return dl.after_batch((x.mul(255).repeat(1, channels, 1, 1).to(dl.device).as_subclass(type(seen)),))[0]
    facts = {key: summary[key] for key in FACTS if key in summary}
    changed = channels > 1 or any(type(tfm) is not IntToFloatTensor and tfm.split_idx != 0 for tfm in dl.after_batch.fs)
    network = TorchNetwork(learn.model.to(dl.device), as_trained if changed else None)
    return Predictor(network, list(map(str, learn.dls.vocab)),
                     bool(settings.get("non_digits")), calibration.get("temperature", 1.0),
                     calibration.get("threshold", 0.5), settings.get("arch", ""), height,
                     FORMS[settings.get("source") not in ("mnist", "MNIST")],
                     {**facts, **({"data_sha256": summary["data"]["sha256"]} if "data" in summary else {})})


def save_predictor(
    predictor: Predictor,
    path: str | Path,  # of the .safetensors
) -> Path:
    "Write weights and facts to one file that holds no code. Raises: `BadSetting` for a network without known `arch`."
    check_predictor(predictor)
    if not (predictor.arch and hasattr(predictor.network, "model")):
        raise BadSetting("a .safetensors holds a network of torch's whose arch is known by name, such as one of a run; "
                         "export this one as .pkl")
    check_plain(predictor, path)
    return write_sealed(path, predictor.network.model.state_dict(), header_of(predictor))


def check_predictor(thing: object) -> None:
    "Raise `BadSetting` for what is no `Predictor`, and say how to make one."
    if not isinstance(thing, Predictor):
        raise BadSetting(f"predictor must be a Predictor, not {type(thing).__name__}: of a Learner "
                         "predictor_of(learn), of a run find_run(name).predictor()")


def check_plain(
    predictor: Predictor,
    path: object,  # of the file to write, for the message
) -> None:
    "Raise `BadSetting` for a network whose images go through transforms of its `Learner`, which a file cannot hold."
    if getattr(predictor.network, "before", None):
        raise BadSetting(f"{path} cannot hold what the images go through first, such as Normalize or three channels; "
                         "train without that, or export the learner as .pkl")


def header_of(predictor: Predictor) -> dict[str, Any]:
    "What a file says of a network beside its weights."
    versions = {"versions": {"digitfast": __version__, "torch": version("torch")}}
    return {"format": FORMAT, **{name: getattr(predictor, name) for name in NAMES}, "normalisation": NORMALISATION,
            "facts": {**versions, **predictor.facts}}


def open_predictor(
    path: str | Path,  # of a .safetensors from `save_predictor`, an .onnx from `digitfast export`, or a run folder
) -> Predictor:
    """The network in a file that can hold no code.

    Whatever the file says is checked. Raises: `RunNotFound`, `BadData`, `BadSetting` where onnxruntime is missing.
    """
    path = Path(getattr(path, "path", path))  # of a `Run` its folder
    if (path / MODEL).is_file():
        path = path / MODEL
    if path.suffix not in SUFFIXES or not path.is_file():
        what = f"is a folder without {MODEL}" if path.is_dir() else "is no network" if path.exists() else "is not there"
        raise RunNotFound(f"{path} {what}; it must be a run folder, or a {' or '.join(SUFFIXES)} of digitfast export")
    if path.suffix == ".onnx":
        network, header = read_onnx(path)
        header = check_header(header, path)
    else:
        weights, header = read_sealed(path)
        header = check_header(header, path)
        from digitfast.inference.torch_network import rebuilt_network
        network = rebuilt_network(weights, header["arch"], len(header["vocab"]), header["size"], path)
    return Predictor(network, facts=header["facts"], **{name: header[name] for name in NAMES})


@cache
def _packed() -> Predictor:
    return open_predictor(PACKED_NETWORK)
