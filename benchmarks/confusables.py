"""Make `credit/fidelity/confusables.txt` of the Unicode Consortium's table: `python benchmarks/confusables.py FILE`.

FILE is https://www.unicode.org/Public/security/17.0.0/confusables.txt. We keep what `credit overlap` needs: letters and
digits of other scripts with the look of ASCII. A letter without a twin has that of its capital, as the small ve of
Cyrillic has B, so that upper and lower case fold alike.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

TARGET = Path(__file__).parents[1] / "credit" / "fidelity" / "confusables.txt"
HEADER = """\
# ASCII letters and digits, each with its twins in other scripts, one line each: made by benchmarks/confusables.py.
# From confusables.txt of {version}, Unicode Security Mechanisms for UTS #39, https://www.unicode.org/reports/tr39
# Copyright (C) 1991-2025 Unicode, Inc. Licensed under the Unicode License V3: see confusables.LICENSE beside this file.
"""
_LINE = re.compile(r"([0-9A-F]{4,6}) ;\t([0-9A-F ]+) ;\tMA")


def main(source: Path) -> None:
    """Write the table."""
    text = source.read_text("utf-8-sig")
    version = re.search(r"# Version: ([0-9.]+)", text)
    if version is None:
        raise SystemExit(f"{source} names no version")
    twins = {}
    for line in text.splitlines():
        if found := _LINE.match(line):
            twins[chr(int(found[1], 16))] = "".join(chr(int(code, 16)) for code in found[2].split())
    plain: dict[str, list[str]] = {}
    for char in sorted({char.casefold() for char in twins if len(char.casefold()) == 1}):
        if char.isascii() or unicodedata.normalize("NFKD", char) != char or not char.isalnum():
            continue  # compatibility forms need no table
        target = next((twin for one in (char, char.upper()) if (twin := ascii_of(twins.get(one, "")))), "")
        if target:
            plain.setdefault(target, []).append(char)
    lines = [f"{target} {''.join(chars)}\n" for target, chars in sorted(plain.items())]
    TARGET.write_text(HEADER.format(version=f"version {version[1]}") + "".join(lines), "utf-8")
    print(f"{sum(map(len, plain.values()))} twins of {len(plain)} letters and digits: {TARGET}")


def ascii_of(twin: str) -> str:
    """Return a twin without marks and case, if it is made of ASCII letters and digits; else nothing."""
    bare = "".join(one for one in unicodedata.normalize("NFKD", twin) if not unicodedata.combining(one)).casefold()
    return bare if bare.isascii() and bare.isalnum() else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
