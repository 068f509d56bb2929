"""What heads and proofs cost in a ledger of a million transactions: reading, appending, proving, checking.

    python -m benchmarks.heads [--transactions 1000000]

The transactions are inserted in bulk into a SQLite ledger, without its triggers: whole headers with random hashes, and
no entries, which heads never read. So reading them costs what it does, and verification would refuse them. Each figure
is the best of three in CPU seconds, proofs are means of 1 000.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.ledger_speed import NOW, alone
from credit.ledger import heads, signing_keys
from credit.ledger.database import Ledger, upgrade
from credit.ledger.merkle import MerkleTree
from credit.ledger.verify.heads import check_outside_heads
from credit.proofs import Head, Note, extends, root_by_inclusion

PROOFS = 1_000
MOMENT = "2026-11-05T00:00:00.000000Z"


def best(act: Callable[[], object], times: int = 3) -> float:
    """Return the CPU seconds of the shortest of some runs."""
    found = []
    for _ in range(times):
        start = time.process_time()
        act()
        found.append(time.process_time() - start)
    return min(found)


def insert(path: Path, count: int) -> None:
    """Insert transactions into a fresh ledger."""
    with closing(sqlite3.connect(path)) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("INSERT INTO period (id, status, opened_at) VALUES ('2026-10', 'open', ?)", (MOMENT,))
        digest = (os.urandom(32).hex() for _ in range(2 * count))
        rows = ((n, n, f"credits:{n}", "0" * 64, MOMENT, next(digest), next(digest)) for n in range(1, count + 1))
        raw.executemany(
            "INSERT INTO ledger_txn (id, seq, entry_count, kind, period_id, idempotency_key, input_sha256,"
            " effective_on, recorded_at, memo, details_json, prev_hash, hash, actor)"
            " VALUES (?, ?, 2, 'credits', '2026-10', ?, ?, '2026-10-05', ?, '', '{}', ?, ?, 'benchmark')",
            rows,
        )
        raw.commit()


def measure(url: str) -> dict[str, float]:
    key = Ed25519PrivateKey.generate()
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            signing_keys.enter_key(conn, key.public_key(), now=NOW)
        start = time.process_time()
        with ledger.write() as conn:
            signed = heads.sign_head(conn, key, now=NOW)
        signing = time.process_time() - start
        with ledger.read() as conn:
            tree = heads.ledger_tree(conn)
            return {
                "leaves": len(tree),
                "root, from all rows, CPU s": best(lambda: heads.ledger_tree(conn).root()),
                "sign, CPU s": signing,
                "check an outside head, CPU s": best(lambda: list(check_outside_heads(conn, [signed])), 1),
                **of_tree(tree),
            }


def of_tree(tree: MerkleTree) -> dict[str, float]:
    """Times of a tree in memory, in microseconds each."""
    size, draw = len(tree), random.Random(1)
    places = [draw.randrange(size) for _ in range(PROOFS)]
    leaves = [draw.randbytes(32) for _ in places]
    prove = best(lambda: [tree.inclusion(place, size) for place in places])
    connect = best(lambda: [tree.consistency(place + 1, size) for place in places])
    root = Head("log", size, tree.root(), "", Note("", ()))
    olds = [Head("log", place + 1, tree.root(place + 1), "", Note("", ())) for place in places]
    paths = [tree.inclusion(place, size) for place in places]
    links = [tree.consistency(place + 1, size) for place in places]
    check = best(lambda: [root_by_inclusion(leaves[0], p, size, path) for p, path in zip(places, paths, strict=True)])
    follow = best(lambda: [extends(old, root, link) for old, link in zip(olds, links, strict=True)])
    start = time.process_time()
    for leaf in leaves:
        tree.extend([leaf])
    append = time.process_time() - start
    of_each = {"append": append, "prove inclusion": prove, "prove consistency": connect}
    of_each |= {"check inclusion": check, "check consistency": follow}
    return {f"{name}, µs": seconds * 1e6 / PROOFS for name, seconds in of_each.items()} | {
        "hashes in an inclusion proof": sum(map(len, paths)) / PROOFS,
        "hashes in a consistency proof": sum(map(len, links)) / PROOFS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transactions", type=int, default=1_000_000)
    options = parser.parse_args()
    print(f"load {Path('/proc/loadavg').read_text().split()[0]}, {datetime.now(UTC):%Y-%m-%d}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/ledger.db"
        upgrade(url)
        insert(Path(folder) / "ledger.db", options.transactions)
        for name, value in alone(measure, url).items():
            print(f"| {name} | {value:,.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
