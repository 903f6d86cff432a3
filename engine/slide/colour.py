"""Convert a slide's colours to sRGB by its embedded ICC profile."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.damage import DamageTolerant, TileDamage, UniformRegions


class ColourManagedReader(SlideReader):
    """A reader whose pixels are converted to sRGB, with the profile's own rendering intent.

    Parameters
    ----------
    reader : SlideReader
        The open slide, with a profile.

    Raises
    ------
    SlideError
        If the profile is damaged or is not one of RGB.
    """

    priority: ClassVar[int] = 0

    def __init__(self, reader: SlideReader) -> None:
        from PIL import ImageCms

        self.wrapped = reader
        self.info = reader.info
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(reader.info.icc_profile or b""))
            target, intent = ImageCms.createProfile("sRGB"), ImageCms.getDefaultIntent(profile)
            self._transform = ImageCms.buildTransform(profile, target, "RGB", "RGB", ImageCms.Intent(intent))
        except (OSError, ValueError, ImageCms.PyCMSError) as error:
            raise SlideError(
                f"{reader.info.path}: its ICC profile can't be used ({error}); run it without --icc"
            ) from error

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return False: it wraps a reader, and opens no file."""
        return False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raise `TypeError`: it wraps a reader, and opens no file."""
        raise TypeError(f"{path}: a colour-managed reader wraps an open one")

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a box as (height, width, 3) sRGB."""
        return self._converted(self.wrapped.read(level, box))

    def _converted(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        from PIL import Image, ImageCms

        if not rgb.size:
            return rgb
        converted = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(rgb)), self._transform)
        return np.array(converted)

    def uniform(self, level: int, box: Box) -> tuple[int, int, int] | None:
        """Return the colour of a box where it is known to be of one."""
        colour = self.wrapped.uniform(level, box) if isinstance(self.wrapped, UniformRegions) else None
        if colour is None:
            return None
        red, green, blue = self._converted(np.array([[colour]], np.uint8))[0, 0].tolist()
        return red, green, blue

    @property
    def damage(self) -> TileDamage:
        """Tiles that are shown as background because the file does not hold their pixels."""
        return self.wrapped.damage if isinstance(self.wrapped, DamageTolerant) else TileDamage()

    def tolerate_damage(self, max_tiles: int) -> None:
        """Let the wrapped reader go on after undecodable tiles."""
        if isinstance(self.wrapped, DamageTolerant):
            self.wrapped.tolerate_damage(max_tiles)

    def close(self) -> None:
        """Close the slide."""
        self.wrapped.close()


def managed(reader: SlideReader) -> SlideReader:
    """Return a reader of sRGB; the reader itself where the slide has no ICC profile."""
    return reader if reader.info.icc_profile is None else ColourManagedReader(reader)


def reader_name(reader: SlideReader) -> str:
    """Return the class of a slide's reader, without what wraps it."""
    return type(reader.wrapped if isinstance(reader, ColourManagedReader) else reader).__name__


def profile_warnings(reader: SlideReader, *, asked: bool) -> tuple[str, ...]:
    """Return a warning where ``--icc`` had no effect."""
    if not asked or isinstance(reader, ColourManagedReader):
        return ()
    return ("the slide has no ICC profile: --icc had no effect",)
