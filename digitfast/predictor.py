"""A trained network that answers for images in MNIST's form, and the file it is kept in. No need of fastai."""
import json
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from digitfast.calibration import probabilities
from digitfast.digit_form import SIDE
from digitfast.errors import BadData, BadImage, BadSetting, RunNotFound
from digitfast.files import whole_file
from digitfast.models import digit_net, digit_net_deep

PACKED = Path(__file__).parent / "data" / "digitnet.safetensors"
#: Architectures that a .safetensors can hold: those written here that learn from probabilities of all classes.
BUILDERS = {"digitnet": digit_net, "digitnet_deep": digit_net_deep}
FORMAT = "digitfast 1"


@dataclass(frozen=True, eq=False)
class Predictor:
    "A network that is ready to answer, and what is known of it."
    model: nn.Module  # in evaluation mode; `[n, 1, 28, 28]` floats in 0..1 to `[n, classes]` logits
    vocab: list[str]  # the classes
    no_digit: bool = False  # whether it was trained with `NonDigits`
    temperature: float = 1.0  # that logits are divided by, so that probabilities are as often right as they say
    threshold: float = 0.5  # least probability of an answer; below it the answer is "unsure"
    arch: str = ""  # name in `BUILDERS`, if it is one of those
    facts: dict[str, Any] = field(default_factory=dict)  # run, settings, accuracy, versions

    @classmethod
    def packed(cls) -> "Predictor":
        "The network that comes with digitfast."
        return _packed()

    def chances(
        self,
        images: np.ndarray,  # uint8 `[n, 28, 28]` in MNIST's form, 0 = paper to 255 = ink
    ) -> np.ndarray:  # float64 `[n, classes + 1]`, the last one that it is no digit
        "Calibrated probabilities of the classes and of \"no digit\". Raises: `BadImage` for other shapes."
        try:
            images = np.asarray(images)
        except ValueError as e:
            raise BadImage(f"the images differ in shape; they are uint8 [n, {SIDE}, {SIDE}]") from e
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
            raise BadImage(f"{images.dtype} {list(images.shape)}: images are uint8 [n, {SIDE}, {SIDE}]")
        if not len(images):
            return np.zeros((0, len(self.vocab) + 1))
        with torch.inference_mode():
            batches = torch.from_numpy(images.copy()).unsqueeze(1).split(512)  # not read-only, nor backwards
            logits = torch.cat([self.model(batch.float().div(255)).float() for batch in batches])
        return probabilities(logits, self.temperature, self.no_digit).numpy()


def predictor_of(
    learn,  # a fastai `Learner` of images of one channel and 28×28 pixels
    summary: dict[str, Any] | None = None,  # of its run
) -> Predictor:
    "The network of a `Learner` with what its run says of it. Raises: `BadSetting` for one of larger images."
    summary = summary or {}
    settings, calibration = summary.get("settings", {}), summary.get("calibration", {})
    if settings.get("size", SIDE) != SIDE:
        raise BadSetting(f"the network was trained on images of {settings['size']} pixels; {SIDE} are wanted here")
    known = ("run", "accuracy", "validation_images", "validated_on", "parameters", "settings", "versions")
    return Predictor(learn.model.cpu().eval(), list(learn.dls.vocab), bool(settings.get("non_digits")),
                     calibration.get("temperature", 1.0), calibration.get("threshold", 0.5), settings.get("arch", ""),
                     {**{key: summary[key] for key in known if key in summary}, "calibration": calibration,
                      **({"data_sha256": summary["data"]["sha256"]} if "data" in summary else {})})


def save_predictor(
    predictor: Predictor,
    path: str | Path,  # of the .safetensors
) -> Path:
    "Write weights and facts to one file that holds no code. Raises: `BadSetting` for an architecture it cannot hold."
    if predictor.arch not in BUILDERS:
        raise BadSetting(f"a .safetensors holds {' or '.join(BUILDERS)}, and this is {predictor.arch or 'another'}; "
                         "export it as .pkl")
    header = {"format": FORMAT, "arch": predictor.arch, "vocab": predictor.vocab, "no_digit": predictor.no_digit,
              "temperature": predictor.temperature, "threshold": predictor.threshold, "facts": predictor.facts}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in predictor.model.state_dict().items()
               if weight.is_floating_point()}
    path = Path(path)
    with whole_file(path) as part:
        part.write_bytes(save(weights, {"digitfast": json.dumps(header, ensure_ascii=False)}))
    return path


def open_predictor(
    path: str | Path,  # of a .safetensors that `save_predictor` wrote
) -> Predictor:
    "The network in a .safetensors file. No code in it is run. Raises: `RunNotFound`, `BadData`."
    path = Path(path)
    if not path.is_file():
        raise RunNotFound(f"{path} is no file; a .safetensors from `digitfast export` is wanted")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["digitfast"])
        if header["format"] != FORMAT:
            raise BadData(f"{path} has the format {header['format']!r}; {FORMAT!r} is wanted")
        model = BUILDERS[header["arch"]](n_out=len(header["vocab"]))
        missing, strange = model.load_state_dict(load_file(path), strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or strange:
            raise BadData(f"{path} has weights that do not fit {header['arch']}: {', '.join([*missing, *strange])}")
        vocab, facts = [str(label) for label in header["vocab"]], dict(header["facts"])
        temperature, threshold = float(header["temperature"]), float(header["threshold"])
        if not (0 < temperature < math.inf and 0 <= threshold <= 1 and len(set(vocab)) == len(vocab)
                and all(weight.isfinite().all() for weight in model.state_dict().values())):
            raise BadData(f"{path} is damaged: its temperature, threshold, classes or weights are none that can be")
        return Predictor(model.eval(), vocab, bool(header["no_digit"]), temperature, threshold, header["arch"], facts)
    except BadData:
        raise
    except (SafetensorError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as e:
        raise BadData(f"{path} is no network of digitfast's ({e})") from e


@cache
def _packed() -> Predictor:
    return open_predictor(PACKED)
