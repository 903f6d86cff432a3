"""Doubt results that look wrong: a finished slide is not always a good one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import ModelCard
from nuclix.engine.segmentation.summary import SlideSummary, area_quantiles
from nuclix.engine.slide.tissue import Overview, TissueMask

# Medians of tissues lie between 20 um2 (lymphocytes in thick sections) and 80 um2 (carcinomas); these leave room.
MEDIAN_AREA_UM2 = (10.0, 400.0)
MIN_NUCLEI = 20  # fewer say nothing about a median
MOST = 0.5
# H&E colours lie between red and blue, so that green is the weakest channel. Slides of the test data: 0.97 and more of
# the tissue; DAB with haematoxylin: below 0.4.
MIN_HE_SHARE = 0.6
DARK = 64  # median brightness, of 255; bright-field slides are above 150 even without background
_MIN_CHROMA = 16  # of 255: pixels with less colour than this may be of any hue
_MIN_COLOURED_PIXELS = 100


@dataclass(frozen=True, slots=True)
class SlideColours:
    """What the overview says of a slide's colours.

    Attributes
    ----------
    he_share : float or None
        Part of the tissue that has colours of H&E; None where there is hardly any tissue.
    brightness : float
        Median of the largest channel over the slide, 0..255.
    """

    he_share: float | None
    brightness: float


@dataclass(frozen=True, slots=True)
class Findings:
    """A finished slide in the figures that are doubted.

    Attributes
    ----------
    tiles : int
        Patches that were to be computed.
    summary : SlideSummary
        Number and areas of its nuclei.
    in_background : int or None
        Nuclei outside the tissue; None where tissue was not looked for.
    colours : SlideColours or None
        None where there is no overview.
    """

    tiles: int
    summary: SlideSummary
    in_background: int | None
    colours: SlideColours | None


def slide_colours(overview: Overview, tissue: TissueMask) -> SlideColours:
    """Return what the overview of a slide says of its colours."""
    pixels = overview.pixels
    inside = pixels[tissue.mask[: pixels.shape[0], : pixels.shape[1]]].astype(np.int16)
    red, green, blue = inside.T if len(inside) else np.zeros((3, 0), np.int16)
    coloured = np.ptp(inside, axis=1) > _MIN_CHROMA if len(inside) else np.zeros(0, bool)
    he = (green <= red) & (green <= blue)
    share = float(he[coloured].mean()) if coloured.sum() >= _MIN_COLOURED_PIXELS else None
    return SlideColours(share, float(np.median(pixels.max(axis=2))) if pixels.size else 255.0)


class BackgroundCounter:
    """Counts the nuclei that begin outside a slide's tissue.

    Parameters
    ----------
    tissue : TissueMask or None
        None where tissue was not looked for.
    """

    def __init__(self, tissue: TissueMask | None) -> None:
        self._tissue = tissue
        self._count = 0

    def add(self, first: NDArray[np.int64]) -> None:
        """Count more nuclei; `first` is their (n, 2) rows and columns at the model's scale."""
        if self._tissue is None or not self._tissue.mask.size:
            return
        rows, cols = (first / self._tissue.downsample).astype(np.int64).T
        height, width = self._tissue.mask.shape
        inside = self._tissue.mask[np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1)]
        self._count += int((~inside).sum())

    @property
    def count(self) -> int | None:
        """Nuclei so far; None where tissue was not looked for."""
        return None if self._tissue is None else self._count


def doubts(found: Findings, card: ModelCard) -> list[str]:
    """Return what is doubtful about a slide's result, as warnings for its record.

    Parameters
    ----------
    found : Findings
        The slide.
    card : ModelCard
        Of the model.

    Returns
    -------
    list of str
        Empty where nothing is.
    """
    said = []
    colours = found.colours
    if colours is not None and colours.brightness < DARK:
        if not _knows_fluorescence(card.training):
            said.append(
                f"the slide is dark (median brightness {colours.brightness:.0f} of 255), as in fluorescence; the model "
                f"{card.name} was trained on bright-field images"
            )
        colours = None
    if found.in_background is not None and not found.tiles:
        said.append("no tissue was found, so nothing was computed; look at the thumbnail, or run with --no-tissue")
    elif not int(found.summary.areas.sum()):
        said.append("no nuclei were found; look at the slide, its scale and the model")
    else:
        said += _about_nuclei(found)
    if colours is not None and colours.he_share is not None and colours.he_share < MIN_HE_SHARE:
        said.append(
            f"only {100 * colours.he_share:.0f} % of the tissue has the colours of H&E; models for H&E may not suit "
            "this stain"
        )
    return said


def _about_nuclei(found: Findings) -> list[str]:
    said = []
    count = int(found.summary.areas.sum())
    quantiles = area_quantiles(found.summary.areas, (0.5,))
    if quantiles and count >= MIN_NUCLEI and not MEDIAN_AREA_UM2[0] <= quantiles[0] <= MEDIAN_AREA_UM2[1]:
        said.append(
            f"the median nucleus has {quantiles[0]:.3g} um2, outside {MEDIAN_AREA_UM2[0]:.0f} to "
            f"{MEDIAN_AREA_UM2[1]:.0f} um2: check the slide's scale (--mpp) and the model"
        )
    if found.in_background is not None and found.in_background > MOST * count:
        said.append(
            f"{found.in_background} of {count} nuclei lie outside the tissue: the model may not suit this slide"
        )
    return said


def _knows_fluorescence(training: Any) -> bool:
    return "fluor" in json.dumps(training, default=str).lower()
