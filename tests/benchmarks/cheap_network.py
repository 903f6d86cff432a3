"""A network that costs next to nothing and finds nuclei: what remains of a run's time is what nuclix does besides it.

python tests/benchmarks/cheap_network.py MODEL.pt
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import save_model

STEP = 4  # every fourth pixel of every fourth row is looked at
NEAR, WIDE = 3, 15  # windows in such pixels: what is dark against its surroundings is a nucleus
CONTRAST = 12.0  # levels of red, above which
LEVELS_PER_PX = 5.0  # so many count as one pixel of distance


def box_mean(image: torch.Tensor, edge: int) -> torch.Tensor:
    """Return the mean of `edge` x `edge` pixels around each, rows first."""
    half = edge // 2
    rows = torch.nn.functional.avg_pool2d(image, (edge, 1), 1, (half, 0), count_include_pad=False)
    return torch.nn.functional.avg_pool2d(rows, (1, edge), 1, (0, half), count_include_pad=False)


class Cheap(torch.nn.Module):
    """How much darker a pixel is than what lies around it, as the distance map of DIST."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, 1, size, size) float32 of (n, 3, size, size) uint8."""
        dark = 255 - images[:, 0, ::STEP, ::STEP].float().contiguous().unsqueeze(1)
        distance = (box_mean(dark, NEAR) - box_mean(dark, WIDE) - CONTRAST) / LEVELS_PER_PX
        small = torch.clamp(distance, min=0.0)
        return torch.nn.functional.interpolate(small, scale_factor=float(STEP), mode="bilinear")


def save_cheap_model(path: Path) -> Path:
    """Write the model file: patches as those of the default model, at 0.25 um/px."""
    card = ModelCard(
        name="cheap",
        method="benchmark",
        scale=Scale(0.25),
        patch=PatchShape(768, 48, 16, dynamic=True),
        maps=("distance",),
        postprocessor="dist",
        parameters={"p1": 1.0, "p2": 0.5, "min_area": 40},
        classes=(ObjectClass("Nucleus", (200, 0, 0)),),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of TorchScript
        save_model(path, Cheap(), card)
    return path


if __name__ == "__main__":
    save_cheap_model(Path(sys.argv[1]))
