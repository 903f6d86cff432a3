"""What a run is asked to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "dist-kumar16"
# Post-processing works best in blocks that are large against a nucleus (40 px) and small against memory.
DEFAULT_BLOCK = 2048
# The slowest step that a worker says nothing about (a slide of one level is read whole for its tissue) takes minutes.
PATIENCE = 1800.0


def default_workers() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Everything that a run can be told.

    Attributes
    ----------
    out : Path
        Output folder.
    model : str
        Name of an installed model, or a model file.
    mpp : float or None
        Micrometres per pixel of level 0, in place of what the slides say.
    device : str
        auto, cpu, cuda or cuda:N.
    precision : str
        auto, float32, bfloat16 or float16.
    flips : bool
        Whether maps are averaged over four mirror images.
    batch : int or None
        Patches a forward pass; None for what suits the device.
    block : int
        Edge of a post-processing block in pixels at the model's scale.
    workers : int
        Threads for reading and for post-processing.
    tissue : bool
        Whether glass is left out.
    writer : str
        Entry-point name of the writer.
    config : mapping
        The whole configuration of the run, for the record.
    """

    out: Path
    model: str = DEFAULT_MODEL
    mpp: float | None = None
    device: str = "auto"
    precision: str = "auto"
    flips: bool = False
    batch: int | None = None
    block: int = DEFAULT_BLOCK
    workers: int = 1
    tissue: bool = True
    writer: str = "geojson"
    config: Mapping[str, Any] = field(default_factory=dict)
