"""What a given `Learner` can be trusted with: accuracy and its uncertainty, and which digits it mistakes for which."""
import math
from collections.abc import Iterable
from pathlib import Path

import fastai.callback.progress  # noqa: F401 - gives Learner no_bar
import numpy as np
from fastai.data.transforms import get_image_files
from fastai.learner import Learner

from digitfast.data.images import PILDigit
from digitfast.errors import BadData, BadImage
from digitfast.evaluation.accuracy import Evidence
from digitfast.training.processes import alone


def evaluate_learner(
    learn: Learner,  # trained, or loaded from a file
    folder: str | Path | None = None,  # images in class folders; None: the validation set of `learn.dls`
) -> Evidence:
    "Compare the predictions of `learn` with the labels of images it was not trained on."
    if folder is None:
        dl = learn.dls.valid
    else:
        files = sorted(get_image_files(folder))
        if strange := {f.parent.name for f in files} - set(learn.dls.vocab):
            raise BadData(f"{folder} has classes that the network does not know: {', '.join(sorted(strange))}; "
                          f"it knows {', '.join(learn.dls.vocab)}")
        if not files:
            raise BadData(f"{folder} holds no images")
        dl = learn.dls.test_dl(files, with_labels=True)
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
    """One answer a picture, in the order given: file, digit, probability and probabilities by class.

    A picture that cannot be read has the answer file and error, and does not stop the others.
    """
    answers, readable = [], []
    for image in map(Path, images):
        files = sorted(get_image_files(image)) if image.is_dir() else [image]
        if not files:
            answers.append({"file": str(image), "error": f"{image} holds no pictures"})
        for file in files:
            answer = {"file": str(file)}
            answers.append(answer)
            try:
                PILDigit.create(file)
                readable.append((answer, file))
            except BadImage as e:
                answer["error"] = str(e)
    if readable:
        with alone(), learn.no_bar():
            rows, _ = learn.get_preds(dl=learn.dls.test_dl([file for _, file in readable], num_workers=0))
        for (answer, file), row in zip(readable, rows.tolist(), strict=True):
            if not all(map(math.isfinite, row)):
                answer["error"] = f"{file}: the network's answer is not a number; its training has diverged"
                continue
            best = max(range(len(row)), key=row.__getitem__)
            answer |= {"digit": learn.dls.vocab[best], "probability": row[best],
                       "probabilities": dict(zip(learn.dls.vocab, row, strict=True))}
    return answers
