"""Which parts of a slide its page shows: the densest fields, random ones, and where the model is least sure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.report.slide_scan import CELLS_A_FIELD, SlideScan

DENSEST, RANDOM, DOUBTFUL = "densest", "random", "most doubtful"
FIELDS_OF_A_KIND = 3
# A field with fewer nuclei than this, or than this share of the usual one, says little about a slide; such fields are
# taken only where there are no others.
MIN_NUCLEI, MIN_SHARE = 8, 0.5
# The gallery of single nuclei: how many, and how large each picture is.
CROPS = 16
CROP_UM = 40.0


@dataclass(frozen=True, slots=True)
class Field:
    """A square part of a slide.

    Attributes
    ----------
    kind : str
        Why it was chosen.
    box : (4,) float64
        First row, first column, end row, end column, in pixels of the objects' coordinates.
    nuclei : int
        In it, by the middle of their boxes.
    score : float or None
        Mean of their scores (of a single nucleus, its score).
    """

    kind: str
    box: NDArray[np.float64]
    nuclei: int
    score: float | None


def choose_fields(scan: SlideScan, seed: str) -> tuple[Field, ...]:
    """Return the sample fields of a slide; none overlaps another.

    Parameters
    ----------
    scan : SlideScan
        Of the slide.
    seed : str
        Decides the random ones: the same fields for the same result.

    Returns
    -------
    tuple of Field
        Up to three of a kind; none where there are no nuclei.
    """
    counts = _windows(scan.counts.astype(np.float64))
    means = _windows(scan.score_sums) / np.maximum(counts, 1)
    scored = bool(scan.scores.sum())
    number = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "backslashreplace")).digest()[:8], "big")
    lot = np.random.default_rng(number).random(counts.shape)
    free = counts > 0
    populated = free & _inside(counts.shape, scan)
    usual = float(np.median(counts[populated])) if populated.any() else 0.0
    enough = populated & (counts >= max(MIN_NUCLEI, MIN_SHARE * usual))
    populated = next((places for places in (enough, populated) if places.any()), free.copy())
    wanted = [(DENSEST, counts), (DOUBTFUL, -means), (RANDOM, lot)]
    chosen: dict[str, list[Field]] = {DENSEST: [], DOUBTFUL: [], RANDOM: []}
    # By turns: on a small slide the densest fields would leave no place to the others.
    for kind, values in wanted * FIELDS_OF_A_KIND:
        place = _greatest(values, free, populated) if scored or kind != DOUBTFUL else None
        if place is not None:
            low = scan.corner + np.array(place) * scan.cell
            box = np.concatenate([low, low + scan.cell * CELLS_A_FIELD])
            score = float(means[place]) if scored else None
            chosen[kind].append(Field(kind, box, int(counts[place]), score))
    return tuple(field for fields in chosen.values() for field in fields)


def choose_doubtful(scan: SlideScan) -> tuple[Field, ...]:
    """Return the nuclei with the lowest scores, each in the middle of a small field; none shows another's."""
    edge = CROP_UM / scan.mpp
    chosen: list[NDArray[np.float64]] = []
    for candidate in scan.doubtful:
        if all(np.abs(candidate[1:] - other[1:]).max() > edge / 2 for other in chosen):
            chosen.append(candidate)
        if len(chosen) == CROPS:
            break
    return tuple(
        Field(DOUBTFUL, np.concatenate([item[1:] - edge / 2, item[1:] + edge / 2]), 1, float(item[0]))
        for item in chosen
    )


def _inside(shape: tuple[int, ...], scan: SlideScan) -> NDArray[np.bool_]:
    """Return which fields lie wholly on the slide."""
    rows, cols = ((np.arange(count) + CELLS_A_FIELD) * scan.cell for count in shape)
    return np.asarray((rows <= scan.extent[0])[:, None] & (cols <= scan.extent[1]))


def _windows(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of all squares of `CELLS_A_FIELD` cells."""
    views = np.lib.stride_tricks.sliding_window_view(cells, (CELLS_A_FIELD, CELLS_A_FIELD))
    return np.asarray(views.sum(axis=(2, 3)))


def _greatest(
    values: NDArray[np.float64], free: NDArray[np.bool_], allowed: NDArray[np.bool_]
) -> tuple[int, int] | None:
    """Return the place of the greatest value, and mark it and what overlaps it as taken; None if nothing is left."""
    open_places = free & allowed
    if not open_places.any():
        return None
    row, col = divmod(int(np.where(open_places, values, -np.inf).argmax()), values.shape[1])
    reach = CELLS_A_FIELD - 1
    free[max(0, row - reach) : row + reach + 1, max(0, col - reach) : col + reach + 1] = False
    return row, col
