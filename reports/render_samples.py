"""Render `reports/samples/` from a small ledger that is built here: invented providers, outputs and numbers.

    python reports/render_samples.py [FOLDER]

Everything but the model is the product's own code; a formula gives the scores. The clock stands still, so that the same
code gives the same bytes: tests/reporting/test_samples.py compares them with the committed samples.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from credit.accounting.credits import Policy, output_credits
from credit.fidelity.certificate import BM25, PLAIN, TOKEN_SHARE, Certificate, MethodScore
from credit.fidelity.metrics import Estimate
from credit.fidelity.overlap import BLOCK, DENSE, SHINGLE
from credit.fidelity.reviews import (
    LearnedText,
    MembershipFindings,
    MembershipReview,
    MembershipSettings,
    OverlapFindings,
    OverlapReview,
    OverlapSettings,
    SharedText,
)
from credit.ingest.pseudonyms import PseudonymKey
from credit.ledger.transaction_kinds import CreditsDetails, TransactionKind
from credit.ledger import admission, indexes, journal, outputs, pools, providers, score_books, signing_keys, terms
from credit.ledger.accounts import AccountKind
from credit.ledger.score_books import SCHEMA, write_book
from credit.ledger.indexes import register_certificate, register_review
from credit.ledger.database import Ledger, upgrade
from credit.ledger.journal import Entry, Posting
from credit.pipeline.close import close_period
from credit.records import CREDIT, Group, LoggedOutput, Provider, Terms
from credit.reporting.export import export_period
from credit.reporting.frames import attribution, payouts
from credit.reporting.pages import attribution_page
from credit.reporting.tables import to_csv, to_json

PERIOD = "2026-10"
NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
MODEL = "sample-model"
EXPORTED = "alder-press"
KEY = Ed25519PrivateKey.from_private_bytes(b"the signing key of these samples")

PROVIDERS = (
    Provider("alder-press", "Alder Press"),
    Provider("brook-journal", "Brook Journal of Soil Science"),
    Provider("cedar-wire", "Cedar Wire Service"),
    Provider("dune-recipes", "Dune Recipes"),
    Provider("own-docs", "Our product manuals", kind="house"),
)
INDEX = "5a" * 32
VALIDATED = datetime(2026, 10, 20, 16, 30, tzinfo=UTC)
PULL = {
    Group("alder-press", "novels"): 1.4,
    Group("alder-press", "essays"): 0.7,
    Group("brook-journal"): 1.1,
    Group("cedar-wire", "politics"): 0.9,
    Group("cedar-wire", "sport"): 0.5,
    Group("dune-recipes"): 0.02,
    Group("own-docs", "manuals"): 0.6,
}
"""Typical support of an output by each group, in nats."""


def _score(method: str, lds: float, pearson: float, policy: str = "") -> MethodScore:
    def about(value: float) -> Estimate:
        return Estimate(value, round(value - 0.04, 2), round(value + 0.04, 2))

    others = {name: value for name, value in TO_BEAT.items() if name != method}
    return MethodScore(
        method,
        lds=about(lds),
        lds_given_size=about(lds),
        pearson=about(pearson),
        spearman=about(pearson),
        top_one=about(pearson),
        share_error=about(0.1),
        policy=policy,
        attribution_error=0.07,
        leads={name: about(round(lds - value, 2)) for name, value in others.items()},
    )


TO_BEAT = {TOKEN_SHARE: 0.41, BM25: 0.6}
CERTIFICATE = Certificate(
    kind="retraining",
    index=INDEX,
    data="7d" * 32,
    recipe="c3" * 32,
    outputs=64,
    providers=("alder-press", "brook-journal", "cedar-wire", "dune-recipes", "own-docs"),
    retrainings=27,
    ceiling=Estimate(0.88, 0.85, 0.91),
    methods=(
        _score(PLAIN, 0.74, 0.79, Policy().of_one_output.fingerprint),
        _score(TOKEN_SHARE, TO_BEAT[TOKEN_SHARE], 0.3),
        _score(BM25, TO_BEAT[BM25], 0.57),
    ),
    calibration=None,
)
"""A certificate as `credit validate` could write it for such an index."""
REVIEWS = (
    OverlapReview(
        index=INDEX,
        data=CERTIFICATE.data,
        settings=OverlapSettings(least=0.8, shingle=SHINGLE, block=BLOCK, dense=DENSE, sampled=1.0),
        findings=OverlapFindings(
            providers=5,
            records=1204,
            copies=3,
            copying=1,
            repeats=0,
            pairs=1,
            heaviest=(SharedText("cedar-wire", "brook-journal", 0.004),),
        ),
    ),
    MembershipReview(
        index=INDEX,
        data=CERTIFICATE.data,
        settings=MembershipSettings(earlier="e1" * 32, max_length=None, tokens=50_000, below=0.7),
        findings=MembershipFindings(providers=5, doubted=0, least=(LearnedText("dune-recipes", 0.91, 0.83, 0.99),)),
    ),
)
"""Reviews as `credit overlap` and `credit membership` could record them."""


def main(target: Path) -> None:
    """Render every sample, then put them in the place of `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        books = Path(scratch) / "books"
        url = f"sqlite:///{scratch}/credit.db"
        upgrade(url, now=NOW)
        rendered = Path(scratch) / "samples"
        rendered.mkdir()
        with Ledger.open(url, actor="make samples") as ledger:
            build(ledger, books)
            render(ledger, books, rendered, Path(scratch) / "export")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(rendered, target)


def build(ledger: Ledger, books: Path) -> None:
    """Fill a ledger with one month: outputs, their score book, a pool, terms; and close it."""
    logged = list(_logged())
    with ledger.write() as conn:
        providers.import_providers(conn, PROVIDERS, now=NOW)
        terms.agree(conn, "dune-recipes", "EUR", Terms(minimum_payout_minor=10_000), date(2026, 1, 1), now=NOW)
        index = indexes.register_index(conn, MODEL, INDEX, "indexes/sample-model", "{}", now=NOW)
        file_id = admission.start_file(conn)
        admission.add_outputs(conn, logged, file_id)
        admission.record_file(
            conn,
            file_id,
            sha256="00" * 32,
            name="outputs.jsonl",
            format="own",
            accepted=len(logged),
            duplicates=0,
            quarantined=0,
            now=NOW,
        )
        post_scores(conn, books, outputs.pending_outputs(conn, MODEL, 0, len(logged)), index.id)
        pools.add_pool(
            conn,
            PERIOD,
            "EUR",
            gross_minor=1_250_000,
            deductions_minor=187_500,
            reference="subscriptions",
            now=NOW,
        )
        register_certificate(conn, INDEX, "retraining", CERTIFICATE.canonical, now=VALIDATED)
        for made in REVIEWS:
            register_review(conn, INDEX, made.kind, made.canonical, now=VALIDATED)
        signing_keys.enter_key(conn, KEY.public_key(), origin="example.com/credit", now=NOW)
    close_period(ledger, PERIOD, books=books, now=NOW)


def post_scores(conn: Connection, books: Path, stored: Sequence[outputs.StoredOutput], index_id: int) -> None:
    """Write one score book, register it and post its credits by day, as `credit compute` does."""
    scores = [score for item in stored for score in _scores(item)]
    book = write_book(books, pl.DataFrame(scores, schema=SCHEMA, orient="row"))
    run = score_books.ensure_run(
        conn, "sample-run", index_id=index_id, policy_json=Policy().to_json(), software_version="sample", now=NOW
    )
    score_books.register_book(
        conn,
        sha256=book.sha256,
        compute_run_id=run,
        output_ids=[item.id for item in stored],
        row_count=book.row_count,
        byte_count=book.byte_count,
        now=NOW,
    )
    days = {item.id: item.output.occurred_at.date() for item in stored}
    totals: dict[date, dict[Group, int]] = {}
    for number, provider, collection, *_, micro in scores:
        of_day, group = totals.setdefault(days[number], {}), Group(provider, collection)
        of_day[group] = of_day.get(group, 0) + micro
    for day, of_day in sorted(totals.items()):
        lines = [Entry(AccountKind.EARNED.key(group), CREDIT, micro) for group, micro in sorted(of_day.items()) if micro]
        issued = Entry(AccountKind.ISSUED.key(), CREDIT, -sum(line.amount for line in lines))
        key = TransactionKind.CREDITS.key(score_book=book.sha256, day=day)
        details = CreditsDetails(book.sha256)
        journal.post(conn, Posting(TransactionKind.CREDITS, PERIOD, day, key, (issued, *lines), details=details), now=NOW)


def render(ledger: Ledger, books: Path, target: Path, scratch: Path) -> None:
    """Write the reports of the month, and one provider's export."""
    with ledger.read() as conn:
        frames = {by: attribution(conn, books, PERIOD, by) for by in ("provider", "collection", "day", "output")}
        page = attribution_page(conn, books, PERIOD, "collection")
        paid = payouts(conn, PERIOD)
    files = {f"attribution-by-{by}.csv": to_csv(frame) for by, frame in frames.items()}
    files["attribution-by-provider.json"] = to_json(frames["provider"])
    files["attribution.html"] = page
    files["payouts.csv"] = to_csv(paid)
    for name, content in files.items():
        (target / name).write_bytes(content.encode())
    export_period(ledger, books, PERIOD, scratch, key=KEY, pseudonyms=PseudonymKey(bytes(32)), now=NOW)
    shutil.copytree(scratch / EXPORTED, target / "export" / EXPORTED)


def _logged() -> Iterator[LoggedOutput]:
    """Yield three outputs on each of ten days, one of them of double weight."""
    for number in range(30):
        moment = datetime(2026, 10, 2, 8, 15, tzinfo=UTC) + timedelta(days=3 * (number // 3), hours=4 * (number % 3))
        weight = 2_000_000 if number == 17 else 1_000_000
        yield LoggedOutput(
            "own", f"output-{number + 1:02d}", moment, MODEL, completion="An invented completion.", weight_micro=weight
        )


def _scores(item: outputs.StoredOutput) -> Iterator[tuple[Any, ...]]:
    """Yield the scores of an output: each group's pull, moved up and down by a fixed pattern; none for the last."""
    influence, support, effect = [], [], []
    for place, pull in enumerate(PULL.values()):
        swing = ((7 * item.id + 5 * place) % 11 - 5) / 8
        signed = -0.25 - pull / 8 if item.id % 30 == 0 else round(pull * swing, 6)
        influence.append(signed)
        support.append(round(max(0.0, signed) * 0.75, 6))
        effect.append(influence[-1] + support[-1])
    groups = list(PULL)
    credited = output_credits(item.output.weight_micro, groups, effect, tie_key=item.output.name)
    for place, (group, micro) in enumerate(credited):
        numbers = (influence[place], support[place], effect[place]) if place < len(groups) else (0.0, 0.0, 0.0)
        yield (item.id, group.provider, group.collection, *numbers, micro)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "samples")
