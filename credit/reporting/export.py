"""A period's export: a folder for each provider, with its own data and nobody else's.

A folder is written beside its place, made durable and renamed: it is whole or absent. A second export gives the same
bytes, and leaves the folder as it is.

A signed folder has four files more: a signed list of all files, the statement's place in the ledger's tree with the
signed head, a proof that this head extends the one of the provider's statement before, and a script to check it all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit.errors import IntegrityError, InvalidRequestError
from credit.ingest.pseudonyms import PseudonymKey
from credit.ledger.database import Ledger
from credit.ledger.heads import head_over, ledger_tree, sealed_statements, sign_head, signed_heads
from credit.ledger.providers import providers
from credit.ledger.score_books import MEASURES, standing_scores
from credit.ledger.signing_keys import KeyEvent, active_key, check_active, key_history
from credit.ledger.statements import Statement
from credit.proofs import EXTENSION_FILE, MANIFEST_FILE, PROOF_FILE, extension_text, inclusion_text, key_text
from credit.reporting.frames import BY_COLLECTION_AND_DAY, latest_statements, totals
from credit.reporting.pages import readme_text, statement_page
from credit.reporting.signatures import CHECK_FILE, LedgerProof, check_script, signed_manifest
from credit.reporting.tables import to_csv
from credit.storage import (
    is_left_over,
    make_folder,
    make_folder_beside,
    parse_object,
    replace_folder,
    sync_folder,
    write_whole,
)

FILES = ("README.txt", "attribution.csv", "outputs.csv", "statement.html", "statement.json")
"""Files of a provider's folder."""

SIGNED_FILES = (MANIFEST_FILE, PROOF_FILE, EXTENSION_FILE, CHECK_FILE)
"""Further files of a signed folder; the first one of a provider has no `EXTENSION_FILE`."""

_OURS = {*FILES, *SIGNED_FILES, "statement.sig"}
"""Files that an export wrote, this version's or an earlier one's."""

_SPILLED = {
    "name": pl.String(),
    "occurred_at": pl.String(),
    "collection": pl.String(),
    **dict.fromkeys(MEASURES, pl.Float64()),
    "credit_micro": pl.Int64(),
}
_SPILL = "outputs.part"


@dataclass(frozen=True, slots=True)
class _Signer:
    """The key that signs folders, the history of keys, and each provider's proof."""

    key: Ed25519PrivateKey
    history: list[KeyEvent]
    proofs: Mapping[str, LedgerProof]


