"""A really trained model: what plainly belongs to one source must be credited to it.

The texts are those of `tests.known_sources`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from credit.records import Group
from credit.valuation import AttributionIndex, IndexSettings, LanguageModel, build_index, load_model
from credit.valuation.influence import Valuation
from tests.known_sources import COMPLETIONS, known_outputs, known_records
from tests.smollm2 import NAME, smollm2


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def trained(request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    """The model in its default dtype on a CPU, and in that of a GPU: bf16 takes a CPU three times as long."""
    # Workers that run at once share the cores: threads that wait for one which has no core cost five times as much.
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    yield load_model(smollm2(), dtype=request.param, device="cpu")
    torch.set_num_threads(before)


def _table(valuation: Valuation, groups: tuple[Group, ...]) -> str:
    """Effects in units of the output's noise, so that one can see by how much each group leads."""
    lines = [f"{'effect / noise':24}" + "".join(f"{group.provider:>9}" for group in groups)]
    for row, (source, _, completion) in enumerate(COMPLETIONS):
        effects = (valuation.effect()[row] / valuation.noise[row]).tolist()
        lead = groups[effects.index(max(effects))].provider
        cells = "".join(f"{effect:9.1f}" for effect in effects)
        lines.append(f"{source:7}{completion.strip()[:16]!r:17}{cells}" + (f"  {lead} leads" if lead != source else ""))
    return "\n".join(lines)


def test_the_source_that_a_completion_plainly_belongs_to_leads(trained, tmp_path):
    # Each dtype with another seed: two draws of the projections.
    settings = IndexSettings(max_length=96, seed=0 if trained.module.dtype == torch.float32 else 1)
    build_index(trained, known_records(), tmp_path / "index", settings, name=NAME)
    index = AttributionIndex.open(tmp_path / "index")
    valuation = index.value(trained, known_outputs())
    leads = [index.groups[column].provider for column in valuation.effect().argmax(1).tolist()]
    assert leads == [source for source, _, _ in COMPLETIONS], "\n" + _table(valuation, index.groups)
