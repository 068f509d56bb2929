"""What is shown to people reads as they write."""

from __future__ import annotations

import pytest

from credit.text import counted, invisible_character, printable


@pytest.mark.parametrize(("count", "said"), [(0, "0 outputs"), (1, "1 output"), (2, "2 outputs"), (11, "11 outputs")])
def test_a_count_agrees_with_its_noun(count, said):
    assert counted(count, "output") == said


@pytest.mark.parametrize(
    "code", [0x00, 0x1B, 0x9B, 0xAD, 0x61C, 0x200B, 0x200D, 0x200F, 0x202E, 0x2060, 0x2067, 0x3164, 0xFEFF, 0xE0041]
)
def test_what_nobody_sees_is_named_and_replaced(code):
    text = f"Ann{chr(code)}a"
    assert invisible_character(text) == f"U+{code:04X}"
    assert printable(text) == f"Ann<U+{code:04X}>a"


@pytest.mark.parametrize(
    "name",
    [
        "Zoë Ångström",
        "Анна",
        "安娜",
        "アンナ",
        "한나",
        "أنّا",
        "חנה",
        "अन्ना",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "क्\u200dष",
        "O'Néill & Söhne 1",
    ],
)
def test_letters_of_all_scripts_stay(name):
    assert invisible_character(name) is None
    assert printable(name) == name
