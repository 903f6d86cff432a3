"""Images of different magnifications in one data set: their scales, and resampling to the one that a network takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclix.engine.errors import DataError
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.tables import read_column, read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES_FILE = "images.csv"
SCALE_COLUMN = "mpp"
SAME_SCALE = 0.01  # relative difference of two scales below which an image is left as it is
MAX_MPP = 100.0  # coarser than any microscope image; catches nanometres entered as micrometres


def read_scales(path: Path, names: Sequence[str]) -> dict[str, float]:
    """Return image name to micrometres per pixel from a CSV with the columns image and mpp.

    Parameters
    ----------
    path : Path
        The CSV; rows of other images are ignored.
    names : sequence of str
        The images, each of which must have a row: a scale is never guessed.

    Raises
    ------
    DataError
        If the file can't be read, lacks a column or an image, or a scale is not a positive number.
    """
    found = {}
    for name, text in read_column(path, SCALE_COLUMN, names).items():
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= MAX_MPP:
            raise DataError(
                f"{path}: {SCALE_COLUMN} of {name} is {text!r}; it must be micrometres per pixel, like 0.25"
            )
        found[name] = value
    return found


def scales_of(folder: Path, table: Path | None, names: Sequence[str]) -> Mapping[str, float]:
    """Return the images' scales from ``images.csv``, else from the split's table; empty if neither has any.

    Parameters
    ----------
    folder : Path
        The data set.
    table : Path, optional
        The CSV that says the split; may have a column mpp.
    names : sequence of str
        The images whose scales are needed.

    Raises
    ------
    DataError
        As `read_scales`.
    """
    own = folder / SCALES_FILE
    if own.is_file():
        return read_scales(own, names)
    if table is not None and SCALE_COLUMN in read_rows(table)[0]:
        return read_scales(table, names)
    return {}


def resampled(item: Annotated, mpp: float, target: float) -> Annotated:
    """Return an image at another scale: its pixels as a slide reader resamples them, its labels by nearest neighbour.

    Parameters
    ----------
    item : Annotated
        At `mpp`.
    mpp, target : float
        The image's scale and the wanted one, in micrometres per pixel.

    Returns
    -------
    Annotated
        Area means where the image shrinks, linear interpolation where it grows; `item` itself where the two scales
        differ by less than 1 %.
    """
    factor = mpp / target
    if abs(factor - 1) < SAME_SCALE:
        return item
    from PIL.Image import Resampling, fromarray

    height, width = (max(1, round(extent * factor)) for extent in item.labels.shape)
    method = Resampling.BILINEAR if factor > 1 else Resampling.BOX
    pixels = np.array(fromarray(item.image).resize((width, height), method))
    return Annotated(item.name, pixels, nearest(item.labels, (height, width)))


def nearest(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return an (H, W) label image enlarged or reduced to `shape`: each pixel has the label under its centre."""
    rows, cols = (
        ((np.arange(after) + 0.5) * (before / after)).astype(np.int64)
        for before, after in zip(labels.shape, shape, strict=True)
    )
    return np.ascontiguousarray(labels[np.ix_(rows, cols)])
