"""What heads and proofs cost in a ledger of a million transactions: reading, appending, proving, checking.

    python -m benchmarks.heads [--transactions 1000000] [--engine postgresql]

The transactions are inserted in bulk, without the ledger's triggers: whole headers with random hashes, and no entries,
which heads never read. So reading them costs what it does, and verification would refuse them. Each figure is the best
of three in CPU seconds, proofs are means of 1 000. On PostgreSQL the server works, too: there the seconds that pass are
given beside those of the client.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.ledger_speed import NOW, alone, databases
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


COLUMNS = (
    "id, seq, entry_count, kind, period_id, idempotency_key, input_sha256, effective_on, recorded_at, memo,"
    " details_json, prev_hash, hash, actor"
)
PERIOD = f"INSERT INTO period (id, status, opened_at) VALUES ('2026-10', 'open', '{MOMENT}')"


def rows(count: int) -> Iterator[tuple[object, ...]]:
    """Yield transactions with random hashes."""
    digest = iter(lambda: os.urandom(32).hex(), "")
    for n in range(1, count + 1):
        named = ("credits", "2026-10", f"credits:{n}", "0" * 64, "2026-10-05", MOMENT)
        yield (n, n, 2, *named, "", "{}", next(digest), next(digest), "benchmark")


def insert(url: str, count: int) -> None:
    """Insert transactions into a fresh ledger."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as conn, conn.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(PERIOD)
            with cursor.copy(f"COPY ledger_txn ({COLUMNS}) FROM STDIN") as copy:
                for row in rows(count):
                    copy.write_row(row)
            cursor.execute("ANALYZE ledger_txn")
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute(PERIOD)
        raw.executemany(f"INSERT INTO ledger_txn ({COLUMNS}) VALUES ({', '.join('?' * 14)})", rows(count))
        raw.commit()


def passing(act: Callable[[], object]) -> float:
    """Return the seconds that pass in an act, by the clock."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def measure(url: str) -> dict[str, float]:
    key = Ed25519PrivateKey.generate()
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            signing_keys.enter_key(conn, key.public_key(), now=NOW)
        start, began = time.process_time(), time.perf_counter()
        with ledger.write() as conn:
            signed = heads.sign_head(conn, key, now=NOW)
        signing, signed_in = time.process_time() - start, time.perf_counter() - began
        with ledger.read() as conn:
            tree = heads.ledger_tree(conn)
            return {
                "leaves": len(tree),
                "root, from all rows, CPU s": best(lambda: heads.ledger_tree(conn).root()),
                "root, from all rows, s": passing(lambda: heads.ledger_tree(conn).root()),
                "sign, CPU s": signing,
                "sign, s": signed_in,
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
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    print(f"load {Path('/proc/loadavg').read_text().split()[0]}, {datetime.now(UTC):%Y-%m-%d}", flush=True)
    with databases(options.engine) as urls:
        url = next(urls)
        upgrade(url)
        insert(url, options.transactions)
        for name, value in alone(measure, url).items():
            print(f"| {name} | {value:,.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
