"""Slides in a format of our own: a line of magic, a line of JSON, then RGB bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale

MAGIC = b"NUCLIX RAW SLIDE\n"
WHITE = 255


def save_raw(path: Path, image: NDArray[np.uint8], mpp: float | None) -> None:
    """Write an (H, W, 3) image as a slide of this format."""
    header = {"height": image.shape[0], "width": image.shape[1], "mpp": mpp}
    path.write_bytes(MAGIC + json.dumps(header).encode() + b"\n" + image.tobytes())


class RawReader:
    """Reads what `save_raw` writes."""

    priority: ClassVar[int] = 0

    def __init__(self, info: SlideInfo, pixels: NDArray[np.uint8]) -> None:
        self.info = info
        self._pixels: NDArray[np.uint8] | None = pixels

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether the file begins with the magic."""
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open `path`; raise `SlideError` if it is cut short or its header makes no sense."""
        try:
            with path.open("rb") as file:
                if file.readline() != MAGIC:
                    raise SlideError(f"{path}: not a raw slide")
                header = json.loads(file.readline())
                height, width, um = header["height"], header["width"], header["mpp"]
                pixels = np.frombuffer(file.read(), np.uint8).reshape(height, width, 3)
        except OSError as error:
            raise SlideError(f"{path}: can't be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SlideError(f"{path}: damaged raw slide ({error})") from error
        scale = None if um is None else Scale(um)
        return cls(SlideInfo(path, "raw", (Level(height, width, 1.0),), scale, None), pixels)

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return the box as (height, width, 3) RGB, white outside the slide."""
        if self._pixels is None:
            raise SlideError(f"{self.info.path}: is closed")
        if level != 0:
            raise SlideError(f"{self.info.path}: has no level {level}")
        out = np.full((*box.shape, 3), WHITE, np.uint8)
        inside = box.intersect(Box(0, 0, *self._pixels.shape[:2]))
        if inside.area:
            out[inside.slices(box)] = self._pixels[inside.slices()]
        return out

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = None
