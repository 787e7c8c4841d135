import sys

import pytest

from digitfast.errors import BadSetting, UnknownName
from digitfast.registry import (
    ARCHITECTURES,
    LOGS,
    OPTIMIZERS,
    log_callback,
    optimizer,
    resolve,
    unknown,
)


@pytest.mark.parametrize("entry", [*ARCHITECTURES.values(), *OPTIMIZERS.values(), *LOGS.values()])
def test_every_entry_is_there(entry):
    assert callable(resolve(entry))


def test_unknown_name_tells_the_nearest_and_all():
    error = str(unknown("architecture", "resnet81", ARCHITECTURES))
    assert "'resnet81'" in error
    assert "Did you mean resnet18" in error
    assert "squeezenet1_0" in error
    with pytest.raises(UnknownName, match="Did you mean adam"):
        optimizer("adma")


def test_a_log_whose_package_is_missing_tells_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "fastai.callback.tensorboard", raising=False)
    with pytest.raises(BadSetting, match="pip install tensorboard"):
        log_callback("tensorboard")
    with pytest.raises(UnknownName, match="Known: tensorboard"):
        log_callback("wandb")
