"""The stain vectors that a slide is measured with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import MeasurementSettings
from nuclix.engine.slide.tissue import TissueMask
from nuclix.engine.slide.view import SlideView
from nuclix.ext.stains import estimate_stains

# Stain vectors are estimated from so many samples of tissue, evenly spread: one in four of their 4 million pixels.
SAMPLES = 64
SAMPLE_PX = 256
_SAMPLE_STEP = 2


@dataclass(frozen=True, slots=True)
class SlideStains:
    """How a slide is measured.

    Attributes
    ----------
    settings : MeasurementSettings
        With the slide's own stain vectors, where they are estimated.
    warnings : tuple of str
        For its record.
    """

    settings: MeasurementSettings
    warnings: tuple[str, ...] = ()

    @property
    def vectors(self) -> dict[str, list[float]]:
        """Estimated stain vectors, for the provenance of a file; empty where they were given."""
        stains = self.settings.stains
        return {"stain_vectors": list(stains)} if self.settings.estimate_stains and stains else {}


def slide_stains(settings: MeasurementSettings, view: SlideView, tissue: TissueMask | None) -> SlideStains:
    """Estimate a slide's stain vectors, if they are asked for; where they can't be, QuPath's default is used.

    Parameters
    ----------
    settings : MeasurementSettings
        Of the run.
    view : SlideView
        The slide at the model's scale.
    tissue : TissueMask or None
        Where samples are read; None reads them all over the slide.

    Returns
    -------
    SlideStains

    Raises
    ------
    SlideError
        If the slide can't be read.
    """
    if not (settings.estimate_stains and settings.needs_pixels):
        return SlideStains(settings)
    samples = [view.read(box)[::_SAMPLE_STEP, ::_SAMPLE_STEP].reshape(-1, 3) for box in _boxes(view, tissue)]
    try:
        hematoxylin, eosin = estimate_stains(np.concatenate(samples) if samples else np.zeros((0, 3), np.uint8))
    except ValueError as error:
        return SlideStains(settings, (f"stain vectors could not be estimated ({error}): the default ones are used",))
    return SlideStains(replace(settings, stains=(*hematoxylin, *eosin)))


def _boxes(view: SlideView, tissue: TissueMask | None) -> list[Box]:
    """Return where samples lie, in the view's pixels."""
    if tissue is None:
        rows, cols = (np.arange(0, length, SAMPLE_PX) for length in (view.height, view.width))
        places: NDArray[np.int64] = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    else:
        places = (np.argwhere(tissue.mask) * tissue.downsample).astype(np.int64) - SAMPLE_PX // 2
    chosen = np.unique(np.linspace(0, len(places) - 1, SAMPLES).astype(np.int64)) if len(places) else []
    boxes = (Box(*places[index].tolist(), SAMPLE_PX, SAMPLE_PX).intersect(view.box) for index in chosen)
    return [box for box in boxes if box.area]
