"""The README shows the committed tables, and names only commands and files that are there."""

import re
import runpy
from pathlib import Path

from typer.main import get_command

from mgc.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_tables_are_the_committed_ones() -> None:
    updated = runpy.run_path(str(ROOT / "scripts" / "update_readme.py"))["updated"]
    assert README.count("<!-- docs/tables/") == 2
    assert updated(README) == README


def test_its_options_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for group in ("data", "cache", "runs"):
        commands |= {f"{group} {name}": command for name, command in commands[group].commands.items()}
    lines = re.findall(r"^    mgc (data \w+|cache \w+|runs \w+|\w+)(.*?)(?: #.*)?$", README, re.MULTILINE)
    assert len(lines) > 10
    for name, rest in lines:
        known = {
            option
            for parameter in commands[name].params
            for option in [*parameter.opts, *parameter.secondary_opts]
        }
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (name, rest)


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
