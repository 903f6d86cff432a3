"""Zeiss CZI slides, read by Zeiss' own library (pylibCZIrw).

All scenes lie on one canvas, white between them. Coarse levels are offered for overviews only: where a file has no
pyramid the library makes them by leaving pixels out, which would spoil nuclei.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any, ClassVar, Self
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo
from nuclix.engine.errors import SlideError, UnsupportedSlideError
from nuclix.engine.geometry import Box
from nuclix.plugins.readers._blocks import BLOCK, BlockReader, one_line
from nuclix.plugins.readers._scale import VENDOR, StatedScale, scale_of, stated

MAGIC = b"ZISRAWFILE"  # the id of a CZI's first segment
DOWNSAMPLES = (1, 16, 64)  # what is read at 16 is an overview, never pixels for the network
COLOUR, DEEP_COLOUR, GREY = "Bgr24", "Bgr48", "Gray8"  # libCZI's names; conversion to Bgr24 is the library's
WHITE = (1.0, 1.0, 1.0)
UM_PER_M = 1e6
ADVICE = "install pylibCZIrw: pip install pylibCZIrw"


class CziReader(BlockReader):
    """Reads Zeiss CZI.

    Parameters
    ----------
    info : SlideInfo
        What is known of the slide.
    document : pylibCZIrw.czi.CziReader
        The open file.
    origin : tuple of int
        Row and column of the canvas' first pixel in the file's coordinates.
    """

    priority: ClassVar[int] = 0
    isolated: ClassVar[bool] = True

    def __init__(self, info: SlideInfo, document: Any, origin: tuple[int, int]) -> None:
        super().__init__(info)
        self._document: Any = document
        self._origin = origin
        self._lock = threading.Lock()

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether the file begins as a CZI does."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a CZI.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        CziReader

        Raises
        ------
        UnsupportedSlideError
            If pylibCZIrw is not installed.
        SlideError
            If the file is damaged, a stack, or not of 8-bit or 16-bit colours.
        """
        if importlib.util.find_spec("pylibCZIrw") is None:
            raise UnsupportedSlideError(f"{path}: is a Zeiss CZI, for which a library is missing; {ADVICE}")
        from pylibCZIrw import czi

        try:
            document = czi.CziReader(str(path), czi.ReaderFileInputTypes.Standard)
        except Exception as error:  # the library raises plain RuntimeErrors
            raise SlideError(f"{path}: is damaged or not a whole CZI ({one_line(error)}); copy it again") from error
        try:
            info, origin = _info(path, document)
            return cls(info, document, origin)
        except SlideError:
            document.close()
            raise
        except Exception as error:  # damaged metadata can trip its parsers anywhere
            document.close()
            raise SlideError(f"{path}: is damaged or not a whole CZI ({one_line(error)}); copy it again") from error

    def _decoded(self, level: int, place: Box) -> NDArray[np.uint8]:
        down = DOWNSAMPLES[level]
        row, col = self._origin[0] + place.row * down, self._origin[1] + place.col * down
        roi = (col, row, place.width * down, place.height * down)
        with self._lock:  # the library does not promise to be safe from several threads
            try:
                bgr = self._document.read(roi=roi, zoom=1 / down, pixel_type=COLOUR, background_pixel=WHITE)
            except Exception as error:  # codecs raise errors of their own making
                raise SlideError(
                    f"{self.info.path}: level {level}, x {place.col}, y {place.row}: does not decode "
                    f"({one_line(error)}); the file is damaged: copy or export it again"
                ) from error
        return np.ascontiguousarray(bgr[..., ::-1])

    def _close(self) -> None:
        self._document.close()


def _info(path: Path, document: Any) -> tuple[SlideInfo, tuple[int, int]]:
    kinds = set(document.pixel_types.values())
    if len(document.pixel_types) != 1 or not kinds <= {COLOUR, DEEP_COLOUR, GREY}:
        raise SlideError(
            f"{path}: has {len(document.pixel_types)} channels of {', '.join(sorted(kinds))}, which nuclix does not "
            "read as colours; export it as 8-bit RGB"
        )
    for axis, name in (("Z", "focal planes"), ("T", "times")):
        first, last = document.total_bounding_box.get(axis, (0, 1))
        if last - first > 1:
            raise SlideError(f"{path}: is a stack of {last - first} {name}; export one as RGB")
    canvas = document.total_bounding_rectangle
    if min(canvas.w, canvas.h) < 1:
        raise SlideError(f"{path}: has no pixels; copy or export it again")
    facts = ElementTree.fromstring(document.raw_metadata)
    scale, source = scale_of(path, [_scale(facts)])
    levels = tuple(
        Level(canvas.h // down, canvas.w // down, float(down))
        for down in DOWNSAMPLES
        if down == 1 or min(canvas.h, canvas.w) >= BLOCK * down // DOWNSAMPLES[1]
    )
    info = SlideInfo(
        path=path,
        vendor="zeiss",
        levels=levels,
        scale=scale,
        bounds=None,
        scale_source=source,
        objective_power=_objective(facts),
        compression="czi",
    )
    return info, (int(canvas.y), int(canvas.x))


def _scale(facts: ElementTree.Element) -> StatedScale | None:
    """Return the scale of Scaling/Items, which is in metres."""
    sides = {item.get("Id"): item.findtext("Value") for item in facts.iterfind(".//Scaling/Items/Distance")}
    try:
        across, down = (float(sides[axis] or 0) * UM_PER_M for axis in "XY")
    except (KeyError, ValueError):
        return None
    return stated(across, down, VENDOR)


def _objective(facts: ElementTree.Element) -> float | None:
    text = facts.findtext(".//Objectives/Objective/NominalMagnification")
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
