"""Checks of `credit verify`: they recompute everything from the rows and name each difference.

A verification reads one snapshot, in bounded memory. The result is a `report`. The checks, in their order:

- `definitions`: triggers, tables, columns, constraints and indexes are as `credit` made them; no reference dangles;
- `chains`: both chains are whole, transactions balance, and every row outside the journal matches its seal;
- `outputs`: outputs, the counts of their files and score books, and unvalued outputs;
- `closes`: pools, allocations, reserves, conversions and held collections follow from the journal;
- `statements`: statements, certificates and reviews have their hashes, and the heads in them are still in their chains;
- `heads`: signing keys, and the signed heads, which the rows must lead to;
- `payouts`: payouts, batches, their events and voids follow from the journal;
- `approvals`: every action that needed a second person has one;
- `files`: score books and index folders match their registration.

The two chains show every change, insertion and removal inside them. A chain cannot show the loss of its own tail.
Three things do: the heads in statements, payouts (they name their transactions), and heads kept outside the ledger.
Nothing inside shows that everything was written anew, with new hashes: only a head kept outside does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, func, select

from credit.errors import CreditError
from credit.ledger.database import Ledger
from credit.ledger.journal import chain_head
from credit.ledger.schema import metadata, score_book
from credit.ledger.seals import seal_head
from credit.ledger.values import GENESIS
from credit.ledger.verify import approvals, chains, closes, definitions, files, outputs, payouts, statements
from credit.ledger.verify import heads as head_checks
from credit.ledger.verify.report import Problem, VerifyReport
from credit.proofs import Head

__all__ = ["Problem", "VerifyReport", "check_all", "verify"]

MAX_PROBLEMS = 20
"""Most problems reported by one check: the first ones name the place."""

Check = Callable[[Connection], Iterator[Problem]]

CHECKS: tuple[Check, ...] = (
    definitions.check_definitions,
    definitions.check_storage,
    chains.check_seals,
    chains.check_sealed_rows,
    chains.check_journal,
    definitions.check_references,
    chains.check_accounts,
    outputs.check_outputs,
    outputs.check_counts,
    outputs.check_purges,
    outputs.check_unvalued,
    closes.check_pools,
    closes.check_period_basis,
    closes.check_allocations,
    closes.check_reserves,
    closes.check_conversions,
    closes.check_held,
    statements.check_statements,
    statements.check_certificates,
    statements.check_reviews,
    statements.check_heads,
    head_checks.check_signing_keys,
    head_checks.check_signed_heads,
    payouts.check_payouts,
    payouts.check_batches,
    payouts.check_events,
    payouts.check_voids,
    approvals.check_decisions,
    approvals.check_approved,
    files.check_index_files,
)
"""Every check. First come the checks that hold even when any row may be damaged."""


def verify(
    ledger: Ledger, books: Path | None, *, heads: Sequence[str] = (), outside: Sequence[Head] = ()
) -> VerifyReport:
    """Recompute the ledger and report every difference; report missing tables or columns alone.

    Args:
        ledger: the ledger.
        books: the folder of the score books; None leaves the files unchecked.
        heads: hashes of transactions or seals kept outside the ledger; each must still be in its chain.
        outside: signed heads kept outside the ledger, which it must extend.
    """
    with ledger.read() as conn:
        if not definitions.is_readable(conn):
            return VerifyReport({}, 0, GENESIS, GENESIS, tuple(check_all(conn, CHECKS[:1])))
        problems = check_all(conn)
        problems += head_checks.check_chain_heads(conn, heads)
        problems += head_checks.check_outside_heads(conn, outside)
        checked = {
            table.name: int(conn.execute(select(func.count()).select_from(table)).scalar_one())
            for table in metadata.sorted_tables
        }
        if books is not None:
            problems += islice(files.check_book_files(conn, books), MAX_PROBLEMS)
            checked["score_book files"] = checked[score_book.name]
        unchecked = tuple(files.unchecked_indexes(conn))
        seq, head = chain_head(conn)
        _, last_seal = seal_head(conn)
    unknown = "" if outside or heads else head_checks.UNKNOWN
    return VerifyReport(checked, seq, head, last_seal, tuple(problems), unchecked, unknown)


def check_all(conn: Connection, checks: Sequence[Check] = CHECKS) -> list[Problem]:
    """Run checks in order and return their problems."""
    problems: list[Problem] = []
    for check in checks:
        try:
            problems.extend(islice(check(conn), MAX_PROBLEMS))
        except (ArithmeticError, CreditError, LookupError, TypeError, ValueError) as error:
            # Somebody made a row unreadable; an earlier check, or this one, has named it.
            if not problems:
                raise
            problems.append(Problem(check.__name__.replace("_", " "), f"cannot go on: {error}"))
    return problems
