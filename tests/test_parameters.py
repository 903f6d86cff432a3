"""Dataclasses from untrusted values: what fits is taken, what does not is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclix.engine.errors import ModelError, NuclixError, UsageError
from nuclix.engine.parameters import as_mapping, assignments, from_mapping


@dataclass(frozen=True, slots=True)
class Inner:
    x: float
    y: int = 2


@dataclass(frozen=True, slots=True)
class Outer:
    count: int = 1
    ratio: float = 0.5
    name: str = "n"
    on: bool = False
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[Inner, ...] = ()
    maybe: float | None = None
    table: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


finite = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**31) + 1, 2**31 - 1)  # what a parameter may be
outers = st.builds(
    Outer,
    count=st.integers(0, 2**31 - 1),
    ratio=finite,
    name=st.text(),
    on=st.booleans(),
    pair=st.tuples(WHOLE, finite),
    many=st.lists(st.builds(Inner, x=finite, y=WHOLE), max_size=3).map(tuple),
    maybe=st.none() | finite,
    table=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3),
)


@given(outers)
def test_a_dataclass_survives_json(instance: Outer) -> None:
    assert from_mapping(Outer, json.loads(json.dumps(as_mapping(instance))), "here") == instance


@given(st.dictionaries(st.sampled_from(["count", "ratio", "pair", "many", "table", "oops"]), st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6)))  # fmt: skip
def test_whatever_comes_in_only_our_error_comes_out(values: dict[str, Any]) -> None:
    try:
        made = from_mapping(Outer, values, "here", ModelError)
    except ModelError as error:
        assert str(error).startswith("here")
    else:
        assert isinstance(made.count, int) and isinstance(made.ratio, float) and len(made.pair) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 1}, r"here: unknown key 'size'; known are count, ratio"),
        ({"count": 1.0}, r"here, key 'count': expected int, found 1\.0 \(float\)"),
        ({"count": True}, r"expected int, found True"),
        ({"on": 1}, r"expected bool, found 1"),
        ({"maybe": "x"}, r"key 'maybe': expected float"),
        ({"pair": [1]}, r"key 'pair': expected 2 values, found 1"),
        ({"pair": {"a": 1}}, r"key 'pair': expected a list"),
        ({"many": [{"y": 1}]}, r"key 'many': missing key 'x'"),
        ({"table": []}, r"key 'table': expected a table"),
        ({"count": -1}, r"here: count must not be negative"),
        ([], r"here: expected a table"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(values: Any, message: str) -> None:
    with pytest.raises(NuclixError, match=message):
        from_mapping(Outer, values, "here")


def test_an_integer_is_a_float_too() -> None:
    made = from_mapping(Outer, {"ratio": 3, "maybe": 4}, "here")
    assert isinstance(made.ratio, float) and isinstance(made.maybe, float)


def test_words_of_a_command_line_get_the_fields_types() -> None:
    words = ["count=3", "ratio = 1e-3", "name=a=b", "on=Yes"]
    assert assignments(words, Outer, "here") == {"count": 3, "ratio": 1e-3, "name": "a=b", "on": True}


@pytest.mark.parametrize("word", ["count", "size=3", "count=x", "count=1.5", "ratio=", "on=maybe", "=3", "pair=1"])
def test_bad_words_are_wrong_usage(word: str) -> None:
    with pytest.raises(UsageError, match="here"):
        assignments([word], Outer, "here")
