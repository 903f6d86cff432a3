"""Output folders with a real slide and stored nuclei of known place, class and score; made without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.batch.layout import objects_path, report_path
from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.contracts import ObjectClass, SlideHeader
from nuclix.engine.geometry import Scale
from nuclix.engine.segmentation.objects import PROBABILITY, Objects
from nuclix.engine.segmentation.store import StoredSlide, StoreWriter
from nuclix.engine.segmentation.summary import SummaryAccumulator, write_summary
from nuclix.engine.slide.open import open_slide
from nuclix.engine.slide.thumbnail import thumbnail, write_thumbnail
from nuclix.engine.slide.view import SlideView, slide_bounds
from slides import smooth_image, write_slide

MPP = 0.5
RADIUS = 8.0  # pixels
BLOCK = 50
TUMOR, STROMA, IMMUNE = (
    ObjectClass("Tumor", (200, 0, 0)),
    ObjectClass("Stroma", (0, 150, 60)),
    ObjectClass("<i>Immune & co</i>", (40, 60, 220)),
)
_CORNERS = RADIUS * np.array([[-1, 0], [-0.7, 0.7], [0, 1], [0.7, 0.7], [1, 0], [0.7, -0.7], [0, -1], [-0.7, -0.7]])


@dataclass(frozen=True)
class Nuclei:
    """Middles in level-0 pixels (row, column), classes and scores of nuclei."""

    middles: NDArray[np.float64]
    classes: NDArray[np.int32]
    scores: NDArray[np.float64]

    @classmethod
    def scattered(cls, count: int, shape: tuple[int, int], classes: int = 1, seed: int = 0) -> Nuclei:
        rng = np.random.default_rng(seed)
        middles = rng.uniform(RADIUS, np.array(shape) - RADIUS, (count, 2))
        return cls(np.rint(middles), rng.integers(0, classes, count).astype(np.int32), rng.uniform(0, 1, count))


def objects_of(nuclei: Nuclei) -> Objects:
    """Octagons around the middles."""
    count = len(nuclei.middles)
    corners = (nuclei.middles[:, None] + _CORNERS).reshape(-1, 2)
    area = np.full(count, 200.0 * MPP**2)
    return Objects(
        first=np.rint(nuclei.middles - (RADIUS, 0)).astype(np.int64),
        pixels=np.full(count, 200),
        rings=np.arange(count + 1),
        shells=np.ones(count, bool),
        offsets=8 * np.arange(count + 1),
        corners=np.rint(corners * 32).astype(np.float32) / 32,
        classes=nuclei.classes,
        measurements={"Area µm^2": area, PROBABILITY: nuclei.scores},
    )


def write_folder(
    out: Path,
    nuclei: Nuclei,
    classes: Sequence[ObjectClass] = (TUMOR,),
    name: str = "slide",
    shape: tuple[int, int] = (900, 1200),
) -> Path:
    """Write slide, stored objects, summary, thumbnail and ledger as a run leaves them; return the slide."""
    slide = write_slide(out.parent / f"{Path(name).name}.svs", smooth_image(*shape), mpp=MPP)
    reader = open_slide(slide)
    bounds = slide_bounds(reader.info)
    by_class = np.bincount(nuclei.classes, minlength=len(classes)).tolist()
    model = {"name": "m", "sha256": "ab" * 32, "postprocessor": "dist", "parameters": {"p1": 0.5}}
    model |= {"classes": [{"name": one.name, "color": list(one.color)} for one in classes]}
    record = {
        "slide": {"path": str(slide), "height": shape[0], "width": shape[1], "mpp": MPP, "vendor": "aperio"},
        "model": model,
        "settings": {},
        "seconds": {"wall": 3.0},
        "counts": {
            "nuclei": len(nuclei.middles),
            "pixels": shape[0] * shape[1],
            "tissue_mm2": 0.2,
            "nuclei_by_class": {one.name: number for one, number in zip(classes, by_class, strict=True)},
        },
    }
    header = SlideHeader(slide.name, 1.0, (bounds.row, bounds.col), tuple(classes), "n", bounds.shape, MPP)
    for path in (objects_path(out, name), report_path(out, name, ".npz")):
        path.parent.mkdir(parents=True, exist_ok=True)
    writer = StoreWriter(objects_path(out, name))
    summary = SummaryAccumulator(SlideView(reader, Scale(MPP), Scale(MPP)), len(classes))
    for start in range(0, len(nuclei.middles), BLOCK):
        part = slice(start, start + BLOCK)
        block = objects_of(Nuclei(nuclei.middles[part], nuclei.classes[part], nuclei.scores[part]))
        writer.write(block)
        summary.add(block)
    writer.commit(StoredSlide(f"key of {name}", header, record), None)
    write_summary(report_path(out, name, ".npz"), summary.result())
    write_thumbnail(report_path(out, name, ".jpg"), thumbnail(reader, None))
    reader.close()
    ledger = Ledger(out)
    ledger.enlist(name, slide, slide.stat().st_size)
    ledger.begin(name)
    key = json.dumps({"slide": "f", "model": "ab" * 32})
    entry = {"fingerprint": "f", "key": key, "output": f"{name}.geojson", "checksum": "c", "record": record}
    ledger.finish(name, entry)
    ledger.close()
    return slide
