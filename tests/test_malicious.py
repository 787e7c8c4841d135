"""Files that would run code if anything unpickled them: every command gets them, and none runs it.

Each payload makes a marker file. The tests first unpickle it to show that it would.
"""
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from digitfast import DigitError, find_run, open_learner, open_predictor
from digitfast.data.pixel_cache import cache_file, load_pixels
from digitfast.files import BLANK, read_sealed, write_sealed, write_with_checksum
from digitfast.inference.onnx_network import EXTERNAL, SEAL

PYTHON = sys.executable


class Call:
    "An object that calls something when it is unpickled."

    def __init__(self, func, *args):
        self.func = func
        self.args = args

    def __reduce__(self):
        return self.func, self.args


def bomb(marker: Path) -> object:
    "Calls inside calls inside a table, next to what looks like weights."
    inner = Call(os.system, f"touch '{marker}'")
    return {"model": np.zeros(3), "opt": [Call(list, (inner,)), {1: (inner, inner)}]}


PAYLOADS = {
    "os.system": lambda marker: Call(os.system, f"touch '{marker}'"),
    "subprocess": lambda marker: Call(subprocess.check_call, ["touch", str(marker)]),
    "eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"),
    "exec": lambda marker: Call(exec, f"import pathlib; pathlib.Path({str(marker)!r}).touch()"),
    "bomb": bomb,
}


def as_array(payload: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


def as_torch(payload: object, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


#: How a payload is wrapped, and how anyone who trusts it would open it.
WRAPPINGS = {
    "pickle 0": (lambda p: pickle.dumps(p, 0), pickle.loads),
    "pickle 5": (lambda p: pickle.dumps(p, 5), pickle.loads),
    "torch": (lambda p: as_torch(p, True),
              lambda c: torch.load(io.BytesIO(c), weights_only=False)),
    "torch, legacy": (lambda p: as_torch(p, False),
                      lambda c: torch.load(io.BytesIO(c), weights_only=False)),
    "numpy": (as_array, lambda c: np.load(io.BytesIO(c), allow_pickle=True)),
}


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "ran"


@pytest.fixture(params=[(p, w) for p in PAYLOADS for w in WRAPPINGS], ids=" as ".join)
def malicious(request, marker) -> bytes:
    "The content of a malicious file, after a check that it works."
    payload, wrapping = request.param
    wrap, trusting = WRAPPINGS[wrapping]
    content = wrap(PAYLOADS[payload](marker))
    trusting(content)
    assert marker.exists()
    marker.unlink()
    return content


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory) -> Path:
    "A run folder, which no test may change."
    from digitfast import train_run
    runs = str(tmp_path_factory.mktemp("runs"))
    return train_run(str(digits), "simple", bs=32, name="good", runs=runs).path


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors", ".onnx"])
def test_model_files(run_cli, malicious, marker, tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    picture = tmp_path / "one.png"
    Image.new("L", (28, 28)).save(picture)
    file.write_bytes(malicious)
    for command in (["predict", file, picture], ["predict", "--as-is", file, picture],
                    ["read", file, picture], ["evaluate", file], ["evaluate", "--sets", file],
                    ["export", file, "--to", "x.safetensors"]):
        code, out, err = run_cli(*command)
        assert code == 1, command
        assert err.startswith("digitfast: "), command
        assert err.count("\n") == 1, command
        assert not marker.exists(), command
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(DigitError):
        open_learner(file) if suffix == ".pkl" else open_predictor(file)
    assert not marker.exists()


def test_pictures(run_cli, malicious, marker, tmp_path):
    for name in ("one.png", "one.jpg", "one.npz"):
        (tmp_path / name).write_bytes(malicious)
        for command in (["predict"], ["predict", "--as-is"], ["read"]):
            assert run_cli(*command, name)[0] == 1
            assert not marker.exists()


def test_run_folders(run_cli, malicious, marker, finished, digits, tmp_path):
    "A run folder's learner.pkl is never opened, and its checksum in the summary is not trusted."
    folder = Path(shutil.copytree(finished, tmp_path / "runs/mine"))
    (folder / "learner.pkl").write_bytes(malicious)
    summary = json.loads((folder / "summary.json").read_text())
    digest = sha256(malicious).hexdigest()
    summary.update(sha256=digest, learner_sha256=digest)
    (folder / "summary.json").write_text(json.dumps(summary))
    picture = digits / "testing/4/30.png"
    for command in (["predict", "mine", picture], ["read", "mine", picture], ["evaluate", "mine"],
                    ["runs"], ["export", "mine"], ["export", "mine", "--to", "x.pkl"]):
        code, out, err = run_cli(*command)
        assert (code, err) == (0, ""), command
        assert not marker.exists(), command
    assert (tmp_path / "x.pkl").read_bytes() == malicious  # copied unchanged for those who trust it
    with pytest.raises(DigitError, match="was not opened"):
        find_run("mine", tmp_path / "runs").learner()
    (folder / "model.safetensors").write_bytes(malicious)
    for command in (["predict", "mine", picture], ["read", "mine", picture], ["evaluate", "mine"],
                    ["export", "mine"], ["export", "mine", "--to", "y.safetensors"],
                    ["export", "mine", "--to", "y.onnx"]):
        code, out, err = run_cli(*command)
        assert code == 1, command
        assert err.count("\n") == 1, command
        assert not marker.exists(), command


def poisoned_archive(content: bytes, wrapping: str) -> bytes:
    "An .npz whose arrays are the malicious file."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("names.npy", "stamps.npy", "pixels.npy"):
            archive.writestr(name, content)
    return file.getvalue() if wrapping == "in an archive" else content


@pytest.mark.parametrize("wrapping", ["as it is", "in an archive"])
def test_a_poisoned_cache(malicious, marker, copy_of_digits, wrapping):
    "It is replaced, like any damaged one."
    files = sorted(copy_of_digits.rglob("*.png"))[:5]
    wanted = load_pixels(files, copy_of_digits)
    cache = cache_file(copy_of_digits)
    cache.write_bytes(poisoned_archive(malicious, wrapping))
    assert torch.equal(load_pixels(files, copy_of_digits), wanted)
    assert not marker.exists()
    assert np.load(cache, allow_pickle=False)["pixels"].shape == (5, 28, 28)


def test_fit_with_a_poisoned_cache(run_cli, marker, copy_of_digits):
    cache = cache_file(copy_of_digits)
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_bytes(poisoned_archive(as_array(bomb(marker)), "in an archive"))
    assert run_cli("fit", "--arch", "simple", "--source", copy_of_digits, "--bs", 32)[0] == 0
    assert not marker.exists()


@pytest.mark.parametrize("arch", [
    "os.system", "builtins.exec", "torch.hub.load", "digitfast.cli.app.main", "timm.create_model",
    "__import__", "hf_hub.x", "../../x", "list_models", "torchvision.models.resnet18"])
def test_names_that_are_no_architectures(run_cli, finished, tmp_path, arch):
    "A header names a network in the registry, never something to import."
    weights, header = read_sealed(finished / "model.safetensors")
    write_sealed(tmp_path / "x.safetensors", weights, {**header, "arch": arch})
    code, out, err = run_cli("predict", "x.safetensors", "one.png")
    assert code == 1
    assert not out
    assert "x.safetensors" in err
    assert "arch = " in err or "unknown architecture" in err


def in_onnx(nodes, initializers=(), opsets=(("", 18),), **props) -> bytes:
    "A sealed .onnx with the header of a run."
    import onnx
    from onnx import TensorProto, helper
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "x", [images], [logits], initializers)
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.helper.set_model_props(model, {**props, "sha256": BLANK})
    return model.SerializeToString()


def test_an_onnx_that_names_another_file(run_cli, tmp_path):
    from onnx import TensorProto, helper
    np.zeros(7840, np.float32).tofile(tmp_path / "secret")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[784, 10],
                         data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key=EXTERNAL, value="secret")
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]),
             helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    write_with_checksum(tmp_path / "x.onnx", in_onnx(nodes, [weight]), SEAL)
    code, out, err = run_cli("predict", "x.onnx", "one.png")
    assert code == 1
    assert "x.onnx keeps weights in another file" in err


