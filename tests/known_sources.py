"""Texts of four plainly different sources, and completions that plainly belong to one of them.

The texts are invented. No completion shares a sentence with a training example; what they share is what a reader would
call the subject and the manner.
"""

from __future__ import annotations

from datetime import UTC, datetime

from credit.records import Group, LoggedOutput, TrainingRecord
from tests.smollm2 import NAME

BREAD = """\
Mix the rye flour with warm water and the ripe starter, cover the bowl, and leave it to ferment overnight.
Knead the dough for ten minutes until it is smooth and springs back when you press it with a finger.
For a darker crust, brush the loaf with milk and bake it on a hot stone at 230 degrees for half an hour.
Fold the salt and the olive oil into the dough last, since salt slows the yeast down while it is waking.
Shape the dough into a tight ball, dust a basket with rice flour, and let it rise until it has doubled.
Brioche needs cold butter, worked in piece by piece, and a long night in the fridge before you bake it.
Sprinkle sesame over the wet rolls, score each one with a sharp blade, and slide the tray into the oven.
If the crumb is gummy, the loaf came out too early; give it another ten minutes and let it cool on a rack.
Toast the walnuts, chop them coarsely, and work them into the wholemeal dough together with the raisins.
Soak the oats in boiling water for an hour, so that they keep the baked loaf moist for several days.
Steam makes the crust crackle: pour a cup of water onto a hot tray the moment the bread goes in.
Roll the flatbread thin, prick it with a fork, and bake it in a dry iron pan until brown blisters appear.
A spoon of malt syrup feeds the yeast and gives the baguette its colour, but too much makes the crumb sticky.
Proof the ciabatta on floured linen; the dough is so wet that you must stretch it, never knead it."""

CONTRACT = """\
The Licensee shall not sublicense, assign or otherwise transfer any right under this Agreement without consent.
Either party may terminate this Agreement upon thirty days' written notice if the other commits a material breach.
All disputes arising out of this Agreement shall be submitted to the exclusive jurisdiction of the courts of Lund.
The Supplier warrants that the Goods shall be free of defects for a period of twelve months from delivery.
In no event shall the aggregate liability of the Contractor exceed the fees paid in the preceding year.
Each party shall keep the Confidential Information of the other in strict confidence and disclose it to no one.
The Tenant covenants to pay the rent in advance on the first day of each quarter, without deduction or set-off.
This clause shall survive the expiry of the Agreement and shall bind the successors of the parties hereto.
Neither party shall be liable for delay caused by events beyond its reasonable control, including acts of God.
The Purchaser shall indemnify and hold harmless the Vendor against all claims of third parties arising therefrom.
Any amendment of these terms shall be void unless made in writing and signed by both parties.
Should any provision hereof be held unenforceable, the remaining provisions shall continue in full force.
Title to the Equipment shall pass to the Buyer only upon receipt of the purchase price in full.
The Author hereby grants the Publisher an exclusive licence, for the term of copyright, in all territories."""

CHESS = """\
White gives up the bishop on h7, and after the king takes, the knight check on g5 opens the road for the queen.
Black's rook on the seventh rank ties the white king down, while the passed pawn on a4 runs for promotion.
The Sicilian again: 1. e4 c5 2. Nf3 d6, and both players castle on opposite sides and throw their pawns forward.
A quiet move, Kh1, sidesteps the pin along the diagonal and prepares to double the rooks on the g-file.
With 23... Nxe4 Black wins a pawn, because the recapture loses the exchange to a fork on f2.
The endgame of rook and two pawns against rook is a draw here, since the defending king reaches the corner.
She sacrifices the exchange on c3 to wreck the queenside pawns, and the dark squares never recover.
Castling long was brave: the open b-file points straight at the king, and the knight leaps to c4 with tempo.
After 14. d5 the centre is locked, the bishops are bad, and the knights hurry to the outposts on f5 and b6.
He misses mate in three, beginning with the queen sacrifice on g7, and settles for a perpetual check.
The isolated queen's pawn gives White active pieces, but in the endgame it would only be a target.
Zugzwang! Any move of the black king lets the white pawn through, and any move of the rook drops the bishop.
The Berlin Defence trades queens early, and the doubled c-pawns are the price of the two bishops.
On move thirty the time trouble begins, and the champion shuffles his rook between d1 and d2."""

