"""Notes, heads and cosignatures are those of public transparency logs; keys that anybody can sign with are refused."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from credit import proofs
from credit.proofs import (
    Manifest,
    Note,
    NoteSignature,
    ProofError,
    cosigned_at,
    key_id,
    read_heads,
    read_key,
    read_notes,
)

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETERS_NOTE = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
"""The example of golang.org/x/mod/sumdb/note."""

LOG = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
WITNESS = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
CHECKPOINT = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
"""  # noqa: E501
"""A real checkpoint of a public log, with cosignatures of public witnesses."""


def test_the_example_of_the_go_tools_is_read_checked_and_made_again():
    (note,) = read_notes(PETERS_NOTE)
    key = read_key(PETER)
    assert str(note) == PETERS_NOTE
    assert proofs.signer_of(note, [key]) is key
    assert key_id("PeterNeumann", key).hex() == "c74f20a3"
    secret = Ed25519PrivateKey.from_private_bytes(base64.b64decode(PETERS_SECRET)[1:])
    made = NoteSignature("PeterNeumann", key_id("PeterNeumann", secret.public_key()), secret.sign(note.text.encode()))
    assert str(Note(note.text, (made,))) == PETERS_NOTE
    changed = Note(note.text.replace("cryptography", "cryptographY"), note.signatures)
    assert proofs.signer_of(changed, [key]) is None


def test_a_checkpoint_of_a_public_log_is_a_head_with_its_cosignature():
    (head,) = read_heads(CHECKPOINT)
    assert (head.origin, head.size, len(head.root)) == ("arche2025h1.staging.ct.transparency.dev", 1432088532, 32)
    assert proofs.signer_of(head.note, [read_key(LOG)]) is not None
    assert cosigned_at(head.note, "remora.n621.de", read_key(WITNESS)) == 0x6A122120
    assert cosigned_at(head.note, "another", read_key(WITNESS)) is None
    other = Note(head.note.text.replace("1432088532", "1432088533"), head.note.signatures)
    assert cosigned_at(other, "remora.n621.de", read_key(WITNESS)) is None
    assert proofs.signer_of(other, [read_key(LOG)]) is None


def test_several_heads_of_a_file_are_read_in_order():
    assert [head.size for head in read_heads(f"{CHECKPOINT}\n{CHECKPOINT}")] == [1432088532] * 2


FIELD = 2**255 - 19
CURVE = -121665 * pow(121666, -1, FIELD)
ORDER = 2**252 + 27742317777372353535851937790883648493


def add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points of the curve (RFC 8032, 5.1.4)."""
    (x1, y1), (x2, y2) = one, other
    both = CURVE * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + both, -1, FIELD) % FIELD,
        (y1 * y2 + x1 * x2) * pow(1 - both, -1, FIELD) % FIELD,
    )


def times(number: int, point: tuple[int, int]) -> tuple[int, int]:
    found = (0, 1)
    for bit in f"{number:b}":
        found = add(found, found)
        found = add(found, point) if bit == "1" else found
    return found


def x_of(y: int) -> int | None:
    square = (y * y - 1) * pow(CURVE * y * y + 1, -1, FIELD) % FIELD
    for root in (
        pow(square, (FIELD + 3) // 8, FIELD),
        pow(square, (FIELD + 3) // 8, FIELD) * pow(2, (FIELD - 1) // 4, FIELD),
    ):
        if root * root % FIELD == square:
            return root % FIELD
    return None


def small_points() -> set[tuple[int, int]]:
    """The points of an order that divides 8: any point times the order of the large subgroup is one."""
    found = {times(ORDER, (x, y)) for y in range(2, 60) if (x := x_of(y)) is not None}
    return found | {((-x) % FIELD, y) for x, y in found}


def test_every_key_of_small_order_is_refused_in_every_spelling():
    points = small_points()
    assert len(points) == 8
    for x, y in points:
        for spelled in (y, y + FIELD):
            for sign in (0, 1):
                if spelled < 2**255:
                    raw = (spelled | sign << 255).to_bytes(32, "little")
                    with pytest.raises(ProofError, match="small order"):
                        read_key(base64.b64encode(raw).decode())
        assert x == 0 or times(8, (x, y)) == (0, 1)


@given(st.binary(min_size=32, max_size=32))
def test_keys_that_people_make_are_taken(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert read_key(proofs.key_text(key)).public_bytes_raw() == key.public_bytes_raw()


LINES = st.sampled_from([
    "", "log", "7", "old 3", "— log AAAAAAAA", "— log", "—  x", "credit.manifest.v1", "extra AA==", "index 0",
    "revoked a b", "c2sp.org/tlog-proof@v1", "U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=", "provider a", "\x00", "é",
])  # fmt: skip


@given(st.lists(LINES | st.text(max_size=12), max_size=12))
def test_garbage_raises_nothing_but_the_error_for_it(lines):
    for read in (read_notes, read_heads, proofs.read_extension, Manifest.read):
        with suppress(ProofError):
            read("\n".join(lines))


def test_a_manifest_is_read_as_it_was_written():
    keys = [proofs.key_text(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32).public_key()) for n in range(3)]
    said = Manifest(
        "ada", "2026-10", 2, "2026-11-02T09:00:00.000000Z", keys[1], ((keys[0], keys[1], "2026-10-01", "c2ln"),),
        ((keys[2], "2026-09-01"),), {"a.csv": "0" * 64, "check.py": "f" * 64},
    )  # fmt: skip
    assert Manifest.read(said.text) == said
    with pytest.raises(ProofError, match="none of its format"):
        Manifest.read(said.text + "note: pay another account\n")
