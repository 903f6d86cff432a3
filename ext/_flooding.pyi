import numpy as np
from numpy.typing import NDArray

def flood_clumps(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8] | None,
    markers: NDArray[np.int32] | None,
    out: NDArray[np.int32],
    floor: float,
    h: float,
    smallest: int,
    neighbours: int,
    maxima: bool,
) -> None: ...
