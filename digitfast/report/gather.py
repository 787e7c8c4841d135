"""What there is to show for a run: gathered from its folder, its network and the images it was trained for."""
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digitfast.data.folders import HELD_OUT, find_splits, split_name
from digitfast.data.loaders import DigitDataLoaders, digit_dls
from digitfast.data.mnist_form import SIDE
from digitfast.data.resident import ResidentDL
from digitfast.data.sources import digits_path
from digitfast.errors import BadData
from digitfast.evaluation.accuracy import Evidence, evidence_of
from digitfast.evaluation.label_errors import confident_label_errors, cross_validated_chances, label_margins
from digitfast.inference.predictor import Predictor
from digitfast.runs.folders import Run

WORST, DOUBTFUL = 40, 24  # pictures of each kind that are shown


@dataclass(frozen=True, eq=False)
class Shown:
    "A picture to look at, with its label and what a network says instead."
    image: np.ndarray  # uint8 `[h, w]`, 255 = ink
    file: str  # below the folder of digits
    label: str
    answer: str  # a class, or "no digit"
    probability: float  # of the answer
    of_label: float  # probability of the label


@dataclass(frozen=True, eq=False)
class LabelErrors:
    "The labels that are most likely wrong among some images."
    images: int  # that were looked at
    found: int = 0  # that networks confidently contradict
    shown: tuple[Shown, ...] = ()  # those first, then those that are contradicted less confidently
    missing: str = ""  # why they could not be looked for


@dataclass(frozen=True, eq=False)
class RunEvidence:
    "Everything that a report shows."
    run: Run
    measured_on: str  # "test images", "validation images", or `HELD_OUT`
    chances: np.ndarray  # float64 `[n, classes + 1]`, the last one of "no digit"
    labels: np.ndarray  # int64 `[n]`
    evidence: Evidence
    worst: tuple[Shown, ...]  # by the loss, the highest first
    training_errors: LabelErrors
    measured_errors: LabelErrors  # in the images that it was measured on
    same_images: bool | None  # whether they are those of the training, by their checksum; None: it is not known
    seconds: dict[str, float]  # of each phase of the report


def gather_evidence(
    run: Run,  # finished; its digits are still where they were
) -> RunEvidence:
    """Measure a run's network again, on the images that it was validated on, and look for wrong labels.

    A run that was validated on held-out training images leaves the test images alone here, too.
    Raises: `DataNotFound`, `BadData` where the digits are others, or the network's answers are not numbers.
    """
    start = time.perf_counter()
    settings = run.summary["settings"]
    kept = {key: settings[key] for key in ("bs", "holdout", "seed", "size")}
    path = digits_path(settings["source"], fetch=False)
    dls = digit_dls(path, **kept, resident=True)
    small = dls if kept["size"] == SIDE else digit_dls(path, **{**kept, "size": SIDE}, resident=True)
    read = time.perf_counter()
    predictor, labels, vocab = _same_classes(run.predictor(), dls), dls.valid.labels.cpu().numpy(), list(dls.vocab)
    chances = predictor.chances(dls.valid.pixels.cpu().numpy())
    worst = np.argsort(chances[np.arange(len(labels)), labels], kind="stable")[:WORST].tolist()
    asked = time.perf_counter()
    training, measured = _label_errors(small, path)
    known = run.summary.get("data", {}).get("sha256")
    return RunEvidence(
        run, HELD_OUT if kept["holdout"] else split_name(find_splits(path)[1]), chances, labels,
        evidence_of(chances, labels, vocab, predictor.threshold), _shown(small.valid, path, vocab, chances, worst),
        training, measured, None if known is None else dls.checksum() == known,
        {"reading the images": read - start, "asking the network": asked - read,
         "looking for wrong labels": time.perf_counter() - asked})


def _same_classes(predictor: Predictor, dls: DigitDataLoaders) -> Predictor:
    "`predictor`, if its classes are those of `dls`."
    if predictor.vocab != list(dls.vocab):
        raise BadData(f"{dls.path} has the classes {', '.join(dls.vocab)}; the network was trained on "
                      f"{', '.join(predictor.vocab)}")
    return predictor


def _label_errors(dls: DigitDataLoaders, path: Path) -> list[LabelErrors]:
    "Of the training images and of the others."
    vocab = list(dls.vocab)
    counts = dls.train.labels.bincount(minlength=len(vocab))
    if counts.min() < 2:
        missing = f"the class {vocab[int(counts.argmin())]} has less than two training images"
        return [LabelErrors(dl.n, missing=missing) for dl in dls.loaders]
    found = []
    for dl, chances in zip(dls.loaders, cross_validated_chances(*dls.loaders), strict=True):
        labels = dl.labels.cpu().numpy()
        doubtful, margins = confident_label_errors(chances, labels), label_margins(chances, labels)
        others = np.setdiff1d(np.flatnonzero(margins < 0), doubtful)
        rows = [*doubtful, *others[margins[others].argsort(kind="stable")]][:DOUBTFUL]
        found.append(LabelErrors(dl.n, len(doubtful), _shown(dl, path, vocab, chances, rows)))
    return found


def _shown(dl: ResidentDL, path: Path, vocab: list[str], chances: np.ndarray, rows) -> tuple[Shown, ...]:
    "The pictures of these rows of `dl`, with what `chances` say of them."
    names = [*vocab, "no digit"]
    return tuple(Shown(dl.pixels[i].cpu().numpy(), dl.dataset.items[i].relative_to(path).as_posix(),
                       vocab[int(dl.labels[i])], names[int(chances[i].argmax())], float(chances[i].max()),
                       float(chances[i, int(dl.labels[i])])) for i in map(int, rows))
