"""Coordinates: a box of pixels at one level, and a scale in micrometres per pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels at one level or scale, (row, column) first; may lie outside the image.

    Attributes
    ----------
    row, col : int
        First row and column.
    height, width : int
        Extent in pixels, not negative.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a box can't have a negative extent: {self.height} x {self.width}")

    @property
    def row_end(self) -> int:
        """The row after the last."""
        return self.row + self.height

    @property
    def col_end(self) -> int:
        """The column after the last."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), as NumPy has it."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @classmethod
    def between(cls, row: int, col: int, row_end: int, col_end: int) -> Box:
        """Make the box of [row, row_end) x [col, col_end); empty where an end lies before its start."""
        return cls(row, col, max(0, row_end - row), max(0, col_end - col))

    def expand(self, margin: int) -> Box:
        """Grow by `margin` pixels on every side."""
        return Box(self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin)

    def shift(self, rows: int, cols: int) -> Box:
        """Move by `rows` and `cols`."""
        return Box(self.row + rows, self.col + cols, self.height, self.width)

    def intersect(self, other: Box) -> Box:
        """Return what both boxes share (possibly empty)."""
        return Box.between(
            max(self.row, other.row),
            max(self.col, other.col),
            min(self.row_end, other.row_end),
            min(self.col_end, other.col_end),
        )

    def slices(self, origin: Box | None = None) -> tuple[slice, slice]:
        """Return this box as an index into an array whose first pixel is `origin`'s (default: row 0, column 0)."""
        row, col = (origin.row, origin.col) if origin is not None else (0, 0)
        return slice(self.row - row, self.row_end - row), slice(self.col - col, self.col_end - col)


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a pixel is.

    Attributes
    ----------
    mpp : float
        Micrometres per pixel (mpp), positive and finite.
    """

    mpp: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            raise ValueError(f"a scale must be a positive number of um/px, not {self.mpp}")

    def pixels_of(self, finer: Scale) -> float:
        """Return how many pixels of the scale `finer` lie along one pixel of this one."""
        return self.mpp / finer.mpp