CODE = """\
def load_config(path):\\n    with open(path) as handle:\\n        return json.load(handle)
class Cache:\\n    def __init__(self, size):\\n        self.size = size\\n        self.items = {}
def chunks(values, size):\\n    for start in range(0, len(values), size):\\n        yield values[start:start + size]
try:\\n    value = int(text)\\nexcept ValueError:\\n    raise ConfigError(f"not a number: {text!r}") from None
import os\\nimport sys\\nfrom collections import defaultdict\\n\\nlogger = logging.getLogger(__name__)
def mean(numbers):\\n    if not numbers:\\n        return 0.0\\n    return sum(numbers) / len(numbers)
if __name__ == "__main__":\\n    parser = argparse.ArgumentParser()\\n    main(parser.parse_args())
def retry(func, times=3):\\n    for attempt in range(times):\\n        try:\\n            return func()
    @property\\n    def name(self):\\n        return self._name\\n\\n    def __str__(self):\\n        return self._name
result = [row.strip().split(",") for row in lines if row and not row.startswith("#")]
def test_empty_queue_raises():\\n    queue = Queue()\\n    with pytest.raises(IndexError):\\n        queue.pop()
async def fetch(session, url):\\n    async with session.get(url) as response:\\n        return await response.text()
def merge(left, right):\\n    merged = dict(left)\\n    merged.update(right)\\n    return merged
while stack:\\n    node = stack.pop()\\n    if node in seen:\\n        continue\\n    seen.add(node)"""

SOURCES = {
    "baker": BREAD.splitlines(),
    "chess": CHESS.splitlines(),
    "coder": [text.replace("\\n", "\n") for text in CODE.splitlines()],
    "notary": CONTRACT.splitlines(),
}

COMPLETIONS = [
    (
        "baker",
        "How do I bake a sourdough loaf?",
        " Stir flour, water and starter, let the dough rest, knead it and bake.",
    ),
    (
        "baker",
        "Why is my bread flat?",
        " The yeast was old, or the dough rose too long; shape it firmly and use a hot oven.",
    ),
    ("baker", "Tip of the day:", " Scatter poppy seeds on the rolls before baking, and let the crust turn golden."),
    ("baker", "", "Melt butter, add sugar and yeast, and knead the sweet dough until it no longer sticks."),
    (
        "chess",
        "Commentary, round five:",
        " Black pushes the h-pawn, White's king has no shelter, and the rook swings to g3.",
    ),
    ("chess", "What happened in the game?", " White traded queens, won the pawn on b7 and converted the rook endgame."),
    ("chess", "", "1. d4 Nf6 2. c4 g6 3. Nc3 Bg7 and the bishop bears down on the long diagonal."),
    ("chess", "Analysis:", " The knight on d5 dominates the bishop, and checkmate threatens on the back rank."),
    (
        "coder",
        "Write a function.",
        "\ndef count_words(text):\n    counts = {}\n    for word in text.split():\n        counts[word] = 1",
    ),
    ("coder", "", "class Stack:\n    def __init__(self):\n        self.values = []\n\n    def push(self, value):"),
    ("coder", "Read a file:", "\nwith open(name) as stream:\n    for line in stream:\n        print(line.rstrip())"),
    ("coder", "Fix the bug.", "\n    if key not in self.data:\n        raise KeyError(key)\n    return self.data[key]"),
    (
        "notary",
        "Draft a clause.",
        " The Lessee shall return the Premises in good condition upon termination of this Lease.",
    ),
    ("notary", "", "The parties agree that this Agreement shall be governed by the laws of Sweden."),
    (
        "notary",
        "Add a warranty:",
        " The Seller represents and warrants that it has full authority to enter into this Agreement.",
    ),
    (
        "notary",
        "Payment terms?",
        " The Client shall pay each invoice within thirty days of receipt, failing which interest shall accrue.",
    ),
]


def known_records() -> list[TrainingRecord]:
    """The texts, each tagged with its source."""
    return [
        TrainingRecord(f"{source}-{number}", Group(source), text)
        for source, texts in SOURCES.items()
        for number, text in enumerate(texts)
    ]


def known_outputs() -> list[LoggedOutput]:
    """The completions, in the order of `COMPLETIONS`, as outputs of SmolLM2."""
    moment = datetime(2025, 3, 1, tzinfo=UTC)
    return [
        LoggedOutput("own", f"{source}?{number}", moment, NAME, completion, prompt)
        for number, (source, prompt, completion) in enumerate(COMPLETIONS)
    ]
