from typing import Any

from numpy.typing import NDArray

def outlines(labels: NDArray[Any]) -> tuple[Any, Any, Any, Any, Any, Any, Any]: ...
