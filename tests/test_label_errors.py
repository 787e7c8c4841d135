"""Label errors: the same as cleanlab finds, and labels made wrong on purpose are found."""
import random

import numpy as np
import pytest
import torch
from cleanlab.filter import find_label_issues

from digitfast import digit_dls
from digitfast.evaluation.label_errors import (
    confident_label_errors,
    cross_validated_chances,
    label_margins,
)


def random_chances(seed, n=400, classes=6, sharpness=3.0):
    "Return random probabilities, and labels that mostly agree with them."
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * sharpness
    logits[np.arange(n), labels] += sharpness * rng.random(n) * 2
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_finds_the_same_as_cleanlab(seed, sharpness):
    chances, labels = random_chances(seed, classes=2 + seed, sharpness=sharpness)
    theirs = find_label_issues(labels, chances, filter_by="confident_learning", n_jobs=1,
                               return_indices_ranked_by="normalized_margin")
    ours = confident_label_errors(chances, labels)
    assert len(ours) > 0
    assert set(ours) == set(theirs)
    margins = label_margins(chances, labels)
    assert margins[ours] == pytest.approx(margins[theirs], abs=1e-12)  # the most doubtful first


def test_an_example_worked_out_by_hand():
    chances = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1, 1])  # mean chances of their labels: 0.6 and 0.75
    assert confident_label_errors(chances, labels).tolist() == [2]
    assert label_margins(chances, labels) == pytest.approx([0.8, 0.4, -0.6, 0.2, 0.8])


def test_no_image_belongs_to_a_class_without_images():
    chances = np.array([[0.1, 0.1, 0.8], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    labels = np.array([0, 0, 1])
    assert confident_label_errors(chances, labels).tolist() == []


def test_flipped_labels_are_found(digits):
    """Most wrong labels are found, and little else.

    Of 300 training and 120 test digits, 15 and 6 get the label of the next digit.
    """
    dls = digit_dls(digits, bs=32)
    rng = np.random.default_rng(0)
    flipped = []
    for dl, n in zip(dls.loaders, (15, 6), strict=True):
        rows = rng.choice(dl.n, n, replace=False)
        dl.labels[rows] = (dl.labels[rows] + 1) % 10
        flipped.append(set(rows.tolist()))
    python_state = random.getstate()
    torch_state = torch.get_rng_state()
    both_chances = cross_validated_chances(*dls.loaders)
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    for dl, chances, wrong in zip(dls.loaders, both_chances, flipped, strict=True):
        labels = dl.labels.numpy()
        assert chances.shape == (dl.n, 10)
        assert chances.sum(axis=1) == pytest.approx(np.ones(dl.n))
        found = confident_label_errors(chances, labels).tolist()
        contradicted = set(np.flatnonzero(label_margins(chances, labels) < 0).tolist())
        assert set(found) <= contradicted
        assert len(wrong & contradicted) >= 0.8 * len(wrong)
        assert len(wrong & set(found)) >= 0.6 * len(wrong)
        assert len(found) <= 1.6 * len(wrong)
        half = len(wrong) // 2
        assert len(wrong & set(found[:half])) >= half - 1  # wrong labels come first


def test_no_network_answers_for_what_it_has_seen(digits, monkeypatch):
    from digitfast.evaluation import label_errors
    dls = digit_dls(digits, bs=32)
    seen = []
    asked = []  # by turns of the fold left out, and of the other loader

    def images(dl):
        return {pixels.numpy().tobytes() for pixels in dl.pixels}

    def train_network(dl, n_classes):
        counts = dl.labels.bincount(minlength=n_classes)
        assert counts.tolist() == [24] * 10  # each fold has its share of every class
        seen.append(images(dl))

    def probabilities(learn, dl):
        asked.append(images(dl))
        return torch.full((dl.n, 10), 0.1, dtype=torch.float64)
    monkeypatch.setattr(label_errors, "_train_network", train_network)
    monkeypatch.setattr(label_errors, "_probabilities", probabilities)
    cross_validated_chances(*dls.loaders)
    assert len(seen) == 5
    assert set().union(*asked[::2]) == images(dls.train)
    for learned, others in zip(seen, asked[::2], strict=True):
        assert not learned & others
        assert learned | others == images(dls.train)
