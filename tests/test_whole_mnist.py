"""Runs on all of MNIST, minutes each: `make test-all`."""
import pytest

from digitfast import train_run
from digitfast.runs.settings import read_settings

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, mnist):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("arch, low", [("digitnet", 0.988), ("resnet18", 0.985)])
def test_one_epoch_with_default_settings(arch, low):
    assert train_run(arch=arch).summary["accuracy"] >= low


@pytest.mark.parametrize("name, changes, low, high", [
    ("article-resnet18", {}, 0.981, 0.991),  # the article's 98.6 %, within half a point
    ("article-pytorch", {}, 0.957, 0.967),
    ("article-basic", {}, 0.24, 0.55),
    ("article-basic", {"epochs": 500}, 0.95, 0.98),
], ids=lambda value: str(value))
def test_the_articles_results(name, changes, low, high):
    accuracy = train_run(**{**read_settings(name), **changes}).summary["accuracy"]
    assert low <= accuracy <= high
