"Against cleanlab, and against labels that were made wrong on purpose."
import random

import numpy as np
import pytest
import torch
from cleanlab.filter import find_label_issues

from digitfast import digit_dls
from digitfast.evaluation.label_errors import confident_label_errors, cross_validated_chances, label_margins


def drawn(seed, n=400, classes=6, sharpness=3.0):
    "Labels, and chances that mostly agree with them."
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * sharpness
    logits[np.arange(n), labels] += sharpness * rng.random(n) * 2
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_same_as_cleanlab(seed, sharpness):
    chances, labels = drawn(seed, classes=2 + seed, sharpness=sharpness)
    theirs = find_label_issues(labels, chances, filter_by="confident_learning", n_jobs=1,
                               return_indices_ranked_by="normalized_margin")
    ours = confident_label_errors(chances, labels)
    assert set(ours) == set(theirs) and len(ours) > 0
    margins = label_margins(chances, labels)
    assert margins[ours] == pytest.approx(margins[theirs], abs=1e-12)  # the most doubtful first


def test_by_hand():
    chances = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1, 1])  # usual chances: 0.6 of class 0, 0.75 of class 1
    assert confident_label_errors(chances, labels).tolist() == [2]
    assert label_margins(chances, labels) == pytest.approx([0.8, 0.4, -0.6, 0.2, 0.8])


def test_a_class_without_images_is_nobodys():
    chances, labels = np.array([[0.1, 0.1, 0.8], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 0, 1])
    assert confident_label_errors(chances, labels).tolist() == []


def test_flipped_labels_are_found(digits):
    "Of 300 training and 120 test digits some get the label of the next digit; most of them are found, and little else."
    dls = digit_dls(digits, bs=32)
    rng = np.random.default_rng(0)
    flipped = []
    for dl, n in zip(dls.loaders, (15, 6), strict=True):
        rows = rng.choice(dl.n, n, replace=False)
        dl.labels[rows] = (dl.labels[rows] + 1) % 10
        flipped.append(set(rows.tolist()))
    before = random.getstate(), torch.get_rng_state()
    for dl, chances, wrong in zip(dls.loaders, cross_validated_chances(*dls.loaders), flipped, strict=True):
        assert chances.shape == (dl.n, 10) and chances.sum(axis=1) == pytest.approx(np.ones(dl.n))
        found = confident_label_errors(chances, dl.labels.numpy()).tolist()
        contradicted = set(np.flatnonzero(label_margins(chances, dl.labels.numpy()) < 0).tolist())
        assert len(wrong & contradicted) >= 0.8 * len(wrong) and set(found) <= contradicted
        assert len(wrong & set(found)) >= 0.6 * len(wrong) and len(found) <= 1.6 * len(wrong)
        assert len(wrong & set(found[:len(wrong) // 2])) >= len(wrong) // 2 - 1  # they come first
    assert before[0] == random.getstate() and torch.equal(before[1], torch.get_rng_state())


def test_no_network_answers_for_what_it_has_seen(digits, monkeypatch):
    from digitfast.evaluation import label_errors
    dls, seen, asked = digit_dls(digits, bs=32), [], []

    def trained(dl, classes):
        assert dl.labels.bincount(minlength=classes).tolist() == [24] * 10  # each fold has its share of every class
        seen.append({p.numpy().tobytes() for p in dl.pixels})

    def answers(learn, dl):
        asked.append({p.numpy().tobytes() for p in dl.pixels})
        return torch.full((dl.n, 10), 0.1, dtype=torch.float64)
    monkeypatch.setattr(label_errors, "_trained", trained)
    monkeypatch.setattr(label_errors, "_answers", answers)
    cross_validated_chances(*dls.loaders)
    every = {p.numpy().tobytes() for p in dls.train.pixels}
    assert len(seen) == 5 and set().union(*asked[::2]) == every
    for learned, others in zip(seen, asked[::2], strict=True):
        assert not learned & others and learned | others == every
