"""A made-up slide for the demo and for tests: nuclei of known place and shape in tissue that looks like H&E.

Tissue is drawn as amounts of haematoxylin and eosin and turned into light by the law of Beer and Lambert. The slide is
written as a scanner writes it, a band at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import OutputError
from nuclix.engine.geometry import Box
from nuclix.ext.resample import box_mean
from nuclix.ext.stains import EOSIN, HEMATOXYLIN

MPP = 0.25
TILE = 256
LEVELS = (1, 4, 16)
JPEG_QUALITY = 85
# Optical densities of the stains in red, green and blue as QuPath has them by default, and the light of the lamp
_HEMATOXYLIN, _EOSIN = np.array([HEMATOXYLIN, EOSIN], np.float32)
LAMP = np.array([244.0, 242.0, 245.0], np.float32)
NOISE = 2.0  # standard deviation of a pixel, in grey levels
TEXTURE = 1024  # period of the textures, in pixels
FIELD = 128  # pixels between the points of the slowly changing fields
SPACING = 30  # pixels between the sites where a nucleus may lie; the larger nuclei touch their neighbours
REACH = 1.6  # a nucleus lies within this many long half-axes of its centre


@dataclass(frozen=True, slots=True)
class SyntheticSlide:
    """What a made-up slide holds.

    Attributes
    ----------
    path : Path
        The file.
    height, width : int
        Its size in pixels of `MPP`.
    nuclei : (N, 8) float64
        Row, column, half-axes (along, across), angle, and three numbers that shape the outline and its inside; in the
        order in which they are drawn: where two overlap the earlier lies on top.
    seed : int
        What it was drawn from.
    """

    path: Path
    height: int
    width: int
    nuclei: NDArray[np.float64]
    seed: int

    def __len__(self) -> int:
        return len(self.nuclei)

    def labels(self, box: Box) -> NDArray[np.int32]:
        """Return the true labels of a box: a nucleus' number in `nuclei` plus 1, 0 elsewhere."""
        out = np.zeros(box.shape, np.int32)
        for index in _reaching(self.nuclei, box):
            window, inside = _ellipse(self.nuclei[index], box)
            part = out[window.slices(box)]
            part[(inside > 0) & (part == 0)] = index + 1
        return out


