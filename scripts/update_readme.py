"""Update the tables that the README shows: `make readme`.

The tables are made from the runs under `results/` and written to `docs/tables/`. From there they are copied
to the README, between `<!-- docs/tables/X.md -->` and `<!-- end -->`. Nothing else writes to `docs/tables/`.
"""

import re
from pathlib import Path

from mgc.config import CompareRecipe, DataRecipe
from mgc.runs.record import select_records
from mgc.runs.tables import compare_records, render
from mgc.workspace import Workspace

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- (docs/tables/\S+\.md) -->\n.*?<!-- end -->", re.DOTALL)
TABLES = {"demo": ("demo", None), "emotify-best": ("emotify", 4)}  # file: dataset, rows of each kind


def updated(readme: str) -> str:
    """`readme` with every marked block replaced by the file it names."""

    def block(match: re.Match[str]) -> str:
        table = (ROOT / match[1]).read_text(encoding="utf-8")
        return f"<!-- {match[1]} -->\n{table}<!-- end -->"

    return BLOCK.sub(block, readme)


def table_of(dataset: str, best: int | None) -> str:
    """The comparison of the runs on a dataset, as Markdown."""
    recipe = CompareRecipe(data=DataRecipe(source=dataset))
    records = select_records(recipe, Workspace(results=ROOT / "results"))
    return render(compare_records(records, best=best), "markdown") + "\n"


if __name__ == "__main__":
    for name, (dataset, best) in TABLES.items():
        table = table_of(dataset, best)  # raises if there are no runs, before the file is opened
        (ROOT / "docs" / "tables" / f"{name}.md").write_text(table, encoding="utf-8")
    file = ROOT / "README.md"
    file.write_text(updated(file.read_text(encoding="utf-8")), encoding="utf-8")
