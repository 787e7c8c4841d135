import json
import subprocess
import sys

import pytest
import torch

from digitfast import DigitError
from digitfast.bench import comparisons as bench
from digitfast.bench import peers
from digitfast.bench.comparisons import COMPARISONS, results_table, write_results


def measured(training, accuracy=None, **more):
    return {"setup": 1.0, "training": training, "accuracy": accuracy, "peak_bytes": 100,
            "process": 9.0, **more}


@pytest.fixture
def results():
    ours, theirs = ([measured(t, a) for t, a in zip(times, (0.98, 0.99, 1.0), strict=True)]
                    for times in ((2.0, 1.0, 9.0), (8.0, 4.0, 4.0)))
    row = {"what": "a / b", "ours": ours, "theirs": theirs, "bare": [measured(1.0)] * 3}
    return {"quick": False, "once": {"unpacking": 5.0, "decoding": 4.0}, "comparisons": [row],
            "device": {"name": "a processor", "cpu_cores": 2}, "versions": {"torch": "1"}}


def test_table_has_medians_and_deviations(results):
    cells = [cell.strip() for cell in results_table(results).splitlines()[2].split("|")[1:-1]]
    assert cells == ["a / b", "**0.50**", "2.0 / 4.0", "2.00", "1.0 / 1.0", "9.0 / 9.0",
                     "99.00 ± 1.00 / 99.00 ± 1.00", "1.00", "3"]
    assert "QUICK" not in results_table(results)
    assert "QUICK" in results_table({**results, "quick": True})


def test_results_are_kept_whole(results, tmp_path):
    write_results(results, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert [f.name for f in tmp_path.iterdir()] == ["results.json"]


def test_comparisons_take_turns(monkeypatch, tmp_path):
    calls = []

    def measure(name, folder, seed, home):
        calls.append((name, seed))
        return measured(1.0, 0.5)
    monkeypatch.setattr(bench, "_measure", measure)
    row = bench._compare(COMPARISONS[0], tmp_path, 2, tmp_path, lambda line: None)
    names = ("article-resnet18", "ours-resnet18", "bare-resnet18")
    assert calls == [(name, seed) for seed in (1, 2) for name in names]
    assert len(row["ours"]) == len(row["theirs"]) == len(row["bare"]) == 2


def test_every_name_is_a_peer():
    names = {getattr(c, who) for c in COMPARISONS for who in ("ours", "theirs", "bare")}
    assert names < set(peers.PEERS)


#: Minimum accuracy after so few steps, if a peer learns anything by then.
LEARNT = {"ours-digitnet": 0.7, "bare-digitnet": 0.7, "train-mnist-fast": 0.4,
          "article-resnet18": 0.2}


@pytest.mark.parametrize("name", sorted(set(peers.PEERS) - {"open-digits"}))
def test_each_peer_runs(many_digits, name):
    timing = peers.PEERS[name](many_digits, 1)
    assert timing.setup > 0 and timing.training > 0
    if name == "article-pytorch":
        assert timing.accuracy is None
    else:
        right = timing.accuracy * 960
        assert right == pytest.approx(round(right), abs=1e-3)
        assert timing.accuracy >= LEARNT.get(name, 0)


def test_a_measurement_is_a_separate_process(digits, monkeypatch):
    found = bench._measure("bare-simple", digits, 1, None)
    assert found.keys() == {"setup", "training", "accuracy", "peak_bytes", "process"}
    assert found["process"] > found["setup"] + found["training"] and found["peak_bytes"] > 50e6
    with pytest.raises(DigitError, match="bare-simple failed: .*nowhere"):
        bench._measure("bare-simple", digits / "nowhere", 1, None)
    monkeypatch.setattr(bench.sys, "executable", "false")
    with pytest.raises(DigitError, match="bare-simple failed: exit code 1"):
        bench._measure("bare-simple", digits, 1, None)


def test_idx_files_are_torchvisions(digits, tmp_path):
    from torchvision.datasets import MNIST

    from digitfast import digit_dls
    peers._write_idx(digits, tmp_path)
    theirs = MNIST(tmp_path, train=False)
    ours = digit_dls(digits).valid
    assert torch.equal(theirs.data, ours.pixels.cpu())
    assert torch.equal(theirs.targets, ours.labels.cpu())


def test_sample(digits, tmp_path):
    sample = bench._sample(digits, tmp_path / "sample")
    assert len(list(sample.rglob("*.png"))) == 30 + 12
    assert len(list((sample / "training").iterdir())) == 10


def test_prints_one_json_line(digits):
    command = [sys.executable, "-W", "ignore", "-m", "digitfast.bench.peers",
               "train-mnist-fast", str(digits), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).keys() == {"setup", "training", "accuracy", "peak_bytes"}
