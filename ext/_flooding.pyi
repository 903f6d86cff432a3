import numpy as np
from numpy.typing import NDArray

def flood_clumps(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8] | None,
    out: NDArray[np.int32],
    floor: float,
    h: float,
    smallest: int,
    neighbours: int,
    maxima: bool,
) -> None: ...
def flood_markers(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8] | None,
    labels: NDArray[np.int32],
    neighbours: int,
    low_first: bool,
) -> None: ...
