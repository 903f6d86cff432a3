import numpy as np
from numpy.typing import NDArray

def distance(labels: NDArray[np.uint8], out: NDArray[np.uint8], size: int, instances: bool, most: int) -> None: ...
