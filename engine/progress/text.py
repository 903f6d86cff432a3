"""Numbers and names as text for people."""

from __future__ import annotations

import math
import time

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_ELLIPSIS = "..."


def grouped(value: float) -> str:
    """Return a number without decimals, in groups of three.

    >>> grouped(1234567.8)
    '1,234,568'
    """
    return f"{value:,.0f}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number rounded to significant digits, without exponent.

    >>> significant(0.012345), significant(123456.0), significant(2.5), significant(0)
    ('0.0123', '123,000', '2.50', '0')
    """
    if not value or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def tick(value: float) -> str:
    """Return a round number as an axis has it.

    >>> tick(0.30000000000000004), tick(20000.0), tick(0)
    ('0.3', '20,000', '0')
    """
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """Return a time span in its two largest units.

    >>> duration(3.21), duration(75), duration(9000), duration(200000)
    ('3.2 s', '1 min 15 s', '2 h 30 min', '2 d 7 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def moment(seconds: float) -> str:
    """Return a time since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def one_line(text: str) -> str:
    r"""Return a text without line breaks, terminal commands or undecodable bytes: file names may hold them.

    >>> one_line("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def printable(text: str) -> str:
    r"""Return a text of several lines without terminal commands or undecodable bytes.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\nb'
    """
    return "\n".join(map(one_line, text.split("\n")))


def shortened(text: str, width: int) -> str:
    """Return a text of at most `width` characters, cut in its middle: names differ at both ends.

    >>> shortened("TCGA-18-5592-01Z-00-DX1", 15)
    'TCGA-1...00-DX1'
    """
    if len(text) <= width:
        return text
    kept = max(0, width - len(_ELLIPSIS))
    return text[: kept - kept // 2] + _ELLIPSIS + (text[-(kept // 2) :] if kept // 2 else "")
