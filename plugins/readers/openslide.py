"""Slides that OpenSlide reads: MRXS, VMS, VMU, DICOM, Ventana BIF with overlapping tiles, and the TIFFs of scanners.

Boxes are put together from blocks on a fixed grid. OpenSlide takes a box's corner in level-0 pixels, which on coarse
levels lies between pixels, and interpolates there: read block by block, a pixel's value does not depend on the box.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.errors import SlideError, UnsupportedSlideError
from nuclix.engine.geometry import Box
from nuclix.plugins.readers._blocks import BlockReader, one_line
from nuclix.plugins.readers._scale import TIFF_RESOLUTION, VENDOR, scale_of, stated

GENERIC = "generic-tiff"
ICC_LIMIT = 64 << 20  # no colour profile is larger
# What is recognised without the library, to say what is missing: (offset, bytes); MRXS and VMS go by their names
DICOM_MAGIC = (128, b"DICM")
SUFFIXES = (".mrxs", ".vms", ".vmu")
ADVICE = "install OpenSlide: pip install openslide-python openslide-bin"


class OpenSlideReader(BlockReader):
    """Reads what OpenSlide recognises.

    Parameters
    ----------
    info : SlideInfo
        What is known of the slide.
    slide : openslide.OpenSlide
        The open slide.
    """

    priority: ClassVar[int] = -10  # where tiffslide's reader recognises a file too, it decodes faster
    isolated: ClassVar[bool] = True

    def __init__(self, info: SlideInfo, slide: Any) -> None:
        super().__init__(info)
        self._slide = slide
        self._downsamples = slide.level_downsamples

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether OpenSlide has a format for the file's content."""
        if not path.is_file():
            return False
        if not _installed():
            return _needs_openslide(path)
        import openslide

        try:
            return openslide.OpenSlide.detect_format(path) is not None
        except openslide.OpenSlideError:
            return False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a slide.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        OpenSlideReader

        Raises
        ------
        UnsupportedSlideError
            If OpenSlide is not installed, or does not recognise the file.
        SlideError
            If the slide is damaged or lacks files, or has pixels that are not square.
        """
        if not _installed():
            raise UnsupportedSlideError(f"{path}: is read by OpenSlide, which is not installed; {ADVICE}")
        import openslide

        try:
            slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise UnsupportedSlideError(f"{path}: is not a slide that OpenSlide recognises") from error
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"{path}: can't be opened by OpenSlide ({one_line(error)}); copy the slide again"
            ) from error
        try:
            return cls(_info(path, slide), slide)
        except BaseException:
            slide.close()
            raise

    def _decoded(self, level: int, place: Box) -> NDArray[np.uint8]:
        import openslide

        down = self._downsamples[level]
        corner = (round(place.col * down), round(place.row * down))
        try:
            image = self._slide.read_region(corner, level, (place.width, place.height))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"{self.info.path}: level {level}, x {place.col}, y {place.row}: OpenSlide can't read it "
                f"({one_line(error)}); the file is damaged: copy or export it again"
            ) from error
        rgba = np.asarray(image)
        pixels = rgba[..., :3].copy()
        # On coarse levels OpenSlide leaves seams of part opacity between tiles: their colours are right as they are.
        pixels[rgba[..., 3] == 0] = 255
        return pixels

    def _close(self) -> None:
        self._slide.close()


def _installed() -> bool:
    return importlib.util.find_spec("openslide") is not None


def _needs_openslide(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    offset, magic = DICOM_MAGIC
    with path.open("rb") as file:
        return file.read(offset + len(magic))[offset:] == magic


def _info(path: Path, slide: Any) -> SlideInfo:
    import openslide

    properties = slide.properties
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide").lower()
    source = TIFF_RESOLUTION if vendor == GENERIC else VENDOR
    across, down = properties.get(openslide.PROPERTY_NAME_MPP_X), properties.get(openslide.PROPERTY_NAME_MPP_Y)
    scale, scale_source = scale_of(path, [stated(across, down, source)])
    height, width = slide.dimensions[1], slide.dimensions[0]
    levels = tuple(Level(h, w, (height / h + width / w) / 2) for w, h in slide.level_dimensions)
    return SlideInfo(
        path=path,
        vendor=vendor,
        levels=levels,
        scale=scale,
        bounds=_bounds(properties, Box(0, 0, height, width)),
        scale_source=scale_source,
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        icc_profile=_icc_profile(slide),
        associated=tuple(sorted(slide.associated_images)),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _bounds(properties: Any, whole: Box) -> Box | None:
    """Return the part of the slide that QuPath shows, which it takes only where all four properties are there."""
    values = [_number(properties.get(f"openslide.bounds-{side}")) for side in ("y", "x", "height", "width")]
    if any(value is None for value in values):
        return None
    row, col, height, width = (int(value) for value in values if value is not None)
    bounds = Box(row, col, height, width).intersect(whole)
    return bounds if bounds.area else None


def _icc_profile(slide: Any) -> bytes | None:
    """Return the embedded profile; OpenSlide before 4.0 knows of none."""
    import openslide

    try:
        profile = slide.color_profile
    except (AttributeError, OSError, openslide.OpenSlideError):  # the library is older, or the profile is damaged
        return None
    content = None if profile is None else profile.tobytes()
    return content if content and len(content) <= ICC_LIMIT else None
