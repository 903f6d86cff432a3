"""The stain vectors that a slide is measured with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.segmentation.measure import MeasurementSettings
from nuclix.engine.slide.stains import estimate_stain_vectors

_DECIMALS = 4  # nearly as many as QuPath shows; further digits differ between machines


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


def slide_stains(settings: MeasurementSettings, pixels: NDArray[np.uint8]) -> SlideStains:
    """Estimate a slide's stain vectors, if they are asked for; where they can't be, QuPath's default is used.

    Parameters
    ----------
    settings : MeasurementSettings
        Of the run.
    pixels : (N, 3) uint8
        Samples of the slide's tissue.

    Returns
    -------
    SlideStains
    """
    if not (settings.estimate_stains and settings.needs_pixels):
        return SlideStains(settings)
    try:
        vectors = estimate_stain_vectors(pixels).round(_DECIMALS)
    except DataError as error:
        return SlideStains(settings, (f"{error}; the default ones are used",))
    return SlideStains(replace(settings, stains=tuple(vectors.ravel().tolist())))
