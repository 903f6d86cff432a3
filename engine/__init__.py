"""Segment nuclei in whole-slide images: slides in, objects out. Knows no plugin by name.

The Python API; see `nuclix.engine.api` and `nuclix.engine.nuclei`. Names are imported when they are first used, so that
importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuclix.engine.api import Model, load_model, segment, segment_image
    from nuclix.engine.nuclei import Nuclei, concat
    from nuclix.engine.run_config import RunConfig
    from nuclix.engine.slide.open import open_slide

__all__ = ("Model", "Nuclei", "RunConfig", "concat", "load_model", "open_slide", "segment", "segment_image")

_MODULES = {
    "Model": "nuclix.engine.api",
    "load_model": "nuclix.engine.api",
    "segment": "nuclix.engine.api",
    "segment_image": "nuclix.engine.api",
    "Nuclei": "nuclix.engine.nuclei",
    "concat": "nuclix.engine.nuclei",
    "RunConfig": "nuclix.engine.run_config",
    "open_slide": "nuclix.engine.slide.open",
}


def __getattr__(name: str) -> Any:
    """Import a name of the API."""
    if name == "__version__":
        from importlib.metadata import version

        return version("nuclix")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the API for tab completion."""
    return sorted({*globals(), *__all__, "__version__"})
