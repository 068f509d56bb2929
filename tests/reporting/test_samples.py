"""The committed samples are what the code renders today."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.reporting.reading import content

REPORTS = Path(__file__).parents[2] / "reports"


def test_samples_are_what_the_code_renders(tmp_path):
    runpy.run_path(str(REPORTS / "render_samples.py"))["main"](tmp_path / "samples")
    fresh, committed = content(tmp_path / "samples"), content(REPORTS / "samples")
    assert fresh.keys() == committed.keys()
    changed = [name for name in fresh if fresh[name] != committed[name]]
    assert not changed, "render them again: make samples"
