"""Tiles at three magnifications, from slides or from images, as the attention recipe learns from them (section 4.1)."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.geometry import Box, Scale
from nuclix.engine.slide.reinhard import Moments, moments, transfer
from nuclix.engine.slide.tissue import BLACK, value_and_chroma

if TYPE_CHECKING:
    import torch

    from nuclix.engine.contracts import SlideReader
    from nuclix.engine.slide.tissue import Overview
    from nuclix.engine.slide.view import SlideView
    from nuclix.engine.training.contracts import Annotated, BatchShape

FACTORS = (1, 2, 4)  # 40x, 20x, 10x: pixels of the finest along one of each
TILE = 1.4  # a tile's edge over a crop's: 224 to 160 px
COVER = 0.7  # of a tile must be tissue
SATURATION = 0.06  # HSV; background has up to 0.05, pale stroma begins here (see `nuclix.engine.slide.tissue`)
THIN = 4  # every fourth pixel tells an image's colours well enough
TRANSFORMS = 6
SYMMETRIES = 8


def tissue(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where an (H, W, 3) RGB image holds tissue, by thresholds of saturation and value in HSV."""
    value, chroma = value_and_chroma(image)
    return (value >= BLACK) & (chroma > np.float32(SATURATION) * value)


def covers(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float64]:
    """Return the share of `mask` in every (height, width) window that lies inside, by its first pixel."""
    sums = np.pad(mask.astype(np.int32).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    counts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return counts / float(height * width)


def area_average(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return an (H, W, 3) image averaged over squares of `factor` px; rows and columns left over are dropped."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    total = np.zeros((height, width, 3), np.float32)
    for row in range(factor):
        for col in range(factor):
            total += image[row : height * factor : factor, col : width * factor : factor]
    return np.rint(total / factor**2).astype(np.uint8)


class Source(Protocol):
    """Where tiles of one magnification come from."""

    def crop(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a random (size, size, 3) crop of a random tile with enough tissue."""
        ...


class ImageSource:
    """Crops of an image in memory.

    Parameters
    ----------
    image : (H, W, 3) uint8
        At the magnification.
    size : int
        Edge of a crop; the image is at least as large.
    """

    def __init__(self, image: NDArray[np.uint8], size: int) -> None:
        self._image = image
        self._tile = tuple(min(round(TILE * size), edge) for edge in image.shape[:2])
        cover = covers(tissue(image), *self._tile)
        self._places = np.argwhere(cover >= min(COVER, float(cover.max())))

    def crop(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a random crop of a random tile."""
        place = self._places[rng.integers(len(self._places))]
        row, col = (int(start + rng.integers(tile - size + 1)) for start, tile in zip(place, self._tile, strict=True))
        return self._image[row : row + size, col : col + size]


class Use:
    """Somebody reads: when the last that holds it is gone, the slide is closed."""

    def __init__(self, reader: SlideReader) -> None:
        weakref.finalize(self, reader.close)


class SlideSource:
    """Crops of a slide at one magnification, read when they are drawn.

    Tiles lie on a grid; those count whose tissue, seen at low resolution, covers enough of them.

    Parameters
    ----------
    view : SlideView
        The slide at the magnification.
    overview : Overview
        The slide at low resolution.
    size : int
        Edge of a crop.
    use : Use
        Held as long as the source may read.
    """

    def __init__(self, view: SlideView, overview: Overview, size: int, use: Use) -> None:
        self._view, self._use = view, use
        self._tile = round(TILE * size)
        downsample = overview.downsample / view.downsample  # the view's pixels along one of the overview
        edge = max(1, round(self._tile / downsample))
        cover = covers(tissue(overview.pixels), edge, edge)
        rows, cols = (np.arange(0, side - self._tile + 1, self._tile) for side in (view.height, view.width))
        if not cover.size:
            rows = cols = np.empty(0, int)
        low_rows, low_cols = (np.floor(at / downsample).astype(int) for at in (rows, cols))
        seen = cover[np.minimum(low_rows, cover.shape[0] - 1)][:, np.minimum(low_cols, cover.shape[1] - 1)]
        self.places = np.argwhere(seen >= COVER) * self._tile

    def crop(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a random crop of a random tile."""
        row, col = self.places[rng.integers(len(self.places))] + rng.integers(self._tile - size + 1, size=2)
        return self._view.read(Box(int(row), int(col), size, size))


@dataclass(frozen=True, slots=True)
class TileSettings:
    """What the batches are made of.

    Attributes
    ----------
    scale : Scale
        Of the finest magnification, 40x.
    slides : str
        Folder of whole slides; empty for the annotated images' own pixels.
    stain : str
        See `AttentionRecipe`.
    """

    scale: Scale
    slides: str
    stain: str


class TileBatches:
    """Batches of crops, as many of one magnification as of another, without anybody's labels.

    Crop k of batch t has magnification (k + t) mod 3. Crops are turned and mirrored at random.

    Parameters
    ----------
    sources : sequence of sequences of Source
        By magnification, each not empty.
    references : sequence of Moments
        Colours to choose a crop's from; empty leaves crops as they are.
    shape : BatchShape
        Of a batch.
    seed : int
        Batch t is a function of it and t.
    """

    def __init__(
        self, sources: Sequence[Sequence[Source]], references: Sequence[Moments], shape: BatchShape, seed: int
    ) -> None:
        self._sources = sources
        self._references = references
        self._shape = shape
        self._seed = seed

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return RGB 0..255 (N, 3, S, S) float32 and (N, 2, 1, 1): magnification, and the batch's transform t."""
        import torch

        rng = np.random.default_rng([self._seed, step])
        which = int(rng.integers(TRANSFORMS))
        scales = [(index + step) % len(FACTORS) for index in range(self._shape.batch)]
        crops = [self._crop(scale, rng) for scale in scales]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()
        targets = torch.tensor([[scale, which] for scale in scales], dtype=torch.float32)
        return images, targets[:, :, None, None]

    def _crop(self, scale: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        sources = self._sources[scale]
        crop = sources[int(rng.integers(len(sources)))].crop(self._shape.patch, rng)
        if self._references:
            crop = transfer(crop, self._references[int(rng.integers(len(self._references)))])
        turn = int(rng.integers(SYMMETRIES))
        crop = np.rot90(crop, turn % 4)
        return np.ascontiguousarray(crop if turn < 4 else crop.transpose(1, 0, 2))


def tile_batches(images: Sequence[Annotated], settings: TileSettings, shape: BatchShape, seed: int) -> TileBatches:
    """Return the batches of a folder of slides, or of the annotated images' pixels; raise `DataError` for too little.

    The reference colours are those of the annotated images, whichever the tiles come from.
    """
    sources: Sequence[Sequence[Source]]
    if settings.slides:
        sources = slide_sources(Path(settings.slides), settings.scale, shape.patch)
    else:
        sources = image_sources([item.image for item in images], shape.patch)
    for factor, found in zip(FACTORS, sources, strict=True):
        if not found:
            where, um = settings.slides or "the images", settings.scale.mpp * factor
            raise DataError(f"{where}: nothing to cut {shape.patch} px of tissue from at {um:g} um/px")
    references = [moments(item.image[::THIN, ::THIN]) for item in images] if settings.stain != "none" else []
    return TileBatches(sources, references if settings.stain == "varied" else references[:1], shape, seed)


def image_sources(images: Sequence[NDArray[np.uint8]], size: int) -> list[list[ImageSource]]:
    """Return every image large enough, at each of three magnifications: as it is and area-averaged by 2 and by 4."""
    averaged = [[area_average(image, factor) for image in images] for factor in FACTORS]
    return [[ImageSource(image, size) for image in some if min(image.shape[:2]) >= size] for some in averaged]


def slide_sources(folder: Path, finest: Scale, size: int) -> list[list[SlideSource]]:
    """Return the slides of a folder at each of three magnifications.

    A slide is read at exactly the magnification, averaged from its nearest finer level: scanners' levels often lie a
    factor of 4 apart, and none has 20x. A magnification finer than the scan's is left out, not made up.

    Raises
    ------
    DataError
        If there is no such folder.
    SlideError
        If a file is no slide, is damaged, or does not say its scale.
    """
    from nuclix.engine.slide.open import open_slide, slide_scale
    from nuclix.engine.slide.tissue import read_overview
    from nuclix.engine.slide.view import SlideView

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of slides")
    found: list[list[SlideSource]] = [[] for _ in FACTORS]
    for path in sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith(".")):
        reader = open_slide(path)
        scale = slide_scale(reader.info)
        overview, use = None, Use(reader)
        for sources, factor in zip(found, FACTORS, strict=True):
            view = SlideView(reader, Scale(finest.mpp * factor), scale)
            if view.downsample < 1:
                continue
            overview = overview or read_overview(reader, view)
            source = SlideSource(view, overview, size, use)
            if len(source.places):
                sources.append(source)
    return found
