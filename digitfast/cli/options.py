"""What several commands have in common: options, explained once, and how a mistake is told."""
import sys
from pathlib import Path
from typing import Annotated

import typer

from digitfast.registry import ARCHITECTURES, OPTIMIZERS
from digitfast.training.processes import process_rank

Source = Annotated[str | None, typer.Option(
    help="The digits: mnist (comes with digitfast), a fastai name such as MNIST_SAMPLE, the URL of an archive, or a "
         "folder with training/ and testing/ (or train/ and val/, valid/ or test/). Default: mnist.")]
Arch = Annotated[str | None, typer.Option(
    help=f"Architecture: {', '.join(ARCHITECTURES)}; also torchvision's and, where it is installed, timm's others. "
         "Default: digitnet.")]
Opt = Annotated[str | None, typer.Option(help=f"Optimiser: {', '.join(OPTIMIZERS)}. Default: adam.")]
Bs = Annotated[int | None, typer.Option(help="Images a batch; where several processes train together, of all of "
                                             "them. Default: 128.")]
Size = Annotated[int | None, typer.Option(help="Side of the images that the network sees, in pixels. Default: 28.")]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and held-out images. Default: 42.")]
Runs = Annotated[str | None, typer.Option("--runs", help="Folder of the run folders. Default: runs.")]
NETWORK = ("name or folder of a run, a .safetensors, an .onnx (which answers soonest) or, with --trust, a .pkl. "
           "Default: the network that comes with digitfast.")
Network = Annotated[str | None, typer.Argument(metavar="[RUN|FILE]", help=NETWORK.replace("name", "Name", 1))]
Images = Annotated[list[str], typer.Argument(
    metavar="[RUN|FILE] IMAGE...", help="Photos, scans, drawings; a folder stands for all pictures in it. Before them "
                                        "may stand a network: " + NETWORK)]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON list, one entry a picture, with probabilities and boxes.")]
Ink = Annotated[str, typer.Option(help="dark or light, against its paper; auto: whichever the picture shows; "
                                         "drawing: all that is not paper, as in a picture from a drawing program.")]
Steps = Annotated[Path | None, typer.Option(help="PNG to draw the way from the picture to what the network saw into.")]
Trust = Annotated[bool, typer.Option("--trust", help="Open a .pkl, though it can run any code: you know who made it. "
                                     "Other files cannot.")]
RunsFolder = Annotated[str, typer.Option("--runs", help="Folder of the run folders.")]


def complain(
    message: object,  # which becomes one line
    by: int = 0,  # which one of several processes that meet the mistake says so
) -> None:
    "Print a mistake on stderr."
    if process_rank() == by:
        print("digitfast: " + " ".join(str(message).split()), file=sys.stderr, flush=True)
