"""Output folders as runs leave them, made up: a ledger, runs, thumbnails and summaries."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from nuclix.engine.batch.layout import report_path
from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.parameters import as_mapping
from nuclix.engine.progress.meter import RunSnapshot
from nuclix.engine.progress.status import RunFile
from nuclix.engine.segmentation.summary import AREA_BIN_UM2, AREA_BINS, SlideSummary, write_summary
from nuclix.engine.slide.thumbnail import write_thumbnail

EVENING = 1_785_952_800.0  # 2026-08-05 18:00 UTC


@dataclass(frozen=True)
class FakeSlide:
    """A slide as it ended: done unless it has an error; with a size in px and a seed for what is found."""

    name: str
    size: tuple[int, int] = (30_000, 46_000)
    error: str = ""
    warnings: tuple[str, ...] = ()
    seed: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def fill(out: Path, slides: list[FakeSlide], workers: int = 2, begun: float = EVENING) -> None:
    """Write a folder as a run over `slides` leaves it."""
    out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(out)
    free = [begun + 4.0] * workers
    for slide in slides:
        lane = free.index(min(free))
        seconds = 5.0 if slide.error else slide.size[0] * slide.size[1] / 1.2e7
        _enter(ledger, out, slide, (free[lane], free[lane] + seconds))
        free[lane] += seconds
    ledger.close()
    done = sum(not slide.error for slide in slides)
    snapshot = RunSnapshot(total=len(slides), done=done, failed=len(slides) - done, seconds=max(free) - begun)
    write_run(out, RunFile(socket.gethostname(), os.getpid(), begun, max(free), max(free), progress=snapshot))


def write_run(out: Path, run: RunFile) -> Path:
    """Write what is kept of a run."""
    folder = out / ".nuclix" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.started:.0f}-{run.pid}.json"
    config = {"inputs": ["slides"], "out": str(out), "model": "dist-kumar16", "retry": 0, "time_limit": None}
    path.write_text(json.dumps({**as_mapping(run), "config": config, "versions": {"nuclix": "0.1.0", "numpy": "2.4"}}))
    return path


def _enter(ledger: Ledger, out: Path, slide: FakeSlide, period: tuple[float, float]) -> None:
    ledger.enlist(slide.name, Path("slides") / f"{slide.name}.svs", slide.size[0] * slide.size[1] // 20)
    ledger.begin(slide.name)
    if slide.error:
        ledger.fail(slide.name, slide.error)
    else:
        summary, image = drawn(slide)
        report_path(out, slide.name, ".npz").parent.mkdir(parents=True, exist_ok=True)
        write_summary(report_path(out, slide.name, ".npz"), summary)
        write_thumbnail(report_path(out, slide.name, ".jpg"), image)
        ledger.finish(slide.name, outcome(slide, int(summary.counts.sum()), period[1] - period[0]))
    ledger._db.execute("UPDATE slides SET begun = ?, ended = ? WHERE name = ?", (*period, slide.name))


def outcome(slide: FakeSlide, nuclei: int, seconds: float) -> dict[str, Any]:
    """What the ledger is told of a slide that is done."""
    height, width = slide.size
    pixels = height * width // 2
    stages = {
        "read": 0.8,
        "network": 1.4,
        "stitch": 0.3,
        "split": 0.5,
        "checkpoint": 0.02,
        "tissue": 0.02,
        "write": 0.05,
    }
    rng = np.random.default_rng(slide.seed)
    spent = {name: seconds * share * rng.uniform(0.7, 1.3) for name, share in stages.items()}
    record = {
        "slide": {"height": height, "width": width, "mpp": 0.25, **slide.facts},
        "model": {"name": "dist-kumar16", "postprocessor": "dist", "parameters": {"p1": 0.5, "p2": 0.7}},
        "settings": {},
        "seconds": {"wall": seconds, **spent},
        "counts": {"nuclei": nuclei, "pixels": pixels, "pixels_resumed": 0, "tissue_mm2": pixels * 0.0625e-6},
        "warnings": list(slide.warnings),
    }
    key = json.dumps({"slide": slide.name, "model": "fd" * 32, "nuclix": "0.1.0", "tissue": True, "writer": "geojson"})
    return {"fingerprint": "f", "key": key, "output": f"{slide.name}.geojson", "checksum": "c", "record": record}


def drawn(slide: FakeSlide, edge: int = 512) -> tuple[SlideSummary, Image.Image]:
    """Tissue-like blobs with nuclei where they are dense."""
    rng = np.random.default_rng(slide.seed)
    height, width = slide.size
    shape = max(1, round(96 * height / max(slide.size))), max(1, round(96 * width / max(slide.size)))
    size = max(1, edge * width // max(slide.size)), max(1, edge * height // max(slide.size))
    image = Image.new("RGB", size, (243, 241, 245))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 6))):
        x, y, r = rng.uniform(0.2, 0.8) * size[0], rng.uniform(0.2, 0.8) * size[1], rng.uniform(0.12, 0.3) * min(size)
        draw.ellipse((x - r * 1.4, y - r, x + r * 1.4, y + r), fill=(222, 170, 205))
        for _ in range(30):
            a, b, s = x + rng.normal(0, r / 2), y + rng.normal(0, r / 2), rng.uniform(0.05, 0.2) * r
            draw.ellipse((a - s, b - s, a + s, b + s), fill=(164, 96, 168))
    image = image.filter(ImageFilter.GaussianBlur(1.5))
    dark = 255 - np.asarray(image.resize(shape[::-1], Image.Resampling.BOX))[..., 1].astype(float)
    cell_mm2 = height * width / shape[0] / shape[1] * 0.0625e-6
    counts = rng.poisson(np.maximum(dark - 20, 0) * 45 * cell_mm2)
    areas = rng.gamma(4.0, rng.uniform(7.0, 15.0), int(counts.sum()))
    bins = np.bincount(np.minimum(areas / AREA_BIN_UM2, AREA_BINS).astype(int), minlength=AREA_BINS + 1)
    return SlideSummary(counts.astype(np.int64), cell_mm2, bins.astype(np.int64), float(areas.sum())), image
