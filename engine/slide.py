"""A slide as a run sees it: opened by whichever reader knows it, identified, and read at the model's scale."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nuclix.engine import registry
from nuclix.engine.contracts import Level, SlideInfo, SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.resample import area_taps, linear_taps
from nuclix.ext.resample import box_mean, separable

# Nominal scales of scanners of one magnification differ by about this much (20x: 0.4942 to 0.5040; 40x: 0.2461 to
# 0.2527), no more than nuclei differ from each other. Taking an exact ratio instead spares the resampling blur and
# keeps outlines on the pixel grid.
SNAP = 0.05
# A scanner's or a user's typing error shows as a scale beyond what light microscopes and their pyramids have.
FINEST_UM, COARSEST_UM = 0.05, 20.0
SOURCE_BYTES = 128 << 20  # what one read may hold of the level that it averages: a strip of it at a time
PLAIN_IMAGE = "image"  # what a reader of plain images calls their vendor (`SlideInfo`)
CHUNK = 64 << 10  # bytes a fingerprint takes at each place
CHUNKS = 16  # places between the head and the tail of a file that a fingerprint looks at


def open_slide(path: Path) -> SlideReader:
    """Open a slide with the reader that recognises its content, the highest rank first.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    SlideReader

    Raises
    ------
    SlideError
        If the file is missing, a folder, empty, unreadable, recognised by no reader, or damaged.
    """
    path = Path(path)
    check_file(path)
    readers = {name: cast(type[SlideReader], registry.load(registry.READERS, name)) for name in _reader_names()}
    for _, reader in sorted(readers.items(), key=lambda item: (-item[1].rank, item[0])):
        if reader.recognises(path):
            return reader.open(path)
    raise SlideError(f"{path}: not an image that any installed reader recognises (readers: {', '.join(readers)})")


def _reader_names() -> tuple[str, ...]:
    return tuple(registry.names(registry.READERS))


def check_file(path: Path) -> None:
    """Raise `SlideError` unless `path` is a file that has content and can be read."""
    if path.is_dir():
        raise SlideError(f"{path}: is a folder, not a slide; name the slides in it, or {path / '*'}")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a FIFO waits for a writer, a device may have no end
            kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
            raise SlideError(f"{path}: is {kind}, not a file; name a slide")
        with path.open("rb") as file:
            if not file.read(1):
                raise SlideError(f"{path}: is empty (0 bytes); copy the slide again")
    except FileNotFoundError:
        raise SlideError(f"{path}: no such file") from None
    except PermissionError:
        raise SlideError(f"{path}: may not be read by this user; change its permissions") from None
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error


def fingerprint(path: Path) -> str:
    """Identify a slide by its content: SHA-256 of its size, head, tail and chunks spread between them.

    Copies have one fingerprint wherever they lie and whenever they were made; it costs one megabyte of reading.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    SlideError
        If the file can't be read.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            last = max(0, size - CHUNK)
            for place in sorted({last * step // (CHUNKS + 1) for step in range(CHUNKS + 2)}):
                file.seek(place)
                digest.update(file.read(CHUNK))
    except OSError as error:
        raise SlideError(f"{path}: can't be read ({error.strerror}); check the disk or the connection") from error
    return digest.hexdigest()


def slide_scale(info: SlideInfo, override_mpp: float | None = None) -> Scale:
    """Return a slide's scale at level 0: what the user says, else what the file says.

    Parameters
    ----------
    info : SlideInfo
        What the reader knows.
    override_mpp : float or None
        The user's um/px.

    Returns
    -------
    Scale

    Raises
    ------
    SlideError
        If neither says, or if the scale is not one that a microscope has.
    """
    if override_mpp is not None:
        return _plausible(info.path, override_mpp, "--mpp says")
    if info.scale is None:
        raise SlideError(f"{info.path}: does not say its scale; pass it with --mpp (um/px of the full resolution)")
    return _plausible(info.path, info.scale.um_per_px, "the file says")


def _plausible(path: Path, um: float, source: str) -> Scale:
    if not FINEST_UM <= um <= COARSEST_UM:
        raise SlideError(
            f"{path}: {source} {um:g} um/px, which is outside {FINEST_UM:g} to {COARSEST_UM:g} um/px; "
            "pass the right scale with --mpp"
        )
    return Scale(um)


def snapped(ratio: float) -> float:
    """Return the whole number, or 1 / whole number, within `SNAP` of a ratio of scales; else the ratio itself.

    >>> snapped(1.02), snapped(2.09), snapped(0.499 / 0.25), snapped(0.25 / 0.499), snapped(1.37)
    (1.0, 2.0, 2.0, 0.5, 1.37)
    """
    near = float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)
    return near if abs(ratio / near - 1) <= SNAP else ratio


def level_downsample(base: Level, level: Level) -> float:
    """Return level-0 pixels per pixel of `level`, whole where its size is a rounded quotient of level 0's.

    A pyramid of 2967 rows has 741 at a quarter: the ratio 4.004 comes from the rounding, the pixels lie 4 apart.
    """
    whole = round(level.downsample)
    rounded = all(
        full // whole <= part <= -(-full // whole)
        for full, part in ((base.height, level.height), (base.width, level.width))
    )
    return float(whole) if rounded else level.downsample


def _extent(length: int, pixel: float) -> int:
    """Return how many pixels cover `length`; a hair over a whole number is rounding (1 / 3 is not exact)."""
    return math.ceil(length / pixel - 1e-6)


class SlideView:
    """A slide at the model's scale.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    model_scale : Scale
        The scale that is wanted.
    slide_scale : Scale
        Level 0's scale.

    Attributes
    ----------
    reader : SlideReader
        The open slide.
    pixel : float
        Level-0 pixels along one pixel of the view; snapped to a whole ratio where that is near.
    scale : Scale
        The true size of the view's pixel: `pixel` times level 0's.
    height, width : int
        The view's size; the last row and column may reach over the slide's edge.
    level : int
        The level that is read: the coarsest that is not coarser than the view.
    factor : float
        Pixels of that level along one of the view.
    """

    def __init__(self, reader: SlideReader, model_scale: Scale, slide_scale: Scale) -> None:
        levels = reader.info.levels
        self.reader = reader
        self.pixel = snapped(model_scale.pixels_of(slide_scale))
        self.scale = Scale(self.pixel * slide_scale.um_per_px)
        self.height = _extent(levels[0].height, self.pixel)
        self.width = _extent(levels[0].width, self.pixel)
        downsamples = [level_downsample(levels[0], level) for level in levels]
        fine = [index for index, downsample in enumerate(downsamples) if downsample <= self.pixel]
        self.level = max(fine, key=lambda index: downsamples[index], default=0)
        self.factor = self.pixel / downsamples[self.level]

    @property
    def info(self) -> SlideInfo:
        """What the reader knows of the slide."""
        return self.reader.info

    @property
    def box(self) -> Box:
        """All of the view."""
        return Box(0, 0, self.height, self.width)

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Read a box at the view's scale; how boxes are cut makes no difference to any pixel.

        Parameters
        ----------
        box : Box
            In the view's pixels; may reach over its edges.

        Returns
        -------
        (height, width, 3) uint8
            RGB, white outside the slide.

        Raises
        ------
        SlideError
            If the slide's file is damaged there.
        """
        if self.factor == 1:
            return self.reader.read(self.level, box)
        if not box.area:
            return np.zeros((*box.shape, 3), np.uint8)
        out = np.empty((*box.shape, 3), np.uint8)
        rows = max(1, int(SOURCE_BYTES / (3 * self.factor**2 * box.width)))
        for row in range(box.row, box.row_end, rows):
            strip = Box.between(row, box.col, min(row + rows, box.row_end), box.col_end)
            out[strip.slices(box)] = self._resampled(strip)
        return out

    def read_patch(self, box: Box) -> NDArray[np.uint8]:
        """Read a box for the network: as `read`, but a plain image is mirrored beyond its edges.

        A slide ends in glass. A plain image ends in the middle of what it shows, and white beside it, beside the black
        of fluorescence above all, is what no network has learnt from (multi-head paper, section 5.6).

        Parameters
        ----------
        box : Box
            In the view's pixels; may reach over its edges, but not lie wholly outside.

        Returns
        -------
        (height, width, 3) uint8
            RGB.

        Raises
        ------
        SlideError
            If the slide's file is damaged there.
        """
        inside = box.intersect(self.box)
        if self.info.vendor != PLAIN_IMAGE or inside == box or not inside.area:
            return self.read(box)
        around = (
            (inside.row - box.row, box.row_end - inside.row_end),
            (inside.col - box.col, box.col_end - inside.col_end),
        )
        return np.pad(self.read(inside), (*around, (0, 0)), mode="symmetric")

    def _resampled(self, box: Box) -> NDArray[np.uint8]:
        if self.factor.is_integer():
            whole = int(self.factor)
            source = Box(box.row * whole, box.col * whole, box.height * whole, box.width * whole)
            return box_mean(self.reader.read(self.level, source), whole)
        taps = area_taps if self.factor > 1 else linear_taps
        rows, cols = taps(box.row, box.height, self.factor), taps(box.col, box.width, self.factor)
        source = Box.between(rows.start, cols.start, rows.stop, cols.stop)
        return separable(self.reader.read(self.level, source), rows.relative, cols.relative)
