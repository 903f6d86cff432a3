"""The post-processors of the field compared with the programs of the methods' authors, on the same simulated maps.

Needs an environment with nuclix and OpenCV, and `stardist` and `cellpose` for their rows; one thread:

OMP_NUM_THREADS=1 python tests/benchmarks/field_programs.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import regionprops
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

sys.path.insert(0, str(Path(__file__).parents[1]))

import field_maps
import field_oracles
from nuclix.ext.outlines import label_outlines
from nuclix.plugins.postprocessors.boundary import Boundary
from nuclix.plugins.postprocessors.cellpose import Cellpose
from nuclix.plugins.postprocessors.hovernet import HoVerNet
from nuclix.plugins.postprocessors.stardist import StarDist
from peers import opencv

Maps = NDArray[np.float32]
SIZE = 1000
ROUNDS = 5
SLOW = 10  # s: what takes longer runs once


def hovernet_steps(maps: Maps, size: int = 21) -> NDArray[np.int32]:
    """Label by the published steps with OpenCV, SciPy and scikit-image."""
    cv2 = opencv()
    mask = remove_small_objects(ndi.label(maps[0] >= 0.5)[0], 10) > 0

    def scaled(plane: NDArray[Any]) -> NDArray[np.float32]:
        return cv2.normalize(plane, None, 0, 1, cv2.NORM_MINMAX, cv2.CV_32F)

    falls = [1 - scaled(cv2.Sobel(scaled(maps[1 + k]), cv2.CV_64F, 1 - k, k, ksize=size)) for k in (0, 1)]
    energy = np.where(mask, np.maximum(*falls), 0)
    order = -cv2.GaussianBlur((1 - energy) * mask, (3, 3), 0)
    calm = ndi.binary_fill_holes(mask & (energy < 0.4)).astype(np.uint8)
    calm = cv2.morphologyEx(calm, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    return watershed(order, remove_small_objects(ndi.label(calm)[0], 10), mask=mask)


def hovernet_objects(maps: Maps) -> list[Any]:
    """Give every label its box, its outline and its centre, as its authors' program does."""
    cv2 = opencv()
    found = []
    for one in regionprops(hovernet_steps(maps)):
        outline = cv2.findContours(one.image.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0][0]
        found.append((one.bbox, outline, cv2.moments(one.image.astype(np.uint8))))
    return found


def stardist_program(maps: Maps) -> NDArray[np.int32]:
    """Run the authors' suppression, compiled C++, and draw what is left."""
    from stardist.geometry import polygons_to_label
    from stardist.nms import non_maximum_suppression

    rays = np.ascontiguousarray(np.moveaxis(maps[1:], 0, -1))
    points, scores, distances = non_maximum_suppression(rays, maps[0], prob_thresh=0.5, nms_thresh=0.4, b=0)
    return polygons_to_label(distances, points, maps[0].shape, prob=scores)


def cellpose_program(maps: Maps) -> NDArray[np.int32]:
    """Run the authors' dynamics with PyTorch on the CPU."""
    import torch
    from cellpose.dynamics import resize_and_compute_masks

    torch.set_num_threads(1)
    return resize_and_compute_masks(maps[1:].copy(), maps[0].copy(), device=torch.device("cpu"))


def outlined(post: Any) -> Callable[[Maps], Any]:
    return lambda maps: label_outlines(post.split(maps, post.foreground(maps)))


def labelled(post: Any) -> Callable[[Maps], Any]:
    return lambda maps: post.split(maps, post.foreground(maps))


CASES: dict[str, tuple[Callable[..., Maps], Callable[[Maps], Any], dict[str, Callable[[Maps], Any]]]] = {
    "boundary": (field_maps.boundary_maps, labelled(Boundary()), {"plain": field_oracles.boundary}),
    "hovernet, labels": (
        field_maps.hover_maps,
        labelled(HoVerNet()),
        {"plain": field_oracles.hovernet, "published steps": hovernet_steps},
    ),
    "hovernet, outlines": (field_maps.hover_maps, outlined(HoVerNet()), {"published steps": hovernet_objects}),
    "stardist": (field_maps.star_maps, labelled(StarDist()), {"program": stardist_program}),
    "cellpose": (field_maps.flow_maps, labelled(Cellpose()), {"program": cellpose_program}),
}
PACKAGES = {stardist_program: "stardist", cellpose_program: "cellpose"}


def min_ms(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the shortest CPU time of each, taken in turn."""
    times = dict.fromkeys(runs, np.inf)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            if times[name] < SLOW * 1e3 or times[name] == np.inf:
                start = time.thread_time()
                run()
                times[name] = min(times[name], 1e3 * (time.thread_time() - start))
    return times


def main() -> None:
    """Print a line for each post-processor."""
    labels = field_maps.ellipses((SIZE, SIZE), 1)
    for name, (make, ours, others) in CASES.items():
        maps = make(labels, 1)
        runs = {"nuclix": lambda ours=ours, maps=maps: ours(maps)}
        for who, other in others.items():
            if find_spec(PACKAGES.get(other, "numpy")):
                runs[who] = lambda other=other, maps=maps: other(maps)
        times = min_ms(runs)
        mine = times.pop("nuclix")
        rest = ", ".join(f"{who} {ms:.0f} ({ms / mine:.1f} times)" for who, ms in times.items())
        sys.stdout.write(f"{name:20} nuclix {mine:.0f} ms; {rest}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
