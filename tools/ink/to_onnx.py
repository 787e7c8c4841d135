"""Convert digitfast's ink network for onnxruntime.

    python tools/ink/to_onnx.py WEIGHTS.safetensors
"""
import sys
from pathlib import Path

import torch

from digitfast.inference.onnx_export import in_onnx
from digitfast.models.ink_net import open_ink_net


def write_ink_onnx(weights: Path) -> Path:
    "Write an .onnx beside `weights` that takes pictures of any size, and return its path."
    example = torch.zeros(2, 64, 96, dtype=torch.uint8)
    proto = in_onnx(open_ink_net(weights), example, ("grey", "chances"), {0: "n", 1: "h", 2: "w"})
    path = weights.with_suffix(".onnx")
    path.write_bytes(proto.SerializeToString())
    return path


if __name__ == "__main__":
    print(write_ink_onnx(Path(sys.argv[1])))
