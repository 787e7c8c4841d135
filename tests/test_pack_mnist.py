import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).parent.parent / "tools" / "pack_mnist.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("pack_mnist", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_png_is_read_by_pillow(tool):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    image = Image.open(io.BytesIO(tool.png(pixels.tobytes())))
    assert image.mode == "L" and (np.asarray(image) == pixels).all()


def test_only_the_published_files_are_packed(tool, tmp_path):
    with pytest.raises(SystemExit, match="neither"):
        tool.pack(tmp_path, tmp_path / "out.tar.xz")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"other")
    with pytest.raises(SystemExit, match="MNIST's is 6bbc9ace"):
        tool.pack(tmp_path, tmp_path / "out.tar.xz")


def test_same_input_gives_the_same_bytes(tool, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for prefix in tool.SPLITS.values():
        images = {f"{prefix}-images-idx3-ubyte": bytes(16) + rng.bytes(20 * 784),
                  f"{prefix}-labels-idx1-ubyte": bytes(8) + bytes(i % 10 for i in range(20))}
        for name, content in images.items():
            (tmp_path / name).write_bytes(content)
            monkeypatch.setitem(tool.MD5, name, __import__("hashlib").md5(content).hexdigest())
    for name in ("a.tar.xz", "b.tar.xz"):
        tool.pack(tmp_path, tmp_path / name)
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