def make_synthetic_slide(path: Path, size: int = 4096, seed: int = 0) -> SyntheticSlide:
    """Draw a slide and write it as a pyramidal TIFF of JPEG tiles with an Aperio description.

    Parameters
    ----------
    path : Path
        The file to write; the same size and seed give the same pixels.
    size : int
        Height and width, rounded up to a multiple of 256 px.
    seed : int
        Seed of everything random.

    Returns
    -------
    SyntheticSlide

    Raises
    ------
    OutputError
        If the file can't be written.
    ValueError
        If `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"a slide can't be {size} px wide")
    edge = -(-size // TILE) * TILE
    scene = _Scene.of(edge, seed)
    try:
        _write(path, scene)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error
    return SyntheticSlide(path, edge, edge, scene.nuclei, seed)


def synthetic_labels(edge: int, seed: int = 0) -> NDArray[np.int32]:
    """Return the (edge, edge) true labels of a slide that is not drawn."""
    return SyntheticSlide(Path(), edge, edge, _Scene.of(edge, seed).nuclei, seed).labels(Box(0, 0, edge, edge))


@dataclass(frozen=True, slots=True)
class _Scene:
    """Everything that a band is drawn from."""

    edge: int
    seed: int
    fibres: NDArray[np.float32]  # (orientations, TEXTURE, TEXTURE), zero mean, unit variance
    grain: NDArray[np.float32]  # (TEXTURE, TEXTURE), the same
    tissue: NDArray[np.float32]  # fields: how deep in tissue (below 0: background),
    gland: NDArray[np.float32]  # how far in epithelium (below 0: stroma),
    course: NDArray[np.float32]  # where the fibres run, in turns
    nuclei: NDArray[np.float64]

    @classmethod
    def of(cls, edge: int, seed: int) -> _Scene:
        rng = np.random.default_rng(seed)
        points = edge // FIELD + 3
        tissue = _field(rng, points, 3)
        tissue -= np.quantile(tissue, 0.35)
        gland, course = _field(rng, points, 1), _field(rng, points, 4)
        turns = [turn * np.pi / 4 for turn in range(4)]
        fibres = np.stack([(_texture(rng, 3, 40, turn) + _texture(rng, 12, 90, turn)) / 2**0.5 for turn in turns])
        grain = _texture(rng, 2.0, 2.0, 0.0)
        nuclei = _scatter(rng, edge, (tissue, gland, course))
        return cls(edge, seed, fibres, grain, tissue, gland, course, nuclei)


def _field(rng: np.random.Generator, points: int, smooth: int) -> NDArray[np.float32]:
    """Return a random field of unit variance on a lattice, smooth over `smooth` points."""
    field = rng.normal(size=(points, points))
    for _ in range(smooth):
        for axis in (0, 1):
            field = field + 0.5 * (np.roll(field, 1, axis) + np.roll(field, -1, axis))
    return (field / field.std()).astype(np.float32)


def _texture(rng: np.random.Generator, across: float, along: float, angle: float) -> NDArray[np.float32]:
    """Return periodic Gaussian noise of unit variance, correlated over `along` px at `angle`, `across` px across."""
    down, right = np.meshgrid(np.fft.fftfreq(TEXTURE), np.fft.rfftfreq(TEXTURE), indexing="ij")
    u = np.cos(angle) * right + np.sin(angle) * down
    v = -np.sin(angle) * right + np.cos(angle) * down
    passed = np.exp(-2 * np.pi**2 * ((u * along) ** 2 + (v * across) ** 2) / 4)
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(TEXTURE, TEXTURE))) * passed, s=(TEXTURE, TEXTURE))
    return (noise / noise.std()).astype(np.float32)


def _at(field: NDArray[np.float32], rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[np.float32]:
    """Interpolate a field linearly at every row and column: (len(rows), len(cols))."""

    def taps(where: NDArray[Any]) -> NDArray[np.float32]:
        place = np.asarray(where, np.float64) / FIELD + 1
        return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(len(field)))).astype(np.float32)

    return np.asarray(taps(rows) @ field @ taps(cols).T)


def _scatter(rng: np.random.Generator, edge: int, fields: tuple[NDArray[np.float32], ...]) -> NDArray[np.float64]:
    """Choose nuclei: dense, round and large in epithelium; sparse, long and along the fibres in stroma."""
    sites = np.arange(SPACING / 2, edge, SPACING)
    tissue, gland, course = (_at(field, sites, sites).ravel() for field in fields)
    grid = np.meshgrid(sites, sites, indexing="ij")
    rows, cols = (axis.ravel() + rng.uniform(-0.3, 0.3, axis.size) * SPACING for axis in grid)
    inside = gland > 0
    taken = (tissue > 0.1) & (rng.random(rows.size) < np.where(inside, 0.75, 0.25))
    along = np.where(inside, rng.normal(14.5, 2, rows.size), rng.normal(18, 3, rows.size)).clip(9, 25)
    ratio = np.where(inside, rng.uniform(0.7, 1, rows.size), rng.uniform(0.3, 0.6, rows.size))
    angle = np.where(inside, rng.uniform(0, np.pi, rows.size), _direction(course) + rng.normal(0, 0.2, rows.size))
    looks = rng.random((3, rows.size))
    nuclei = np.stack([rows, cols, along, along * ratio, angle, *looks], axis=1)[taken]
    return nuclei[rng.permutation(len(nuclei))]


def _direction(course: NDArray[Any]) -> NDArray[Any]:
    """Return the angle of the fibres: a third of a turn for each unit of the field."""
    return course * (2 * np.pi / 3)


def _reaching(nuclei: NDArray[np.float64], box: Box) -> NDArray[np.int64]:
    """Return the indices of the nuclei that may show in a box."""
    row, col, reach = nuclei[:, 0], nuclei[:, 1], REACH * nuclei[:, 2]
    rows = (row + reach >= box.row) & (row - reach < box.row_end)
    return np.flatnonzero(rows & (col + reach >= box.col) & (col - reach < box.col_end))


def _ellipse(nucleus: NDArray[np.float64], box: Box) -> tuple[Box, NDArray[np.float64]]:
    """Return a nucleus' window within `box`, and how far its pixels lie inside: 1 at the centre, below 0 outside."""
    row, col, along, across, angle, wave, phase = nucleus[:7]
    reach = REACH * along
    window = Box.between(int(row - reach), int(col - reach), int(row + reach) + 2, int(col + reach) + 2).intersect(box)
    down = np.arange(window.row, window.row_end)[:, None] - row
    right = np.arange(window.col, window.col_end)[None, :] - col
    u = (np.cos(angle) * right + np.sin(angle) * down) / along
    v = (np.cos(angle) * down - np.sin(angle) * right) / across
    around = np.arctan2(v, u)
    edge = 1 + 0.1 * wave * np.cos(2 * around + 6 * phase) + 0.06 * np.cos(3 * around + 9 * phase)
    return window, 1 - np.hypot(u, v) / edge


