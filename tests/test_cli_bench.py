"""`digitfast bench`."""
import json

import pytest

from digitfast.bench import comparisons as bench


def test_a_table_is_printed_and_json_written(run_cli, monkeypatch, tmp_path):
    figures = {"setup": 1.0, "training": 2.0, "accuracy": 0.5, "peak_bytes": 1, "process": 3.0}
    monkeypatch.setattr(bench, "_measure", lambda *args: figures)
    monkeypatch.setattr(bench, "digits_path", lambda: tmp_path / "mnist_png")
    (tmp_path / "mnist_png/training/0").mkdir(parents=True)
    (tmp_path / "mnist_png/testing/0").mkdir(parents=True)
    code, out, err = run_cli("bench", "--quick", "--json", "results.json")
    assert code == 0
    assert out.startswith("| ours / theirs |")
    assert "QUICK" in out
    assert "train-mnist-fast, seed 1" in err
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["comparisons"][0]["ours"] == [figures]
    assert results["versions"]["torch"]


@pytest.mark.parametrize("file", ["results.txt", "nowhere/results.json"])
def test_only_a_json_in_a_folder_is_written(run_cli, file):
    code, out, err = run_cli("bench", "--json", file)
    assert code == 1
    assert not out
    assert "a .json in an existing folder" in err
