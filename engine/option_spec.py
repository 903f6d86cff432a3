"""The declaration of an option of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """Declaration of an option: what `RunConfig` states in a field's metadata, and what follows from the field.

    Attributes
    ----------
    group : str
        The heading under which it is listed.
    help : str
        What it does, with its unit; one line.
    metavar : str
        Stands for the value in usage lines; empty for flags.
    choices : tuple of str
        The only values, or empty for any.
    minimum, above, maximum : float or None
        Bounds of a number: inclusive lower, exclusive lower and inclusive upper bound.
    affects_results : bool
        Whether results made with different values differ, so that it is part of their key.
    aliases : tuple of str
        Former names, which still work on the command line and in files.
    repeated : bool
        Whether an option of several strings is given once for each of them.
    name : str
        The field, and the key in a file.
    type : type
        bool, int, float, str, or tuple for several strings.
    optional : bool
        Whether it may be unset.
    default : object
        The value where none is given.
    """

    group: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    affects_results: bool = False
    aliases: tuple[str, ...] = ()
    repeated: bool = False
    name: str = ""
    type: type = str
    optional: bool = False
    default: Any = None

    def check(self, value: Any) -> None:
        """Raise `ValueError` if a value of the right type is not allowed."""
        if value is None:
            return
        for item in value if isinstance(value, tuple) else (value,):
            if self.choices and item not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}, not {item!r}")
            if isinstance(item, str) and "\0" in item:
                raise ValueError("must not contain a NUL character")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"must be a finite number, not {value}")
        least = -math.inf if self.minimum is None else self.minimum
        below = -math.inf if self.above is None else self.above
        most = math.inf if self.maximum is None else self.maximum
        if isinstance(value, int | float) and not (least <= value <= most and value > below):
            raise ValueError(f"must be {self._range()}, not {value}")

    def _range(self) -> str:
        """Return the values that are allowed, in words."""
        low = f"{self.minimum:.10g} or more" if self.minimum is not None else f"more than {self.above:.10g}"
        if self.maximum is None:
            return low
        if self.minimum is not None:
            return f"from {self.minimum:.10g} to {self.maximum:.10g}"
        return f"{low} and at most {self.maximum:.10g}"
