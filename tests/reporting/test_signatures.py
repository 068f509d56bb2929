"""Signatures: what was signed is known by its key alone, and nothing else passes for it."""

from __future__ import annotations

import json
import stat
import subprocess
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit.cli.main import cli
from credit.errors import EXIT_INTEGRITY, IntegrityError, InvalidRequestError
from credit.ledger.database import Ledger
from credit.reporting.export import FILES, export_period
from credit.reporting.signatures import (
    SIGNATURE_FILE,
    create_key,
    load_key,
    public_text,
    signature_text,
    verify_statement,
)
from tests.reporting import ledgers
from tests.reporting.ledgers import OCTOBER


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    return create_key(tmp_path / "key.pem")


@pytest.fixture
def folder(month: Ledger, books: Path, tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    """Ada's signed export."""
    ledgers.close(month, OCTOBER)
    return export_period(month, books, OCTOBER, tmp_path / "out", key=key)[0]


def check(file: Path, key: str, *more: str) -> tuple[int, str]:
    """Run the command where there is no ledger."""
    result = CliRunner(env={"CREDIT_DATABASE_URL": "sqlite:////nowhere/credit.db"}).invoke(
        cli, ["verify-statement", str(file), "--key", key, *more]
    )
    return result.exit_code, result.output


def test_a_signed_statement_is_known_by_its_key_alone(folder, tmp_path, key):
    assert sorted(item.name for item in folder.iterdir()) == sorted([*FILES, SIGNATURE_FILE])
    readme = (folder / "README.txt").read_text()
    assert f"credit verify-statement statement.json --key {public_text(key)}" in readme
    public = tmp_path / "public.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, form))
    for given in (public_text(key), str(public)):
        code, said = check(folder / "statement.json", given)
        assert (code, "is the signed statement of ada for 2026-10" in said) == (0, True)


def test_every_changed_byte_another_key_and_another_signature_are_refused(folder, tmp_path, key):
    file, public = folder / "statement.json", public_text(key)
    body, sig = file.read_bytes(), json.loads((folder / SIGNATURE_FILE).read_text())
    for place in (0, len(body) // 2, len(body) - 1):
        file.write_bytes(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])
        assert check(file, public)[0] == EXIT_INTEGRITY
    file.write_bytes(body + b"\n")
    assert check(file, public)[0] == EXIT_INTEGRITY
    file.write_bytes(body)
    code, said = check(file, public_text(create_key(tmp_path / "other.pem")))
    assert (code, "the key is another" in said) == (EXIT_INTEGRITY, True)
    bell = folder.parent / "bell"
    assert check(file, public, "--signature", str(bell / SIGNATURE_FILE))[0] == EXIT_INTEGRITY
    for bad in ({**sig, "signature": sig["signature"][:-8]}, {**sig, "algorithm": "none"}, {}, [], "x"):
        (folder / SIGNATURE_FILE).write_text(json.dumps(bad))
        assert check(file, public)[0] == EXIT_INTEGRITY
    (folder / SIGNATURE_FILE).unlink()
    assert "cannot be read" in check(file, public)[1]


@pytest.mark.parametrize("key", ["", "abc", "A" * 44, "no-such-file.pem"])
def test_what_is_no_public_key_is_wrong_usage(tmp_path, key):
    code, said = check(tmp_path / "statement.json", key)
    assert code == 2, said


def test_a_signed_text_that_is_no_statement_is_refused(tmp_path, key):
    for body in (b"{}", b"[1]", b'{"format":"credit.invoice.v1"}', b"\xff"):
        (tmp_path / "statement.json").write_bytes(body)
        (tmp_path / SIGNATURE_FILE).write_text(signature_text(key, body))
        assert check(tmp_path / "statement.json", public_text(key))[0] == EXIT_INTEGRITY


def test_exported_again_it_is_the_same_and_never_loses_its_signature(folder, month, books, key):
    before = {item.name: (item.read_bytes(), item.stat().st_mtime_ns) for item in folder.iterdir()}
    export_period(month, books, OCTOBER, folder.parent, key=key)
    assert {item.name: (item.read_bytes(), item.stat().st_mtime_ns) for item in folder.iterdir()} == before
    with pytest.raises(InvalidRequestError, match="is signed; sign again"):
        export_period(month, books, OCTOBER, folder.parent)
    unsigned = export_period(month, books, OCTOBER, folder.parent / "unsigned")[0]
    assert "This statement is not signed." in (unsigned / "README.txt").read_text()
    assert (unsigned / "statement.json").read_bytes() == before["statement.json"][0]
    export_period(month, books, OCTOBER, folder.parent / "unsigned", key=key)
    assert (unsigned / SIGNATURE_FILE).read_bytes() == before[SIGNATURE_FILE][0]


def test_a_key_is_its_owners_alone_and_never_overwritten(tmp_path):
    path = tmp_path / "key.pem"
    run = CliRunner()
    made = run.invoke(cli, ["signing-key", str(path)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run.invoke(cli, ["signing-key", str(path), "--show"]).output == made.output
    again = run.invoke(cli, ["signing-key", str(path)])
    assert (again.exit_code, "never overwritten" in again.output) == (2, True)
    assert public_text(load_key(path)) == made.output.strip()
    path.chmod(0o640)
    with pytest.raises(InvalidRequestError, match="chmod 600"):
        load_key(path)


def test_what_is_no_signing_key_is_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cases = ((b"x", "is not a private key"), (other, "is not an Ed25519 key"), (None, "cannot be read"))
    for content, message in cases:
        path = tmp_path / "key"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(InvalidRequestError, match=message):
            load_key(path)


def test_the_commands_beside_a_statement_check_it_without_this_program(folder):
    """The README's lines are run as they stand there; OpenSSL knows the key and the signature by itself."""
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout.split()
    if not version or version[0] != "OpenSSL" or int(version[1].split(".")[0]) < 3:
        pytest.skip("needs OpenSSL 3")
    said = textwrap.dedent((folder / "README.txt").read_text("utf-8").split('Successfully":\n')[1].split("\nOnly")[0])

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", said], cwd=folder, capture_output=True, text=True, check=False)

    assert (run().returncode, run().stdout) == (0, "Signature Verified Successfully\n")
    path = folder / "statement.json"
    path.write_bytes(path.read_bytes().replace(b'"payable":"580.00"', b'"payable":"580.01"'))
    assert b"580.01" in path.read_bytes()
    assert run().returncode == 1


@pytest.mark.parametrize("content", ["[" * 10_000, '{"a": ' + "[" * 10_000, "[]"])
def test_deep_or_other_json_is_refused_as_a_signature_and_as_a_statement(tmp_path, key, content):
    statement, signature = tmp_path / "statement.json", tmp_path / "statement.sig"
    statement.write_text(content)
    signature.write_text(content)
    with pytest.raises(IntegrityError, match="is not a signature of a statement"):
        verify_statement(statement, key.public_key())
    signature.write_text(signature_text(key, content.encode()))
    with pytest.raises(IntegrityError, match="is signed, and is no statement"):
        verify_statement(statement, key.public_key())
