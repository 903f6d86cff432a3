"""A thousand damaged slides in one run: each done or failed with a message, and the run goes on."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from end_to_end import RecordingObserver, config_for, make_model
from mutations import write_mutations
from nuclix.engine.batch.run_state import StopFlag
from nuclix.engine.batch.runner import run_batch

pytestmark = pytest.mark.slow

COUNT = 1000
SEED = 20


def test_a_thousand_damaged_slides(tmp_path: Path, say: Callable[[str], None]) -> None:
    kinds = write_mutations(tmp_path, COUNT, SEED)
    config = config_for(tmp_path / "out", make_model(tmp_path / "red.pt"), tmp_path / "damaged")
    notes, begin = RecordingObserver(), time.monotonic()
    summary = run_batch(replace(config, mpp=0.25, stall_timeout=60.0), notes, StopFlag())
    assert not summary.stopped
    assert len(summary.done) + len(summary.failed) == COUNT and not set(summary.done) & set(summary.failed)
    say(f"{len(summary.done)} done, {len(summary.failed)} failed in {time.monotonic() - begin:.0f} s")
    outcome: Counter[tuple[str, str]] = Counter()
    for name, kind in kinds.items():
        failed = any(key in summary.failed for key in (name, Path(name).stem))
        outcome[kind, "failed" if failed else "done"] += 1
    for kind in sorted(set(kinds.values())):
        say(f"  {kind}: {outcome[kind, 'done']} done, {outcome[kind, 'failed']} failed")
    lost = [notice for notice in notes.notices if "lost" in notice]
    unexpected = {name: text for name, text in summary.failed.items() if "unexpected" in text}
    hung = {name: text for name, text in summary.failed.items() if "no progress" in text}
    say(f"workers lost {len(lost)} times, {len(hung)} slides hung, {len(unexpected)} unexpected exceptions")
    for text in [*lost, *hung.values(), *unexpected.values()]:
        say(f"  {text}")
    reasons = Counter(re.sub(r"[0-9]+", "#", text.partition(": ")[2])[:70] for text in summary.failed.values())
    for reason, count in reasons.most_common(25):
        say(f"  {count:4d} {reason}")
    assert all(text.strip() for text in summary.failed.values())
