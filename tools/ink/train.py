"""Train digitfast's ink network on drawn scenes, and write it as .safetensors and as .onnx.

    python tools/ink/train.py OUTPUT.safetensors [SCENES] [EPOCHS] [START.safetensors]

The .onnx is beside OUTPUT. With START, training resumes from the weights there, in smaller steps
and with other scenes. The network is then the mean of the two, which keeps more of what the first
one knew (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
"""
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from marks import SIDE
from PIL import Image
from safetensors.torch import load_file, save_file
from scenes import scene
from to_onnx import write_ink_onnx
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from digitfast.data.sources import digits_path
from digitfast.models.ink_net import InkNet, as_input

CROP = 256  # pixels of a side of the part of a scene that is trained on
BATCH = 16  # scenes per step
LR = 4e-3  # highest learning rate
LR_GO_ON = 1.5e-3  # the same with START
SEED = 42
EMA = 0.998  # decay per step of the mean of the weights


@cache
def training_digits(n: int = 6000) -> np.ndarray:
    "Return `n` of MNIST's training images, uint8 `[n, 28, 28]`."
    files = sorted((digits_path() / "training").glob("*/*.png"))
    chosen = np.random.default_rng(SEED).permutation(len(files))[:n]
    return np.stack([np.asarray(Image.open(files[i])) for i in chosen])


def drawn(number: int) -> np.ndarray:
    "Return the scene of that number and its ink, uint8 `[2, 320, 320]`."
    return np.stack(scene(training_digits(), np.random.default_rng([SEED, number])))


def loss_of(logits: torch.Tensor, ink: torch.Tensor) -> torch.Tensor:
    "Return the weighted sum of the pixels' cross-entropy and the Dice loss of found and true ink."
    chance = logits.sigmoid()
    both = (chance * ink).sum((1, 2, 3))
    all_ = (chance + ink).sum((1, 2, 3))
    return (2 * F.binary_cross_entropy_with_logits(logits, ink)
            + 0.2 * (1 - (2 * both + 50) / (all_ + 50)).mean())


def batch_of(pool: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    "Return crops of the chosen scenes, turned and mirrored, and their ink, turned with them."
    x, y = torch.randint(SIDE - CROP + 1, (2,)).tolist()
    crops = pool[chosen, :, y:y + CROP, x:x + CROP]
    crops = torch.rot90(crops, int(torch.randint(4, ())), (2, 3))
    crops = crops.flip(3) if torch.rand(()) < 0.5 else crops
    return as_input(crops[:, 0]), crops[:, 1:].float() / 255


def train(
    images: torch.Tensor,  # scenes and their ink, uint8 `[n, 2, 320, 320]`
    held: torch.Tensor,  # held-out ones, to print the accuracy after each epoch
    epochs: int,
    start: Path | None = None,  # weights to resume from
) -> InkNet:
    """Return a network trained on `images`, with the mean of its weights over the last steps.

    With `start`, it has the mean of those and the weights in `start`.
    """
    torch.manual_seed(SEED)
    model = model_from(start) if start else InkNet().to(memory_format=torch.channels_last)
    lr = LR_GO_ON if start else LR
    steps = epochs * (len(images) // BATCH)
    opt = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=steps)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA), use_buffers=True)
    for epoch in range(epochs):
        model.train()
        losses = []
        for chosen in torch.randperm(len(images))[:len(images) // BATCH * BATCH].view(-1, BATCH):
            grey, ink = batch_of(images, chosen)
            loss = loss_of(model(grey.contiguous(memory_format=torch.channels_last)), ink)
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
            mean.update_parameters(model)
            losses.append(loss.item())
        found = overlap(mean.eval(), held)
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.4f}, "
              f"{found:.2%} of held-out ink", flush=True)
    return mean.module if start is None else between(mean.module, model_from(start))


def model_from(weights: Path) -> InkNet:
    "Return the network with the weights of a .safetensors."
    model = InkNet().to(memory_format=torch.channels_last)
    model.load_state_dict({name: weight.float() for name, weight in load_file(weights).items()},
                          strict=False)
    return model


def between(one: InkNet, other: InkNet) -> InkNet:
    "Return `one` with the means of its weights and those of `other`."
    means = {name: torch.lerp(weight, other.state_dict()[name], 0.5)
             for name, weight in one.state_dict().items() if weight.is_floating_point()}
    one.load_state_dict(means, strict=False)
    return one


def overlap(model: torch.nn.Module, held: torch.Tensor) -> float:
    "Return intersection over union of the ink that is found and the ink that is there."
    with torch.inference_mode():
        found = torch.cat([model(as_input(part[:, 0])) for part in held.split(20)]) > 0
    ink = held[:, 1:] > 127
    return float((found & ink).sum() / (found | ink).sum())


def main(output: Path, n: int = 16000, epochs: int = 8, start: Path | None = None) -> None:
    began = time.time()
    first = n if start else 0
    with ProcessPoolExecutor() as pool:
        images = torch.from_numpy(
            np.stack(list(pool.map(drawn, range(first, first + n), chunksize=50))))
    print(f"{n} scenes in {time.time() - began:.0f} s", flush=True)
    model = train(images[n // 50:], images[:n // 50], epochs, start)
    save_file({name: weight.half().contiguous() for name, weight in model.state_dict().items()
               if weight.is_floating_point()}, output)
    write_ink_onnx(output)
    print(f"{output} after {time.time() - began:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4]), *map(Path, sys.argv[4:]))
