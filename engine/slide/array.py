"""An image in memory as a slide of one level."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo, SlideReader
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.view import PLAIN_IMAGE

CHANNELS = 3
WHITE = 255


class ArrayReader(SlideReader):
    """Reads boxes of an array; a `SlideReader` that no file is opened with.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
        The image; it is not copied.
    mpp : float
        Micrometres per pixel.

    Raises
    ------
    TypeError
        If the array is not uint8.
    ValueError
        If its shape is not (H, W, 3), it is empty, or `mpp` is not a positive number.
    """

    priority: ClassVar[int] = 0

    def __init__(self, rgb: NDArray[np.uint8], mpp: float) -> None:
        if rgb.dtype != np.uint8:
            raise TypeError(f"the image must be uint8 with values 0..255, not {rgb.dtype}")
        if rgb.ndim != CHANNELS or rgb.shape[2] != CHANNELS or not rgb.size:
            raise ValueError(f"the image must have the shape (height, width, 3), not {rgb.shape}")
        self._rgb = rgb
        height, width, _ = rgb.shape
        self.info = SlideInfo(Path("image"), PLAIN_IMAGE, (Level(height, width, 1.0),), Scale(mpp), None)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return False: no file is an array."""
        return False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raise `TypeError`: an array has no file."""
        raise TypeError(f"{path}: an array in memory is not opened from a file")

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a box as (height, width, 3) RGB, white outside the image."""
        if level != 0:
            raise ValueError(f"an array has no level {level}")
        out = np.full((*box.shape, CHANNELS), WHITE, np.uint8)
        inside = box.intersect(Box(0, 0, *self._rgb.shape[:2]))
        if inside.area:
            out[inside.slices(box)] = self._rgb[inside.slices()]
        return out

    def close(self) -> None:
        """Do nothing: the array is the caller's."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape and pixels, 64 hexadecimal digits."""
        digest = hashlib.sha256(str(self._rgb.shape).encode())
        digest.update(np.ascontiguousarray(self._rgb).data)
        return digest.hexdigest()
