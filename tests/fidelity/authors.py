"""Four authors who share no words: text so plain that a tiny model learns to tell whose it is."""

from __future__ import annotations

import random

LEXICONS = {
    "baker": ["bread", "dough", "flour", "oven", "yeast", "crust", "knead", "bake", "rye", "loaf"],
    "sailor": ["ship", "harbour", "rope", "sail", "anchor", "wave", "storm", "deck", "mast", "tide"],
    "lawyer": ["clause", "party", "court", "claim", "notice", "breach", "remedy", "deed", "term", "lease"],
    "gardener": ["rose", "soil", "seed", "prune", "hedge", "compost", "bloom", "weed", "spade", "lawn"],
}


def sentence(author: str, seed: int, length: int = 12) -> str:
    rng = random.Random(f"{author}/{seed}")
    return " ".join(rng.choice(LEXICONS[author]) for _ in range(length))
