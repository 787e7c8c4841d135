"""Gather what a report shows, from a run's folder, its network and its images."""
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digitfast.data.dataloaders import DigitDataLoaders
from digitfast.data.devices import named_device
from digitfast.data.images import item_name
from digitfast.data.loaders import digit_dls
from digitfast.data.mnist_form import SIDE
from digitfast.data.resident import ResidentDL
from digitfast.errors import BadData
from digitfast.evaluation.accuracy import Evidence, evidence_of
from digitfast.evaluation.label_errors import (
    confident_label_errors,
    cross_validated_chances,
    label_margins,
)
from digitfast.inference.predictor import Predictor
from digitfast.runs.digits import checked_settings, run_digits
from digitfast.runs.folders import Run
from digitfast.training.state import random_state_kept


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    "A picture for a person to look at, with its label and the answer of a network."
    image: np.ndarray  # uint8 `[h, w]`, 255 = ink
    file: str  # relative to the folder of digits
    label: str
    answer: str  # a class, or "no digit"
    probability: float  # of the answer
    of_label: float  # probability of the label


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelErrors:
    "The labels of some images that are most likely wrong."
    images: int  # searched
    found: int = 0  # labels that networks confidently contradict
    shown: tuple[Shown, ...] = ()  # these first, then those contradicted less confidently
    missing: str = ""  # why they could not be searched


@dataclass(frozen=True, eq=False, kw_only=True)
class RunEvidence:
    "Everything that a report shows."
    run: Run
    measured_on: str  # "test images", "validation images", or `HELD_OUT`
    chances: np.ndarray  # float64 `[n, classes + 1]`, the last column of "no digit"
    labels: np.ndarray  # int64 `[n]`
    evidence: Evidence
    worst: tuple[Shown, ...]  # with the highest loss, in falling order
    training_errors: LabelErrors
    measured_errors: LabelErrors  # in the images that the run is measured on
    same_images: bool | None  # whether the checksum is still that of training; None: not known
    seconds: dict[str, float]  # per phase of the report


def gather_evidence(
    run: Run,  # finished; its digits must still be where they were
    device: str | None = None,  # where images are kept and small networks trained; None: the GPU
) -> RunEvidence:
    """Measure a run's network again on the images that validated it, and look for wrong labels.

    Where held-out training images validated the run, the test images are left alone here too.
    Raises: `DataNotFound`; `BadData` if the digits have changed or the network answers no numbers.
    """
    most_shown = 40  # of the images with the highest loss
    start = time.perf_counter()
    settings = run.summary["settings"]
    kept = {key: settings[key] for key in ("bs", "holdout", "seed", "size")}
    kept["device"] = named_device(device)
    digits = run_digits(checked_settings(settings))
    with random_state_kept():  # the seed settles the held-out images, and nothing else here
        dls = digit_dls(digits, **kept, resident=True)
        small = (dls if kept["size"] == SIDE
                 else digit_dls(digits, **{**kept, "size": SIDE}, resident=True))
    read = time.perf_counter()
    predictor = _same_classes(run.predictor(), dls)
    labels, vocab = dls.valid.labels.cpu().numpy(), list(dls.vocab)
    chances = predictor.chances(dls.valid.pixels.cpu().numpy())
    of_label = chances[np.arange(len(labels)), labels]
    worst = np.argsort(of_label, kind="stable")[:most_shown].tolist()
    measured = time.perf_counter()
    training_errors, measured_errors = _label_errors(small)
    searched = time.perf_counter()
    checksum = run.summary.get("data", {}).get("sha256")
    return RunEvidence(
        run=run, measured_on=dls.validated_on,
        chances=chances, labels=labels,
        evidence=evidence_of(chances, labels, vocab, predictor.threshold),
        worst=_shown(small.valid, dls.path, vocab, chances, worst),
        training_errors=training_errors, measured_errors=measured_errors,
        same_images=None if checksum is None else dls.checksum() == checksum,
        seconds={"reading the images": read - start, "running the network": measured - read,
                 "looking for wrong labels": searched - measured})


def _same_classes(predictor: Predictor, dls: DigitDataLoaders) -> Predictor:
    "Return `predictor` if its classes are those of `dls`."
    if predictor.vocab != list(dls.vocab):
        raise BadData(f"{dls.path} has the classes {', '.join(dls.vocab)}; the network was trained "
                      f"on {', '.join(predictor.vocab)}")
    return predictor


def _label_errors(dls: DigitDataLoaders, most_shown: int = 24) -> list[LabelErrors]:
    "Return the doubtful labels of the training images and of the validation images."
    vocab = list(dls.vocab)
    counts = dls.train.labels.bincount(minlength=len(vocab))
    if counts.min() < 2:
        missing = f"the class {vocab[int(counts.argmin())]} has fewer than two training images"
        return [LabelErrors(images=dl.n, missing=missing) for dl in dls.loaders]
    found = []
    for dl, chances in zip(dls.loaders, cross_validated_chances(*dls.loaders), strict=True):
        labels = dl.labels.cpu().numpy()
        doubtful = confident_label_errors(chances, labels)
        margins = label_margins(chances, labels)
        others = np.setdiff1d(np.flatnonzero(margins < 0), doubtful)
        rows = [*doubtful, *others[margins[others].argsort(kind="stable")]][:most_shown]
        found.append(LabelErrors(images=dl.n, found=len(doubtful),
                                 shown=_shown(dl, dls.path, vocab, chances, rows)))
    return found


def _shown(
    dl: ResidentDL,
    path: Path,  # of the digits, if they are files
    vocab: list[str],
    chances: np.ndarray,  # float `[n, classes]` or `[n, classes + 1]`
    rows: Sequence[int],
) -> tuple[Shown, ...]:
    "Return the pictures in these rows of `dl`, with the answers to them."
    names = [*vocab, "no digit"]
    return tuple(
        Shown(image=dl.pixels[i].cpu().numpy(),
              file=item_name(dl.dataset.items[i], path),
              label=vocab[int(dl.labels[i])], answer=names[int(chances[i].argmax())],
              probability=float(chances[i].max()), of_label=float(chances[i, int(dl.labels[i])]))
        for i in map(int, rows))
