import pytest

from digitfast.errors import UnknownName
from digitfast.registry import ARCHITECTURES, OPTIMIZERS, optimizer, resolve, unknown


@pytest.mark.parametrize("entry", [*ARCHITECTURES.values(), *OPTIMIZERS.values()])
def test_every_entry_is_there(entry):
    assert callable(resolve(entry))


def test_unknown_name_tells_the_nearest_and_all():
    error = str(unknown("architecture", "resnet81", ARCHITECTURES))
    assert "'resnet81'" in error and "Did you mean resnet18" in error and "squeezenet1_0" in error
    with pytest.raises(UnknownName, match="Did you mean adam"):
        optimizer("adma")