def export_period(
    ledger: Ledger,
    books_folder: Path,
    period: str,
    out: Path,
    *,
    key: Ed25519PrivateKey | None = None,
    unsigned: bool = False,
    pseudonyms: PseudonymKey | None = None,
    now: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a folder for each provider with a statement for a closed period; the house has none.

    Args:
        ledger: the ledger.
        books_folder: folder of the score books.
        period: the month, `YYYY-MM`.
        out: parent of the folders, each named by its provider's key; created if missing.
        key: the active signing key; None leaves the folders unsigned.
        unsigned: leave them unsigned although the ledger has a signing key.
        pseudonyms: makes the names under which providers see outputs, with the day alone; None shows them the log's
            ids and moments, which may tell of its users.
        now: the time of the head, if one has to be signed.
        progress: called with the number of folders done, and of all.

    Returns:
        The folders, sorted by provider.

    Raises:
        LedgerError: the ledger has no such period, it is open, or the key is not the ledger's active one.
        InvalidRequestError: the ledger has a signing key and none is given; or a folder in `out` is of another period,
            was not written by an export, or is signed while this one would not be.
        IntegrityError: a stored statement or score book was changed.
        LockHeldError: another export of this ledger is running.
    """
    with ledger.exclusive("export"):
        signer = _signer(ledger, period, key, unsigned=unsigned, now=now or datetime.now(UTC))
        with ledger.read() as conn:
            house = {item.key for item in providers(conn) if item.kind == "house"}
            told = {item.provider: item for item in latest_statements(conn, period) if item.provider not in house}
            for name in told:
                _check_replaceable(out / name, period, signing=key is not None)
            daily = totals(conn, books_folder, period, [BY_COLLECTION_AND_DAY]).frames[BY_COLLECTION_AND_DAY]
            silent = sorted(set(daily.filter(pl.col("credit_micro") > 0)["provider"]) - told.keys() - house)
            if silent:
                raise IntegrityError(f"{silent[0]} earned credits in {period} and has no statement; run credit verify")
            make_folder(out)
            _delete_leftovers(out)
            staged = {name: make_folder_beside(out / name) for name in told}
            for _, rows in standing_scores(conn, books_folder, period):
                _spill(rows, staged)
        for number, (name, statement) in enumerate(told.items(), start=1):
            _fill(staged[name], statement, daily.filter(pl.col("provider") == name), signer, pseudonyms)
            _publish(staged[name], out / name)
            if progress is not None:
                progress(number, len(told))
        sync_folder(out)
    return [out / name for name in sorted(told)]


def _signer(
    ledger: Ledger, period: str, key: Ed25519PrivateKey | None, *, unsigned: bool, now: datetime
) -> _Signer | None:
    """Return what signs a period's folders; None where they stay unsigned."""
    if key is None:
        with ledger.read() as conn:
            active = active_key(conn)
        if active is not None and not unsigned:
            raise InvalidRequestError(
                f"exports of this ledger are signed since {active.created_at:%Y-%m-%d}; name the key (--signing-key"
                " FILE), or leave them unsigned on purpose (--unsigned)"
            )
        return None
    public = key_text(key.public_key())
    with ledger.write() as conn:
        check_active(conn, key.public_key())
        sealed = sealed_statements(conn, period)
        least = max((item.leaf + 1 for item in sealed if item.period == period), default=0)
        # An export again takes the head that it took: the same bytes, and the same proofs.
        if head_over(signed_heads(conn), least, public) is None:
            sign_head(conn, key, now=now)
    with ledger.read() as conn:
        heads, tree = signed_heads(conn), ledger_tree(conn)
        history = key_history(conn)
    head = head_over(heads, least, public)
    before = {item.provider: item.leaf + 1 for item in sealed if item.period < period}
    found: dict[str, LedgerProof] = {}
    for item in sealed:
        if item.period != period or head is None:
            continue
        inclusion = inclusion_text(item.leaf, tree.inclusion(item.leaf, head.size), head, item.extra)
        earlier = head_over(heads, before[item.provider]) if item.provider in before else None
        size = earlier.size if earlier is not None and earlier.size < head.size else 0
        extension = extension_text(size, tree.consistency(size, head.size), head) if size else ""
        found[item.provider] = LedgerProof(head, item.leaf, inclusion, size, extension)
    return _Signer(key, history, found)


def _check_replaceable(folder: Path, period: str, *, signing: bool) -> None:
    """Refuse to overwrite anything but an export of the same period, or a signed export by an unsigned one."""
    if folder.is_symlink():
        raise InvalidRequestError(f"{folder} is a link; export to a folder of its own: --out DIR")
    if not folder.exists():
        return
    try:
        found = parse_object((folder / "statement.json").read_bytes())["period"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != period or {item.name for item in folder.iterdir()} - _OURS:
        what = f"is the export of {found}" if found not in {None, period} else "holds files that no export wrote"
        raise InvalidRequestError(f"{folder} {what}; export {period} to a folder of its own: --out DIR")
    if not signing and (folder / MANIFEST_FILE).exists():
        raise InvalidRequestError(f"{folder} is signed; sign again, with --signing-key, or export to another --out DIR")


def _delete_leftovers(out: Path) -> None:
    """Delete the folders that a killed export left: they have a name of ours, and hold nothing but files of ours."""
    ours = {*_OURS, _SPILL}
    for folder in out.iterdir():
        if not is_left_over(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        if all(item.name in ours or is_left_over(item.name) for item in folder.iterdir()):
            shutil.rmtree(folder)


def _spill(rows: pl.DataFrame, staged: Mapping[str, Path]) -> None:
    """Append a book's rows with credit to a file of each provider, so one book at a time is in memory."""
    credited = rows.filter((pl.col("credit_micro") > 0) & pl.col("provider").is_in(list(staged)))
    for (key,), own in credited.partition_by("provider", as_dict=True).items():
        with (staged[str(key)] / _SPILL).open("ab") as file:
            own.select(list(_SPILLED)).write_csv(file, include_header=False, quote_style="non_numeric")


def _fill(
    folder: Path, statement: Statement, daily: pl.DataFrame, signer: _Signer | None, pseudonyms: PseudonymKey | None
) -> None:
    """Write a provider's files, from its rows on disk, and delete those rows."""
    outputs = _credited(folder / _SPILL, pseudonyms)
    attribution = daily.select("day", "collection", "outputs", *MEASURES, "credit_micro").sort("day", "collection")
    proof = None if signer is None else signer.proofs[statement.provider]
    public = "" if signer is None else key_text(signer.key.public_key())
    contents = {
        "statement.json": statement.body_json,
        "statement.html": statement_page(statement, public, proof),
        "attribution.csv": to_csv(attribution),
        "outputs.csv": to_csv(outputs),
        "README.txt": readme_text(statement, public, proof),
    }
    if proof is not None:
        contents |= {PROOF_FILE: proof.inclusion, CHECK_FILE: check_script()}
        contents |= {EXTENSION_FILE: proof.extension} if proof.extends else {}
    files = {name: content.encode() for name, content in contents.items()}
    if signer is not None:
        files[MANIFEST_FILE] = signed_manifest(signer.key, statement, signer.history, files).encode()
    for name, content in files.items():
        write_whole(folder / name, content)


def _credited(spill: Path, pseudonyms: PseudonymKey | None) -> pl.DataFrame:
    """Return a provider's rows by output, and delete them from the disk."""
    outputs = pl.DataFrame(schema=_SPILLED)
    if spill.exists():
        outputs = pl.read_csv(spill, has_header=False, schema=_SPILLED)
        spill.unlink()
    when = "occurred_at"
    if pseudonyms is not None:
        names = {name: pseudonyms.output(name) for name in outputs["name"].unique()}
        outputs = outputs.with_columns(pl.col("name").replace_strict(names, return_dtype=pl.String()))
        outputs = outputs.with_columns(pl.col(when).str.head(10)).rename({when: "day"})
        when = "day"
    # Sorted by what is shown: the order of the moments would tell more than the days do.
    return outputs.sort(when, "name", "collection").rename({"name": "output_id"})


def _publish(staged: Path, folder: Path) -> None:
    """Put a finished folder in its place; a folder with the same files stays."""
    if folder.exists() and _same(staged, folder):
        shutil.rmtree(staged)
        return
    replace_folder(staged, folder)


def _same(one: Path, other: Path) -> bool:
    names = {item.name for item in one.iterdir()}
    return names == {item.name for item in other.iterdir()} and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )
