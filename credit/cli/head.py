"""`credit head`: signed heads of the ledger, for others to keep and witness."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, CommandGroup, json_option, ledger_options
from credit.cli.printing import say
from credit.cli.signing_key import load, passphrase_option, signing_options
from credit.errors import EXIT_INTEGRITY, InputError, IntegrityError, InvalidRequestError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit.pipeline.workspace import Workspace
    from credit.proofs import Head


@click.group(cls=CommandGroup)
def head() -> None:
    """Sign heads of the ledger, and check the ledger against heads kept elsewhere.

    A head is the Merkle root of all transactions and of all other rows, in the checkpoint format of public transparency
    logs. Whoever keeps one can tell later if anything older was changed, even by somebody who can write the database
    and hashes everything anew.

    \b
    Example: credit head sign --signing-key credit-signing.pem --out heads.txt
    """


@head.command()
@ledger_options
def show(workspace: Workspace) -> None:
    """Show the present size and root, computed from every row, and the last signed head.

    \b
    Example: credit head show
    """
    from credit.ledger.heads import entry_at, ledger_tree, signed_heads

    with workspace.open() as ledger, ledger.read() as conn:
        tree, signed = ledger_tree(conn), signed_heads(conn)
        last = entry_at(conn, len(tree) - 1)
    root = tree.root().hex()
    facts = {"size": len(tree), "root": root, "last_entry": last, "signed": [_facts(item) for item in signed]}
    signed_line = f"{signed[-1].size} entries, {signed[-1].time}" if signed else "none yet: credit head sign --help"
    say(facts, f"size    {len(tree)} entries, the last is {last}", f"root    {root}", f"signed  {signed_line}")


@head.command()
@click.option("--out", type=FILE, required=True, help="File that gets the head at its end, to be kept elsewhere.")
@signing_options
@ledger_options
def sign(workspace: Workspace, out: Path, key: Ed25519PrivateKey | None) -> None:
    """Sign the present head, and append it to the file --out. Repeating it with nothing new changes nothing.

    Keep the file where whoever can write the database cannot: publish it, mail it, let witnesses cosign it.

    \b
    Example: credit head sign --signing-key credit-signing.pem --out heads.txt
    """
    from credit.ledger.heads import sign_head
    from credit.proofs import ProofError
    from credit.storage import write_whole

    if key is None:
        raise click.UsageError("--signing-key FILE is missing; make one: credit signing-key new FILE")
    kept = out.read_text("utf-8") if out.exists() else ""
    try:
        known = [item.note.text for item in _heads(kept)]
    except ProofError as error:
        raise InvalidRequestError(f"{out} holds something other than heads ({error}); name another file") from None
    if kept and not known:
        raise InvalidRequestError(f"{out} holds no heads; name another file")
    with workspace.open() as ledger, ledger.write() as conn:
        signed = sign_head(conn, key, now=datetime.now(UTC))
    if signed.note.text not in known:
        write_whole(out, f"{kept}\n{signed.note}".lstrip("\n").encode())
    say(
        _facts(signed) | {"file": str(out)}, f"head of {signed.size} entries is in {out}", str(signed.note).rstrip("\n")
    )


@head.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--key", "keys", multiple=True, metavar="PUBLIC_KEY",
    help="The issuer's public key, kept elsewhere. May be repeated.  [default: those that the ledger names]",
)  # fmt: skip
@click.option("--witness", "witnesses", multiple=True, metavar="VKEY", help="A witness's key, name+id+base64.")
@ledger_options
def check(workspace: Workspace, files: tuple[Path, ...], keys: tuple[str, ...], witnesses: tuple[str, ...]) -> None:
    """Check the ledger against the heads in FILES: nothing under them was changed since. Exits with 4 if not.

    A file holds one head or several, or is a folder of a signed export. With several heads, a fault is named more
    closely. `credit verify` checks the rows themselves.

    \b
    Example: credit head check heads.txt
             credit head check last-month/ada --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
    """
    from credit.ledger.verify.heads import check_outside_heads
    from credit.reporting.signatures import read_public_key

    found = [item for file in files for item in read_file(file)]
    trusted = [read_public_key(key) for key in keys]
    with workspace.open() as ledger, ledger.read() as conn:
        problems = list(check_outside_heads(conn, found, trusted))
    seen = [line for item in found for line in _cosigned(item, witnesses)]
    facts = {"heads": [_facts(item) for item in found], "problems": problems, "witnessed": seen}
    if problems:
        say(facts, *map(str, problems), exit_code=EXIT_INTEGRITY)
    agreed = [f"{item.size} entries, {item.time}: the ledger extends this head" for item in found]
    say(facts, *agreed, *seen)


@head.command()
@click.argument("file", type=FILE)
@click.option("--out", type=FILE, required=True, help="New file for the proof.")
@ledger_options
def prove(workspace: Workspace, file: Path, out: Path) -> None:
    """Write the proof for the last signed head to extend the one in FILE, as witnesses and providers take it.

    The proof is the body of a request to a public witness (c2sp.org/tlog-witness), and an `extends.txt` for a provider
    who kept another head than the one before.

    \b
    Example: credit head prove kept-head.txt --out extends.txt
    """
    from credit.ledger.heads import ledger_tree, signed_heads
    from credit.ledger.verify.heads import check_outside_heads
    from credit.proofs import extension_text
    from credit.storage import write_whole

    old = read_file(file)[-1]
    with workspace.open() as ledger, ledger.read() as conn:
        for problem in check_outside_heads(conn, [old]):
            raise IntegrityError(str(problem))
        signed, tree = signed_heads(conn), ledger_tree(conn)
    if not signed or signed[-1].size < old.size:
        raise InvalidRequestError("no later head is signed: credit head sign --help")
    new = signed[-1]
    write_whole(out, extension_text(old.size, tree.consistency(old.size, new.size), new).encode())
    say(_facts(new) | {"old_size": old.size, "file": str(out)}, f"{out}: from {old.size} to {new.size} entries")


@head.command()
@click.argument("file", type=FILE)
@click.option("--name", required=True, help="The witness's name, such as witness.example.com/w1.")
@click.option("--witness-key", type=FILE, required=True, help="File of the witness's own key (credit signing-key).")
@click.option("--key", required=True, metavar="PUBLIC_KEY", help="The issuer's public key, received another way.")
@click.option("--last", type=FILE, help="The head that this witness cosigned last.  [default: this is the first]")
@click.option("--out", type=FILE, required=True, help="New file for the head with the cosignature: keep it as --last.")
@passphrase_option
@json_option
def cosign(
    file: Path, name: str, witness_key: Path, key: str, last: Path | None, out: Path, passphrase_file: Path | None
) -> None:
    """Cosign the head in FILE as a witness, with the time, once it extends the one cosigned last. Needs no ledger.

    FILE is what `credit head prove` wrote from the last head, or for the first time a head alone. The cosignature is
    the one of c2sp.org/tlog-cosignature.

    \b
    Example: credit head cosign request.txt --name witness.example.com/w1 --witness-key w1.pem --last seen.txt
             --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= --out cosigned.txt
    """
    from credit.ledger.heads import cosigned
    from credit.proofs import ProofError, extends, read_extension, read_head, signer_of
    from credit.reporting.signatures import read_public_key
    from credit.storage import write_whole

    issuer, own = read_public_key(key), load(witness_key, passphrase_file)
    if not name.isprintable() or not name or set(name) & {" ", "+"}:
        raise click.UsageError("--name is one word without +, such as witness.example.com/w1")
    seen = None if last is None else read_file(last)[-1]
    new = read_file(file)[-1]
    if signer_of(new.note, [issuer]) is None:
        raise IntegrityError(f"the head in {file} is not signed with this key")
    if seen is not None:
        try:
            _, path, new = read_extension(file.read_text("utf-8"))
        except ProofError as error:
            raise InvalidRequestError(f"{file}: {error}; ask the issuer for credit head prove {last}") from None
        if seen.origin != new.origin or not extends(seen, new, path):
            raise IntegrityError(f"the head in {file} does not extend the one in {last}; not cosigned")
    done = read_head(cosigned(new, name, own, now=datetime.now(UTC)))
    write_whole(out, str(done.note).encode())
    say(_facts(done) | {"file": str(out)}, f"{out}: head of {done.size} entries, cosigned by {name}")


def read_file(path: Path) -> list[Head]:
    """Return the heads in a file, or in the folder of a signed export.

    Raises:
        InputError: the file cannot be read.
        InvalidRequestError: it holds no head, or a damaged one.
    """
    from credit.proofs import PROOF_FILE, ProofError

    place = path / PROOF_FILE if path.is_dir() else path
    try:
        found = _heads(place.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{place} cannot be read: {error.strerror}") from error
    except (ProofError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{place} holds no signed head: {error}") from None
    if not found:
        raise InvalidRequestError(f"{place} holds no signed head, or one that was cut short")
    return found


def _heads(content: str) -> list[Head]:
    from credit.proofs import read_heads

    return read_heads(content)


def _cosigned(item: Head, witnesses: tuple[str, ...]) -> list[str]:
    """Return a line for each witness's cosignature of a head; IntegrityError where one is missing."""
    from credit.proofs import cosigned_at
    from credit.reporting.signatures import read_public_key

    lines = []
    for witness in witnesses:
        name = witness.partition("+")[0]
        moment = cosigned_at(item.note, name, read_public_key(witness))
        if moment is None:
            raise IntegrityError(f"the head of {item.size} entries is not cosigned by {name} with this key")
        lines.append(
            f"{item.size} entries: cosigned by {name} at {datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
    return lines


def _facts(item: Head) -> dict[str, object]:
    return {"origin": item.origin, "size": item.size, "root": item.root.hex(), "time": item.time}
