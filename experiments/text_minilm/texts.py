"""Makes the CSV of this experiment from Debian's packages fortunes and fortunes-min: text and category.

    apt-get install fortunes fortunes-min
    python experiments/text_minilm/texts.py texts.csv

As many texts of each category as the smallest has. Attributions ("-- Larry Wall") are taken off, since a name would
give the category away; texts of fewer than five words are left out, and so are those that two categories share.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from collections import Counter
from pathlib import Path

FOLDER = Path("/usr/share/games/fortunes")
CATEGORIES = ("computers", "food", "law", "linux", "literature", "perl", "science", "sports")
ATTRIBUTION = re.compile(r"\n\s*--.*", re.DOTALL)
FEWEST_WORDS = 5


def texts_of(category: str, folder: Path = FOLDER) -> list[str]:
    """The category's texts on one line each, without attribution, in the file's order, each once."""
    raw = (folder / category).read_text(encoding="utf-8", errors="replace")
    parts = (ATTRIBUTION.sub("", part) for part in re.split(r"^%$", raw, flags=re.MULTILINE))
    lines = (" ".join(part.split()) for part in parts)
    return list(dict.fromkeys(line for line in lines if len(line.split()) >= FEWEST_WORDS))


def write(path: Path, folder: Path = FOLDER) -> int:
    """Writes the CSV; the number of texts of each category."""
    found = {category: texts_of(category, folder) for category in CATEGORIES}
    shared = Counter(text for texts in found.values() for text in texts)
    found = {category: [text for text in texts if shared[text] == 1] for category, texts in found.items()}
    count = min(len(texts) for texts in found.values())
    draw = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        for category, texts in found.items():
            rows.writerows((text, category) for text in draw.sample(texts, count))
    return count


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(f"{write(Path(sys.argv[1]))} texts of each of {len(CATEGORIES)} categories")