def test_an_onnx_with_operators_of_others(run_cli, tmp_path):
    from onnx import helper
    node = helper.make_node("Run", ["images"], ["logits"], domain="evil", command="touch ran")
    content = in_onnx([node], opsets=(("", 18), ("evil", 1)))
    write_with_checksum(tmp_path / "x.onnx", content, SEAL)
    code, out, err = run_cli("predict", "x.onnx", "one.png")
    assert code == 1
    assert "x.onnx cannot be opened with onnxruntime" in err
    assert not (tmp_path / "ran").exists()


def test_an_onnx_without_a_header_or_with_anothers(run_cli, tmp_path):
    from onnx import helper
    node = helper.make_node("Flatten", ["images"], ["logits"])
    for props, message in (({}, "has no digitfast header"),
                           ({"digitfast": "{"}, "has no digitfast header"),
                           ({"digitfast": "[]"}, "has the format"),
                           ({"digitfast": '{"format": "digitfast 2"}'}, "without")):
        write_with_checksum(tmp_path / "x.onnx", in_onnx([node], **props), SEAL)
        code, out, err = run_cli("predict", "x.onnx", "one.png")
        assert code == 1
        assert message in err
        assert err.count("\n") == 1


def test_a_source_that_a_model_file_or_a_run_names_is_not_fetched(digits, run_cli, tmp_path):
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from digitfast import train_run
    from digitfast.inference.predictor import PACKED_NETWORK
    from digitfast.runs.folders import MODEL, SUMMARY
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args): pass
    run = train_run(str(digits), "simple", bs=32, runs=str(tmp_path / "runs"), name="mine").path
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.tgz"
        for file in (PACKED_NETWORK, run / MODEL):
            weights, header = read_sealed(file)
            header["facts"].setdefault("settings", {})["source"] = url
            write_sealed(tmp_path / file.name, weights, header)
        summary = json.loads((run / SUMMARY).read_text())
        summary["settings"]["source"] = url
        (run / SUMMARY).write_text(json.dumps(summary))
        shutil.copyfile(tmp_path / MODEL, run / MODEL)
        unfinished = tmp_path / "runs/half"
        (unfinished / "checkpoints").mkdir(parents=True)
        (unfinished / "checkpoints/000001-000000.safetensors").write_bytes(b"x")
        settings = (run / "settings.ini").read_text()
        settings = settings.replace(str(digits), url).replace("[mine]", "[half]")
        (unfinished / "settings.ini").write_text(settings)
        for args in (("evaluate", tmp_path / PACKED_NETWORK.name), ("evaluate", run),
                     ("report", run), ("export", run, "--to", tmp_path / "x.onnx"),
                     ("fit", "--resume", unfinished),
                     ("fit", "--settings", unfinished / "settings.ini")):
            code, _, err = run_cli(*args)
            assert code == 1, (args, err)
            assert f"a file names '{url}'" in err, (args, err)
            assert "digitfast data" in err, (args, err)
        server.shutdown()
    assert not asked
