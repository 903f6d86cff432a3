from typing import Any

from numpy.typing import NDArray

def distance(labels: NDArray[Any], out: NDArray[Any], size: int, instances: bool, most: int) -> None: ...
