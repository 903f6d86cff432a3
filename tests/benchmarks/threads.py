"""Do two threads on two blocks take half the time? Every kernel on its own, no other load on the machine.

python tests/benchmarks/threads.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from maps import predicted, touching
from nuclix.ext.boxes import label_boxes
from nuclix.ext.components import connected_components
from nuclix.ext.distance import chessboard_distance, instance_distance
from nuclix.ext.dynamics import dynamics_watershed
from nuclix.ext.label_sums import label_sums
from nuclix.ext.maxima import h_maxima
from nuclix.ext.outlines import label_outlines
from nuclix.ext.overlap import overlap_table
from nuclix.ext.shapes import shape_measurements
from nuclix.ext.watershed import watershed

SIZE, FLOOR, H, CALLS, ROUNDS = 1000, 0.5, 0.5, 24, 7


def work() -> dict[str, Callable[[], Any]]:
    """Return every kernel on one block."""
    image, _ = predicted(SIZE)
    labels = touching(SIZE)
    mask = image > np.float32(FLOOR)
    markers = h_maxima(image, H, FLOOR)
    outlines = label_outlines(labels)
    return {
        "chessboard_distance": lambda: chessboard_distance(mask),
        "instance_distance": lambda: instance_distance(labels),
        "connected_components": lambda: connected_components(mask),
        "h_maxima": lambda: h_maxima(image, H, FLOOR),
        "watershed": lambda: watershed(-image, markers, mask),
        "dynamics_watershed": lambda: dynamics_watershed(image, H, FLOOR),
        "label_outlines": lambda: label_outlines(labels),
        "label_sums": lambda: label_sums(labels, image),
        "label_boxes": lambda: label_boxes(labels, int(labels.max())),
        "shape_measurements": lambda: shape_measurements(outlines),
        "overlap_table": lambda: overlap_table(labels, markers),
    }


def best(run: Callable[[], Any]) -> float:
    """Return the shortest of several times, in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print each kernel's gain from a second thread."""
    with ThreadPoolExecutor(2) as pool:
        for name, kernel in work().items():
            kernel()

            def calls(count: int, kernel: Callable[[], Any] = kernel) -> None:
                for _ in range(count):
                    kernel()

            def both(calls: Callable[[int], None] = calls) -> None:
                for half in [pool.submit(calls, CALLS // 2), pool.submit(calls, CALLS // 2)]:
                    half.result()

            gain = best(lambda calls=calls: calls(CALLS)) / best(both)  # type: ignore[misc]
            sys.stdout.write(f"{name:24} {gain:.2f}x\n")


if __name__ == "__main__":
    main()
