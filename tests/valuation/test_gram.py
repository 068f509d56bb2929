from __future__ import annotations

from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st

from credit.valuation import gradients
from credit.valuation.curvature import make_statistic


@given(width=st.integers(1, 40), heights=st.lists(st.integers(1, 9), min_size=1, max_size=4), panel=st.integers(1, 50))
def test_the_sum_of_products_is_that_of_whole_products_whatever_the_panels(width, heights, panel):
    generator = torch.Generator().manual_seed(width)
    total, expected = torch.zeros(2, width, width, dtype=torch.float64)
    with patch.dict(gradients.PANEL_COLUMNS, cpu=panel):
        for height in heights:
            rows = torch.randn(height, width, generator=generator, dtype=torch.float64)
            gradients.add_grams([total], rows[None])
            expected += rows.mT @ rows
            torch.testing.assert_close(gradients.mirror(total), expected)  # more is added after it


def test_asking_for_sums_between_blocks_changes_no_bit_of_them():
    rows = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    asked, left = make_statistic("fisher"), make_statistic("fisher")
    for statistic in (asked, left):
        for block in rows.split(100):
            statistic.add({"layer": block})
            statistic.flush()
            if statistic is asked:
                statistic.sums()
    assert torch.equal(asked.sums()["layer"], left.sums()["layer"])
