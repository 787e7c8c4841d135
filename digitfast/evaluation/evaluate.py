"""Labelled images → `Evidence`: of a `Learner`, or of any network that is ready to answer."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fastai.callback.progress  # noqa: F401 - gives Learner no_bar
import numpy as np
from fastai.data.transforms import get_image_files
from fastai.learner import Learner
from PIL import Image

from digitfast.data.folders import evaluation_folder
from digitfast.data.pictures import fit_square, read_grey, read_picture
from digitfast.errors import BadData, BadSetting
from digitfast.evaluation.accuracy import Evidence, evidence_of
from digitfast.inference.predictor import Predictor, predictor_of
from digitfast.reading.answers import predict_pictures
from digitfast.reading.ink import SMALL, find_ink
from digitfast.reading.reader import network_form, read_digit
from digitfast.training.processes import alone


def evaluate_learner(
    learn: Learner,  # trained, or loaded from a file
    folder: str | Path | None = None,  # images in class folders; None: the validation set of `learn.dls`
) -> Evidence:
    "Compare the predictions of `learn` with the labels of images it was not trained on."
    _check_learner(learn)
    if folder is None:
        dl = learn.dls.valid
    else:
        folder = evaluation_folder(str(folder))
        files = sorted(get_image_files(folder))
        if strange := {f.parent.name for f in files} - set(learn.dls.vocab):
            raise BadData(f"{folder} has classes that the network does not know: {', '.join(sorted(strange))}; "
                          f"it knows {', '.join(learn.dls.vocab)}")
        if not files:
            raise BadData(f"{folder} holds no images")
        dl = learn.dls.test_dl(files, with_labels=True)
    if not len(dl.dataset):
        raise BadData("there are no images to evaluate on, as in a Learner that was loaded from a file; "
                      "name a folder of images")
    with alone(), learn.no_bar():
        probabilities, actual, losses = learn.get_preds(dl=dl, with_loss=True)
    vocab = list(getattr(learn.dls, "vocab", map(str, range(probabilities.shape[1]))))
    confusion = np.zeros((len(vocab), len(vocab)), dtype=int)
    np.add.at(confusion, (actual.numpy(), probabilities.argmax(dim=1).numpy()), 1)
    return Evidence(vocab, confusion, float(losses.mean()))


def predict_files(
    learn: Learner,  # trained, or loaded from a file
    images: Iterable[str | Path],  # files, and folders that stand for all pictures in them
) -> list[dict]:
    """Return an answer per picture, in the order given: file, digit, probability, probabilities by class.

    A picture that cannot be read has the answer file and error, and does not stop the others.
    Raises: `BadData` for a network whose training has diverged.
    """
    _check_learner(learn)
    always_answers = replace(predictor_of(learn), threshold=0.0)
    return predict_pictures(images, always_answers, as_is=True)


def _check_learner(thing: object) -> None:
    "Raise `BadSetting` for what is no `Learner`."
    if not isinstance(thing, Learner):
        raise BadSetting(f"learn must be a Learner, not {type(thing).__name__}; for the network of a run or "
                         "a file there are digitfast evaluate and digitfast predict, and read_digit")


@dataclass(frozen=True, eq=False)
class Answers:
    "What a network said of the pictures of one set."
    chances: np.ndarray  # float `[n, classes + 1]`: probabilities, and of "no digit"
    as_is: np.ndarray  # the same, of the pictures as they come, brought to 28×28 pixels
    labels: np.ndarray  # int `[n]`: indices of the classes


def answer_pictures(
    predictor: Predictor,
    pictures: Sequence,  # what `read_picture` takes
    labels: Sequence[int],  # indices of their classes
    ink: str = "auto",
) -> Answers:
    "The chances that `predictor` gives the one digit in each picture, through MNIST's form and as it comes."
    nothing = np.zeros(len(predictor.vocab) + 1)
    nothing[-1] = 1.0
    forms, squares, rows = [], [], {}
    for i, picture in enumerate(pictures):
        grey, _ = read_picture(picture)
        squares.append(np.asarray(fit_square(Image.fromarray(grey), predictor.size)))
        if min(grey.shape) < SMALL:
            forms.append(network_form(find_ink(grey, ink).density, predictor))
            if not forms[-1].any():
                rows[i] = nothing
        else:
            digit = read_digit(picture, predictor, ink).digit
            rows[i] = nothing if digit is None else np.array([*digit.probabilities.values(), digit.no_digit])
            forms.append(np.zeros((predictor.size,) * 2, np.uint8))
    chances = predictor.chances(np.stack(forms))
    for i, row in rows.items():
        chances[i] = row
    return Answers(chances, predictor.chances(np.stack(squares)), np.asarray(labels))


def evaluate_pictures(
    predictor: Predictor,
    folder: str | Path,  # of class folders
    as_is: bool = False,  # whether the pictures are as those that the network was trained on, and want only their size
) -> Evidence:
    """The `Evidence` of the pictures in class folders, brought into MNIST's form unless they are taken as they are.

    Raises: `BadData`, `BadImage`.
    """
    from digitfast.data.folders import class_images  # imports fastai
    images = class_images(Path(folder))
    index = {label: i for i, label in enumerate(predictor.vocab)}
    if strange := sorted(images.keys() - index.keys()):
        raise BadData(f"{folder} has classes that the network does not know: {', '.join(strange)}; "
                      f"it knows {', '.join(index)}")
    files = [file for of_class in images.values() for file in of_class]
    labels = np.array([index[file.parent.name] for file in files])
    if not files:
        raise BadData(f"{folder} holds no images in its class folders")
    if as_is:
        chances = predictor.chances(np.stack([np.asarray(fit_square(read_grey(f), predictor.size)) for f in files]))
    else:
        chances = answer_pictures(predictor, files, labels).chances
    return evidence_of(chances, labels, list(index), predictor.threshold)
