"""Time the compiled kernels against the libraries that do the same work, as far as they are installed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

H = 0.5  # height of a maximum above its saddle
FLOOR = np.float32(0.5)  # of the distance map
# As in a map of dist-kumar16 on dense tissue: nuclei per pixel, and their half-axes in pixels.
_NUCLEI_PER_PIXEL = 470e-6
_HALF_AXES = (10.0, 24.0)
_NOISE = 0.3
_CONNECTIVITY = 8

Run = Callable[[], Any]
Peer = Callable[["Fields"], Run]


@dataclass(frozen=True, slots=True)
class Fields:
    """What kernels work on: a distance map, and the labels that it comes from."""

    distance: NDArray[np.float32]
    labels: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Median seconds of a kernel, and those of its peers by name."""

    kernel: str
    seconds: float
    peers: Mapping[str, float]


def time_kernels(size: int, repeat: int) -> Iterator[KernelTime]:
    """Yield the time of each kernel and its peers on a field of `size` x `size` pixels; calls alternate.

    Peers that are not installed are left out: scikit-image, SciPy, OpenCV and shapely are looked for.
    """
    fields = make_fields(size)
    for kernel, ours, peers in _table():
        runs = {"nuclix": ours(fields)}
        for name, peer in peers.items():
            try:
                runs[name] = peer(fields)
            except ImportError:
                continue
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for _ in range(repeat):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) for name, values in times.items()}
        yield KernelTime(kernel, medians.pop("nuclix"), medians)


def make_fields(size: int, seed: int = 0) -> Fields:
    """Return the distance map of random ellipses with noise, and their labels."""
    rng = np.random.default_rng(seed)
    distance, labels = np.zeros((size, size), np.float32), np.zeros((size, size), np.int32)
    for label in range(1, max(1, round(_NUCLEI_PER_PIXEL * size * size)) + 1):
        row, col = rng.uniform(0, size, 2)
        long, short = rng.uniform(*_HALF_AXES, 2)
        draw_ellipse(distance, labels, label, (row, col), (long, short), rng.uniform(0, np.pi))
    noise = rng.standard_normal((size, size), np.float32) * np.float32(_NOISE)
    distance = np.where(distance > 0, distance + noise, 0).astype(np.float32)
    return Fields(distance, np.where(distance > FLOOR, labels, 0).astype(np.int32))


def draw_ellipse(
    distance: NDArray[np.float32],
    labels: NDArray[np.int32],
    label: int,
    centre: tuple[float, float],
    half_axes: tuple[float, float],
    angle: float,
) -> None:
    """Draw an ellipse into a distance map and its labels, where it is higher than what is there.

    Parameters
    ----------
    distance : (H, W) float32 array
        Takes about the distance to the ellipse's outline, in px.
    labels : (H, W) int32 array
        Takes `label`.
    label : int
        Of the ellipse.
    centre : (float, float)
        Row and column.
    half_axes : (float, float)
        In px; the first lies along `angle`.
    angle : float
        From the columns' direction towards the rows', in radians.
    """
    (row, col), (along_axis, across_axis) = centre, half_axes
    reach = int(max(half_axes)) + 1
    box = (
        slice(max(0, int(row) - reach), min(distance.shape[0], int(row) + reach + 1)),
        slice(max(0, int(col) - reach), min(distance.shape[1], int(col) + reach + 1)),
    )
    y, x = np.ogrid[box]
    along = (x - col) * np.cos(angle) + (y - row) * np.sin(angle)
    across = (y - row) * np.cos(angle) - (x - col) * np.sin(angle)
    height = (1 - np.hypot(along / along_axis, across / across_axis)) * min(half_axes)
    higher = height > distance[box]
    distance[box][higher] = height[higher]
    labels[box][higher] = label


