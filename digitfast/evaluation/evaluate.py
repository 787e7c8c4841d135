"""Turn labelled images into `Evidence`, with a `Learner` or with any network ready to answer."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fastai.callback.progress  # noqa: F401 - gives Learner no_bar
import numpy as np
import torch
from fastai.learner import Learner
from fastcore.basics import noop
from PIL import Image

from digitfast.data.forms import evaluation_digits, labelled_pictures
from digitfast.data.images import PILDigit
from digitfast.data.labelled import LabelledImages
from digitfast.data.pictures import fit_square, read_grey, read_picture
from digitfast.errors import BadData, BadSetting
from digitfast.evaluation.accuracy import Evidence, count_confusion, evidence_of
from digitfast.inference.predictor import Predictor, predictor_of
from digitfast.reading.answers import predict_pictures
from digitfast.reading.ink import SMALL, even_ink
from digitfast.reading.line_search import network_form
from digitfast.reading.reader import read_digit
from digitfast.training.processes import alone


def evaluate_learner(
    learn: Learner,  # trained, or loaded from a file
    source: Any = None,  # as for `digit_dls`; None: the validation set of `learn.dls`
) -> Evidence:
    """Compare the predictions of `learn` with the labels of images it was not trained on.

    The loss is the Learner's own.
    Raises: `BadData` if there are no images, or if their classes are not those of `learn`.
    """
    _check_learner(learn)
    if source is not None:
        return _evaluate_on(learn, evaluation_digits(source))
    dl = learn.dls.valid
    if not len(dl.dataset):
        raise BadData("there are no images to evaluate on, as in a Learner that was loaded from a "
                      "file; name a folder of images")
    with alone(), learn.no_bar():
        probabilities, actual, losses = learn.get_preds(dl=dl, with_loss=True)
    vocab = list(getattr(learn.dls, "vocab", map(str, range(probabilities.shape[1]))))
    predicted = probabilities.argmax(dim=1).numpy()
    return Evidence(vocab=vocab, confusion=count_confusion(actual.numpy(), predicted, len(vocab)),
                    loss=float(losses.mean()))


def _evaluate_on(learn: Learner, digits: Path | LabelledImages) -> Evidence:
    "Return the `Evidence` of a `Learner` on labelled pictures, whatever its own images are."
    pictures, names = labelled_pictures(digits)
    vocab = list(learn.dls.vocab)
    _check_classes(names, vocab, digits)
    labels = torch.tensor([vocab.index(name) for name in names])
    dl = learn.dls.test_dl([PILDigit.create(picture) for picture in pictures])
    with alone(), learn.no_bar():
        outputs, _ = learn.get_preds(dl=dl, act=noop)
    return Evidence(vocab=vocab, loss=float(learn.loss_func(outputs, labels)),
                    confusion=count_confusion(labels.numpy(), outputs.argmax(1).numpy(),
                                              len(vocab)))


def predict_files(
    learn: Learner,  # trained, or loaded from a file
    images: Iterable[str | Path],  # files, and folders, which stand for all pictures in them
) -> list[dict]:
    """Return one answer per picture, in the order given.

    An answer has the keys file, digit, probability, and probabilities by class. For a picture that
    cannot be read it has file and error, and the other pictures are answered all the same.
    Raises: `BadData` for a network whose training has diverged.
    """
    _check_learner(learn)
    always_answers = replace(predictor_of(learn), threshold=0.0)
    return predict_pictures(images, always_answers, as_is=True)


def _check_learner(thing: object) -> None:
    "Raise `BadSetting` if it is not a `Learner`."
    if not isinstance(thing, Learner):
        raise BadSetting(f"learn must be a Learner, not {type(thing).__name__}; for a run or a "
                         "model file use digitfast evaluate, digitfast predict, or read_digit")


def _check_classes(
    found: Iterable[str],  # classes of `digits`
    vocab: Sequence[str],  # of the network
    digits: Path | LabelledImages,
) -> None:
    "Raise `BadData` if some of the classes are not among those of the network."
    if unknown := sorted(set(found) - set(vocab)):
        raise BadData(f"{digits} has classes that the network does not know: "
                      f"{', '.join(unknown)}; it knows {', '.join(vocab)}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    "The answers of a network to the pictures of one set, given in two ways."
    chances: np.ndarray  # float `[n, classes + 1]` in MNIST's form: probabilities, "no digit" last
    as_is: np.ndarray  # the same for the pictures as they come, only scaled to the network's size
    labels: np.ndarray  # int `[n]`: indices of the classes


def answer_pictures(
    predictor: Predictor,
    pictures: Sequence,  # each as `read_picture` takes it
    labels: Sequence[int],  # indices of their classes
    ink: str = "auto",  # as for `read_digit`
) -> Answers:
    """Return the probabilities of the one digit in each picture, in MNIST's form and as it comes.

    It reads each picture as `read_digit` does, but runs the network on all small ones at once.
    """
    nothing_found = np.zeros(len(predictor.vocab) + 1)
    nothing_found[-1] = 1.0
    forms: list[np.ndarray] = []
    squares: list[np.ndarray] = []
    read: dict[int, np.ndarray] = {}  # probabilities of the pictures that are not left to `forms`
    for i, picture in enumerate(pictures):
        grey, _ = read_picture(picture)
        squares.append(np.asarray(fit_square(Image.fromarray(grey), predictor.size)))
        if max(grey.shape) < SMALL:
            forms.append(network_form(even_ink(grey, ink).density, predictor))
            if not forms[-1].any():
                read[i] = nothing_found
        else:
            digit = read_digit(picture, predictor, ink).digit
            read[i] = (nothing_found if digit is None
                       else np.array([*digit.probabilities.values(), digit.no_digit]))
            forms.append(np.zeros((predictor.size,) * 2, np.uint8))  # keeps the place of `i`
    chances = predictor.chances(np.stack(forms))
    for i, row in read.items():
        chances[i] = row
    return Answers(chances=chances, as_is=predictor.chances(np.stack(squares)),
                   labels=np.asarray(labels))


def evaluate_pictures(
    predictor: Predictor,
    digits: Path | LabelledImages,  # a folder of class folders, or images in memory
    as_is: bool = False,  # whether to only scale the pictures; False: bring them into MNIST's form
) -> Evidence:
    """Compare the answers of `predictor` with the labels of pictures.

    Raises: `BadData`, `BadImage`.
    """
    pictures, names = labelled_pictures(digits)
    _check_classes(names, predictor.vocab, digits)
    index = {label: i for i, label in enumerate(predictor.vocab)}
    labels = np.array([index[name] for name in names])
    if as_is:
        squares = [np.asarray(fit_square(read_grey(picture), predictor.size))
                   for picture in pictures]
        chances = predictor.chances(np.stack(squares))
    else:
        chances = answer_pictures(predictor, pictures, labels).chances
    return evidence_of(chances, labels, list(index), predictor.threshold)
