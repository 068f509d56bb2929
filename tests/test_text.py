"""What is shown to people reads as they write."""

from __future__ import annotations

import pytest

from credit.text import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 outputs"), (1, "1 output"), (2, "2 outputs"), (11, "11 outputs")])
def test_a_count_agrees_with_its_noun(count, said):
    assert counted(count, "output") == said
