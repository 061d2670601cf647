"""Text tables and escaping."""

import doctest

import pytest
from markdown_it import MarkdownIt

import mgc.util.text
from mgc.util.text import escape_latex, escape_markdown, listed, markdown_table, shortened, text_table

HOSTILE = [
    "<script>a()</script>", "a_b _c_ **d** `e`", "[x](y)", "[x]: y", "![x][y]", "a | b", "&lt; & &copy;",
    "- x", "--- x", "12. x", "3) x", "# x", "> x", "=== x", r"\x", "~~x~~",
]  # fmt: skip


def test_examples() -> None:
    failed, tried = doctest.testmod(mgc.util.text)
    assert tried and not failed


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_text_literally(text: str) -> None:
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for source in (escape_markdown(text), markdown_table([text], [[text]])):
        tokens = [
            t for token in markdown.parse(source) for t in token.children or [] if token.type == "inline"
        ]
        assert {token.type for token in tokens} <= {"text", "text_special"}
        shown = "".join(token.content for token in tokens)
        assert shown in (text, text + text)


@pytest.mark.parametrize("text", ["-0.1 [0.2, 0.3]", "+1.5", "0.762", "cnn_gru", "a < 0.001", "C&A"])
def test_plain_numbers_and_names_stay_readable(text: str) -> None:
    assert escape_markdown(text) == text


def test_latex_shows_text_literally() -> None:
    assert (
        escape_latex(r"50 % of $x_1 & {y}~\z")
        == r"50 \% of \$x\_1 \& \{y\}\textasciitilde{}\textbackslash{}z"
    )
    assert escape_latex("--- ''") == "-{}-{}- '{}'"
    assert escape_latex("é 音") == "é [U+97F3]"


def test_text_table_wraps_long_cells_and_underlines_the_header() -> None:
    lines = text_table(["name", "n"], [["a long name", 1], ["x\n", 2]], wrap=6, rule=True).splitlines()
    assert lines == ["name    n", "------  -", "a long  1", "name", "x\\n     2"]


def test_short_forms() -> None:
    assert shortened("a  long\nname", 7) == "a long…"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
