"""Each setting is checked where it is given, and kept as Python's own types."""
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from digitfast import BadSetting, Recipe, UnknownName


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Recipe().epochs = 2


@pytest.mark.parametrize(("given", "kept"), [
    ({"source": Path("digits")}, "digits"), ({"runs": Path("runs")}, "runs"),
    ({"runs": "~/runs"}, str(Path("~/runs").expanduser())), ({"epochs": np.int64(3)}, 3),
    ({"lr": np.float32(0.5)}, 0.5), ({"lr": 1}, 1.0), ({"wd": None}, None),
    ({"seed": np.int64(7)}, 7)], ids=str)
def test_values_become_pythons_own(given, kept):
    (name, _), = given.items()
    value = getattr(Recipe(**given), name)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(("given", "message"), [
    ({"epochs": "2"}, "epochs must be a whole number, not '2'"),
    ({"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
    ({"epochs": True}, "epochs must be a whole number, not True"),
    ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
    ({"bs": "64"}, "bs must be a whole number, not '64'"),
    ({"augment": "1"}, "augment must be a number, not '1'"),
    ({"lr": float("nan")}, "lr must be a number above 0, such as 0.003, not nan"),
    ({"arch": 5}, "arch must be text, not 5"),
    ({"name": "a\nb"}, "name must be printable and on one line"),
    ({"seed": -1}, "seed must be a whole number from 0"),
    ({"mom": 1.0}, "mom must be 0 to below 1, such as 0.9, not 1.0"),
    ({"wd": -1.0}, "wd must be 0 or more, not -1.0"),
    ({"non_digits": 2.0}, "non_digits must be 0 to 1")], ids=str)
def test_what_cannot_be(given, message):
    with pytest.raises(BadSetting, match=message):
        Recipe(**given)


@pytest.mark.parametrize(("given", "message"), [
    ({"schedule": "one-cycle"}, "Did you mean one_cycle"), ({"precision": "bf6"}, "bf16")], ids=str)
def test_names_that_there_are_not(given, message):
    with pytest.raises(UnknownName, match=message):
        Recipe(**given)
