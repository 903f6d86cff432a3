"""What the Python API returns: the nuclei of one slide or image, with their outlines, classes and measurements."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.engine.contracts import SlideHeader, SlideReader
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.objects import Objects, canonical_order, centroids, concatenate, take

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from PIL.Image import Image

PLOT_EDGE = 1024  # pixels of the longer edge of a picture: fills a notebook's cell
RGB_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Nuclei:
    """The nuclei of one slide or image.

    Coordinates are (row, column) in pixels of the full resolution (level 0), counted from the corner of what QuPath
    shows of the slide, as in the GeoJSON file.

    Attributes
    ----------
    objects : Objects
        The columns, with coordinates in pixels at the model's scale.
    header : SlideHeader
        The slide's name, downsample, origin and classes.
    mpp : float
        Micrometres per level-0 pixel.

    Examples
    --------
    >>> nuclei = segment("slide.svs", model=load_model("dist-kumar16"))  # doctest: +SKIP
    >>> large = nuclei[nuclei.measurements["Area µm^2"] > 50]  # doctest: +SKIP
    >>> large.to_geojson("large.geojson")  # doctest: +SKIP
    """

    objects: Objects
    header: SlideHeader
    mpp: float

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int | slice | ArrayLike) -> Nuclei:
        """Return some of the nuclei: `index` is a number, a slice, integers, or a boolean for each nucleus.

        Raises
        ------
        IndexError
            If a number is out of range, or there is not one boolean for each nucleus.
        """
        chosen = np.atleast_1d(np.arange(len(self))[_index(index)])
        return replace(self, objects=take(self.objects, chosen.astype(np.int64)))

    @property
    def measurements(self) -> dict[str, NDArray[np.float64]]:
        """The measurements by name, a value for each nucleus; names and units are QuPath's."""
        return dict(self.objects.measurements)

    @property
    def classes(self) -> NDArray[np.int32]:
        """(N,) int32, each nucleus' index into `class_names`."""
        return self.objects.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(kind.name for kind in self.header.classes)

    @property
    def centroids(self) -> NDArray[np.float64]:
        """(N, 2) float64, the centre of gravity of each nucleus as (row, column) in level-0 pixels."""
        return centroids(self.objects) * self.header.downsample - self.header.origin

    def outline(self, number: int) -> list[NDArray[np.float64]]:
        """Return the rings of one nucleus.

        Parameters
        ----------
        number : int
            Which nucleus, from 0.

        Returns
        -------
        list of (V, 2) float64
            (row, column) in level-0 pixels, the first corner not repeated; shells, each followed by its holes.
        """
        number = range(len(self))[number]
        corners = self._corners()
        first, last = self.objects.rings[number], self.objects.rings[number + 1]
        bounds = self.objects.offsets[first : last + 1]
        return [corners[start:end] for start, end in itertools.pairwise(bounds)]

    @property
    def are_cells(self) -> bool:
        """Whether nuclei were grown to cells (``RunConfig(cell_expansion=5)``)."""
        return self.objects.are_cells

    @property
    def cells(self) -> Nuclei:
        """The cells in place of their nuclei: the same objects, outlined by the boundaries of the cells.

        Raises
        ------
        ValueError
            If nuclei were not grown to cells.
        """
        if not self.are_cells:
            raise ValueError("there are no cells: load the model with RunConfig(cell_expansion=5) to make them")
        return replace(self, objects=self.objects.boundaries)

    def labels(
        self, shape: tuple[int, int], corner: tuple[float, float] = (0.0, 0.0), downsample: float = 1.0
    ) -> NDArray[np.int32]:
        """Draw the nuclei as a label image: 0 is background, nucleus i has the label i + 1.

        Parameters
        ----------
        shape : (int, int)
            Height and width of the image. For a segmented image ``rgb`` it is ``rgb.shape[:2]``.
        corner : (float, float)
            Row and column of the image's upper left corner in level-0 pixels.
        downsample : float
            Level-0 pixels along one pixel of the image.

        Returns
        -------
        (H, W) int32
            A pixel has the label of the nucleus that its centre lies in.
        """
        from nuclix.ext.raster import fill_polygons

        objects = self.objects
        shells = np.flatnonzero(objects.shells)
        polygons = np.append(shells, len(objects.shells)) if len(shells) else np.zeros(1, np.int64)
        values = np.searchsorted(objects.rings, shells, side="right")
        corners = (self._corners() - corner) / downsample
        return fill_polygons((shape[0], shape[1]), corners, objects.offsets, polygons, values)

    def to_geojson(self, path: str | Path) -> Path:
        """Write the nuclei as the GeoJSON file that ``nuclix run`` writes; QuPath opens it.

        Parameters
        ----------
        path : str or Path
            The file; replaced if it exists.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OutputError
            If it can't be written.
        """
        return self.write(path, "geojson")

    def write(self, path: str | Path, writer: str) -> Path:
        """Write the nuclei with an installed writer (see ``nuclix plugins``).

        Parameters
        ----------
        path : str or Path
            The file; replaced if it exists.
        writer : str
            Name of the writer.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OutputError
            If it can't be written.
        PluginError
            If there is no such writer.
        """
        from nuclix.engine import registry

        kind: Any = registry.load(registry.WRITERS, writer)
        path = Path(path)
        session = kind().open(path, self.header)
        try:
            session.write(take(self.objects, canonical_order(self.objects.first).astype(np.int64)))
            session.commit()
        except BaseException:
            session.abort()
            raise
        return path

    def to_geopandas(self) -> GeoDataFrame:
        """Return a GeoDataFrame: a row for each nucleus, with its outline, class and measurements.

        Returns
        -------
        GeoDataFrame
            Indexed by the identifiers of the GeoJSON file. ``geometry`` is in level-0 pixels, (x, y), without a
            coordinate reference system; ``class`` is the class' name; the other columns are the measurements. Where
            nuclei were grown to cells, ``geometry`` is the cell's boundary, and a column ``nucleus_geometry`` follows.

        Raises
        ------
        ImportError
            If geopandas is not installed.
        """
        try:
            import geopandas
        except ImportError as error:
            raise ImportError("to_geopandas needs geopandas: pip install geopandas") from error
        names = np.array(self.class_names or ("",), dtype=object)
        columns: dict[str, Any] = {"class": names[self.objects.classes], **self.measurements}
        if self.are_cells:
            columns["nucleus_geometry"] = geopandas.GeoSeries(self._geometries()).array
        shown = self.cells if self.are_cells else self
        return geopandas.GeoDataFrame(columns, geometry=shown._geometries(), index=list(self._identifiers()))

    def plot(
        self, slide: str | Path | SlideReader | NDArray[np.uint8], region: Box | Sequence[int] | None = None,
        edge: int = PLOT_EDGE,
    ) -> Image:  # fmt: skip
        """Draw the outlines on the slide; a notebook shows the picture that is returned.

        Parameters
        ----------
        slide : str, Path, SlideReader or (H, W, 3) uint8 array
            The slide or image that the nuclei were found on.
        region : Box or (x, y, width, height), optional
            What to show, in level-0 pixels; all of the slide by default.
        edge : int
            Pixels of the picture's longer edge, at most.

        Returns
        -------
        PIL.Image.Image
            RGB, with a line along every outline in its class' colour.
        """
        from nuclix.engine.report.overlay import Window, draw_outlines
        from nuclix.engine.slide.view import slide_bounds

        with opened(slide, self.mpp) as reader:
            bounds = slide_bounds(reader.info)
            box = bounds if region is None else as_box(region).shift(bounds.row, bounds.col)
            return draw_outlines(reader, self._colored_rings(), Window(box, max(1.0, -(-max(box.shape) // edge))))

    def _repr_html_(self) -> str:
        """Return a summary for notebooks."""
        counts = np.bincount(self.classes, minlength=max(1, len(self.class_names)))
        named = zip(self.class_names or ("nuclei",), counts.tolist(), strict=False)
        kinds = ", ".join(f"{html.escape(name)}: {count:,}" for name, count in named)
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td>"
            + "".join(f"<td>{value:.4g}</td>" for value in _quartiles(values))
            + "</tr>"
            for name, values in self.measurements.items()
        )
        head = "<tr><th>measurement</th><th>25 %</th><th>median</th><th>75 %</th></tr>"
        title = f"<b>{len(self):,} nuclei</b> of {html.escape(self.header.name)} ({kinds})"
        return f"<p>{title}</p><table>{head}{rows}</table>"

    def _corners(self) -> NDArray[np.float64]:
        return self.objects.corners * self.header.downsample - np.array(self.header.origin)

    def _closed_rings(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the rings' (x, y), the first corner repeated at the end, and their offsets."""
        starts, ends = self.objects.offsets[:-1], self.objects.offsets[1:]
        index = np.insert(np.arange(self.objects.offsets[-1]), ends, starts)
        offsets = self.objects.offsets + np.arange(len(self.objects.offsets))
        return np.ascontiguousarray(self._corners()[index][:, ::-1]), offsets

    def _colored_rings(self) -> Iterator[tuple[NDArray[np.float64], tuple[int, int, int]]]:
        from nuclix.engine.report.overlay import UNCLASSIFIED

        corners, offsets = self._closed_rings()
        owners = np.repeat(np.arange(len(self)), np.diff(self.objects.rings))
        colors = [kind.color for kind in self.header.classes] or [UNCLASSIFIED]
        for ring, owner in enumerate(owners):
            yield corners[offsets[ring] : offsets[ring + 1]], colors[self.classes[owner]]

    def _geometries(self) -> NDArray[Any]:
        """Return a shapely Polygon, or a MultiPolygon where there are several shells, for each nucleus."""
        import shapely

        corners, offsets = self._closed_rings()
        shells = np.flatnonzero(self.objects.shells)
        polygons = np.append(shells, len(self.objects.shells))
        parts = shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners, (offsets, polygons))
        owners = np.searchsorted(self.objects.rings, shells, side="right") - 1
        out = np.empty(len(self), object)
        counts = np.bincount(owners, minlength=len(self))
        firsts = np.cumsum(counts) - counts
        out[:] = parts[firsts]
        for number in np.flatnonzero(counts > 1):
            out[number] = shapely.multipolygons(parts[firsts[number] : firsts[number] + counts[number]])
        return out

    def _identifiers(self) -> Iterator[str]:
        import uuid

        from nuclix.ext.geojson_text import identifiers

        space = uuid.uuid5(uuid.NAMESPACE_URL, self.header.namespace)
        yield from identifiers(self.objects.first, space.bytes)


def concat(parts: Sequence[Nuclei]) -> Nuclei:
    """Join nuclei of one slide, such as those of several regions; none is left out or merged.

    Parameters
    ----------
    parts : sequence of Nuclei
        At least one; all of one slide and model.

    Returns
    -------
    Nuclei
        Part after part.

    Raises
    ------
    ValueError
        If `parts` is empty, or of different slides, models or measurements.
    """
    if not parts:
        raise ValueError("nothing to join: `parts` is empty")
    if any(part.header != parts[0].header for part in parts):
        raise ValueError("nuclei of different slides or models can't be joined: their coordinates and ids would mix")
    return replace(parts[0], objects=concatenate([part.objects for part in parts]))


def as_box(region: Box | Sequence[int]) -> Box:
    """Return a region given as a Box or as (x, y, width, height).

    Raises
    ------
    ValueError
        If it has not four numbers, or width or height is negative.
    """
    if isinstance(region, Box):
        return region
    if len(region) != len(("x", "y", "width", "height")):
        raise ValueError(f"a region is a Box or (x, y, width, height), not {region!r}")
    x, y, width, height = (int(value) for value in region)
    return Box(y, x, height, width)


def opened(slide: str | Path | SlideReader | NDArray[np.uint8], mpp: float) -> _Opened:
    """Return a context manager that gives the reader of a slide, and closes it if it was opened here."""
    return _Opened(slide, mpp)


class _Opened:
    """Opens a path, wraps an array, passes a reader through."""

    def __init__(self, slide: str | Path | SlideReader | NDArray[np.uint8], mpp: float) -> None:
        from nuclix.engine.slide.array import ArrayReader
        from nuclix.engine.slide.open import open_slide

        self._mine = isinstance(slide, str | Path)
        if isinstance(slide, np.ndarray):
            self._reader: SlideReader = ArrayReader(slide, mpp)
        else:
            self._reader = open_slide(slide) if isinstance(slide, str | Path) else slide

    def __enter__(self) -> SlideReader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._reader.close()


def _index(index: Any) -> Any:
    return index if isinstance(index, slice) else np.asarray(index, np.int64 if np.size(index) == 0 else None)


def _quartiles(values: NDArray[np.float64]) -> Sequence[float]:
    return np.quantile(values, (0.25, 0.5, 0.75)).tolist() if len(values) else (float("nan"),) * 3