def _draw(scene: _Scene, box: Box) -> NDArray[np.uint8]:
    """Return the RGB pixels of a band."""
    rows, cols = np.arange(box.row, box.row_end), np.arange(box.col, box.col_end)
    tissue, gland, course = (_at(field, rows, cols) for field in (scene.tissue, scene.gland, scene.course))
    period = np.ix_(rows % TEXTURE, cols % TEXTURE)
    grain = scene.grain[period]
    fibre = np.zeros(box.shape, np.float32)
    for turn, texture in enumerate(scene.fibres):  # each texture where the fibres run its way
        fibre += texture[period] * np.square(np.square(np.cos(_direction(course) - turn * np.pi / 4)))
    deep = np.clip((tissue + 0.01 * fibre) * 20, 0, 1)
    epithelium = np.clip(gland * 8 + 0.3 * grain, 0, 1)
    stroma = np.clip(0.22 + 0.10 * fibre + 0.015 * grain, 0.02, None)
    eosin = deep * (stroma + (0.26 + 0.03 * grain - stroma) * epithelium)
    haem = deep * (0.05 + 0.08 * epithelium + 0.015 * grain)
    for index in _reaching(scene.nuclei, box)[::-1]:
        _stain(scene.nuclei[index], box, (haem, eosin), scene.grain)
    density = np.clip(haem, 0, None)[..., None] * _HEMATOXYLIN + np.clip(eosin, 0, None)[..., None] * _EOSIN
    light = LAMP * np.exp(np.float32(-np.log(10)) * density)
    noise = np.random.default_rng((scene.seed, box.row)).standard_normal(light.shape, np.float32)
    return np.clip(np.rint(light + np.float32(NOISE) * noise), 0, 255).astype(np.uint8)


def _stain(
    nucleus: NDArray[np.float64],
    box: Box,
    stains: tuple[NDArray[np.float32], NDArray[np.float32]],
    grain: NDArray[np.float32],
) -> None:
    """Lay one nucleus over the amounts of haematoxylin and eosin of a band, in place."""
    window, inside = _ellipse(nucleus, box)
    across, dark, phase = nucleus[3], nucleus[7], nucleus[6]
    cover = np.clip(0.5 + inside * across / 1.5, 0, 1)  # the rim is one and a half pixels soft
    rim = np.exp(-(((inside - 0.12) / 0.1) ** 2))
    shift = int(phase * TEXTURE)  # chromatin is the grain, taken from another place for each nucleus
    rows = (np.arange(window.row, window.row_end) + shift) % TEXTURE
    cols = (np.arange(window.col, window.col_end) + 3 * shift) % TEXTURE
    amount = (0.50 + 0.35 * dark) * (1 + 0.16 * grain[np.ix_(rows, cols)] + 0.18 * rim)
    haem, eosin = (stain[window.slices(box)] for stain in stains)
    haem += (cover * (amount - haem)).astype(np.float32)
    eosin += (cover * (0.14 - eosin)).astype(np.float32)


def _write(path: Path, scene: _Scene) -> None:
    """Draw level 0 into the file band by band, keep the reduced bands, and write the coarser levels from those."""
    import tifffile

    edge = scene.edge
    description = (
        f"Aperio Image Library v12.0.0\n{edge}x{edge} ({TILE}x{TILE}) JPEG/YCC Q={JPEG_QUALITY}"
        f"|AppMag = {round(10 / MPP)}|MPP = {MPP}"
    )
    pages: dict[str, Any] = {"dtype": np.uint8, "metadata": None, "software": False}
    tiled = pages | {
        "tile": (TILE, TILE),
        "compression": "jpeg",
        "compressionargs": {"level": JPEG_QUALITY},
        "photometric": "rgb",  # what goes in; JPEG stores it as YCbCr
        "subsampling": (1, 1),
        "description": description,
    }
    reduced: list[NDArray[np.uint8]] = []
    with tifffile.TiffWriter(path) as file:
        file.write(_bands(scene, reduced), shape=(edge, edge, 3), **tiled)
        level = np.concatenate(reduced)
        thumbnail = description.split("|", maxsplit=1)[0]  # the second page of an SVS
        small = box_mean(level, 4) if level.shape[0] % 4 == 0 else level
        file.write(small, photometric="rgb", description=thumbnail, **pages)
        for down in LEVELS[1:]:
            if edge // down < TILE:
                break
            file.write(level, **tiled)
            level = box_mean(level, 4)


def _bands(scene: _Scene, reduced: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield level 0's tiles row by row; append each band, reduced to level 1, to `reduced`."""
    for row in range(0, scene.edge, TILE):
        band = _draw(scene, Box(row, 0, TILE, scene.edge))
        reduced.append(box_mean(band, LEVELS[1]))
        for col in range(0, scene.edge, TILE):
            yield np.ascontiguousarray(band[:, col : col + TILE])