def _table() -> list[tuple[str, Peer, dict[str, Peer]]]:
    return [
        ("connected components", _components, {"OpenCV": _cv_components, "SciPy": _scipy_components}),
        ("chessboard distance", _chessboard, {"OpenCV": _cv_chessboard, "SciPy": _scipy_chessboard}),
        ("h-maxima and watershed", _split, {"scikit-image": _skimage_split}),
        ("outlines of labels", _outlines, {"OpenCV in boxes": _cv_outlines, "scikit-image": _skimage_outlines}),
        ("shape measurements", _shapes, {"scikit-image": _skimage_shapes}),
        ("overlap table", _overlap, {"SciPy": _scipy_overlap}),
    ]


def _mask(fields: Fields) -> NDArray[np.bool_]:
    return fields.distance > FLOOR


def _components(fields: Fields) -> Run:
    from nuclix.ext.components import connected_components

    mask = _mask(fields)
    return lambda: connected_components(mask, _CONNECTIVITY)


def _cv_components(fields: Fields) -> Run:
    cv2, pixels = _opencv(), _mask(fields).view(np.uint8)
    return lambda: cv2.connectedComponents(pixels, connectivity=_CONNECTIVITY)


def _scipy_components(fields: Fields) -> Run:
    from scipy import ndimage

    mask = _mask(fields)
    return lambda: ndimage.label(mask, np.ones((3, 3)))


def _chessboard(fields: Fields) -> Run:
    from nuclix.ext.distance import chessboard_distance

    mask = _mask(fields)
    return lambda: chessboard_distance(mask)


def _cv_chessboard(fields: Fields) -> Run:
    cv2, pixels = _opencv(), _mask(fields).view(np.uint8)
    return lambda: cv2.distanceTransform(pixels, cv2.DIST_C, 3)


def _scipy_chessboard(fields: Fields) -> Run:
    from scipy import ndimage

    mask = _mask(fields)
    return lambda: ndimage.distance_transform_cdt(mask, "chessboard")


def _split(fields: Fields) -> Run:
    from nuclix.ext.dynamics import dynamics_watershed

    return lambda: dynamics_watershed(fields.distance, H, float(FLOOR))


def _skimage_split(fields: Fields) -> Run:
    from scipy import ndimage
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    cross = ndimage.generate_binary_structure(2, 1)

    def run() -> Any:
        lifted = np.maximum(fields.distance, FLOOR)
        markers = ndimage.label(h_maxima(lifted, H, footprint=cross), cross)[0]
        return watershed(-lifted, markers, mask=fields.distance > FLOOR, connectivity=cross)

    return run


def _outlines(fields: Fields) -> Run:
    from nuclix.ext.outlines import label_outlines

    return lambda: label_outlines(fields.labels)


def _cv_outlines(fields: Fields) -> Run:
    from scipy import ndimage

    cv2, labels = _opencv(), fields.labels

    def run() -> Any:
        for label, box in enumerate(ndimage.find_objects(labels), 1):
            if box is not None:
                mask = (labels[box] == label).astype(np.uint8)
                cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)

    return run


def _skimage_outlines(fields: Fields) -> Run:
    from skimage.measure import find_contours, regionprops

    return lambda: [find_contours(np.pad(region.image, 1), 0.5) for region in regionprops(fields.labels)]


def _shapes(fields: Fields) -> Run:
    from nuclix.ext.outlines import label_outlines
    from nuclix.ext.shapes import shape_measurements

    outlines = label_outlines(fields.labels)
    return lambda: shape_measurements(outlines)


def _skimage_shapes(fields: Fields) -> Run:
    from skimage.measure import regionprops_table

    names = ("area", "perimeter", "area_convex", "feret_diameter_max", "axis_minor_length")
    return lambda: regionprops_table(fields.labels, properties=names)


def _overlap(fields: Fields) -> Run:
    from nuclix.ext.overlap import overlap_table

    moved = np.roll(fields.labels, (2, 3), (0, 1))
    return lambda: overlap_table(fields.labels, moved)


def _scipy_overlap(fields: Fields) -> Run:
    from scipy.sparse import coo_matrix

    labels, moved = fields.labels.ravel(), np.roll(fields.labels, (2, 3), (0, 1)).ravel()
    return lambda: coo_matrix((np.ones(labels.size, np.int64), (labels, moved))).tocsr()


def _opencv() -> Any:
    import cv2

    cv2.setNumThreads(1)
    return cv2
