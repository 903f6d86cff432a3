import numpy as np
from numpy.typing import NDArray

def connected_components(mask: NDArray[np.uint8], out: NDArray[np.int32], corners: bool) -> int: ...
