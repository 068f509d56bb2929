"""Processes of their own, forked from a server that has imported everything: they begin at once, without threads."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "credit.cli.main",
        "credit.ledger.verify",
        "credit.payments.export",
        "credit.payments.results",
        "credit.pipeline.close",
        "credit.pipeline.purge",
        "tests.pipeline.test_compute",
        "transformers.models.llama.modeling_llama",
    ]
)
