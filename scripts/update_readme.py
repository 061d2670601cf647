"""Put the committed tables into the README: `python scripts/update_readme.py`.

A table stands between `<!-- results/X/table.md -->` and `<!-- end -->`.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- (results/\S+\.md) -->\n.*?<!-- end -->", re.DOTALL)


def updated(readme: str) -> str:
    """`readme` with every marked block replaced by the file it names."""

    def block(match: re.Match[str]) -> str:
        table = (ROOT / match[1]).read_text(encoding="utf-8")
        return f"<!-- {match[1]} -->\n{table}<!-- end -->"

    return BLOCK.sub(block, readme)


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(updated(file.read_text(encoding="utf-8")), encoding="utf-8")
