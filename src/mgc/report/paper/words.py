"""Other people's text, and numbers, as a paper words them."""

from collections.abc import Sequence

from mgc.evaluate import Difference, Leak
from mgc.util.errors import printable

MINUS = "\u2212"


def plain(text: object) -> str:
    """Other people's text as one line without control characters."""
    return printable(" ".join(str(text).split()))


def clipped(text: object, most: int) -> str:
    """Of a long text the beginning, `most` characters in all."""
    shown = plain(text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def few(items: Sequence[object], most: int = 4) -> str:
    """The first ones, and how many more."""
    shown = ", ".join(plain(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def points(v: Difference | Leak) -> str:
    """A difference of accuracies in points, and its interval."""
    numbers = [f"{100 * x:+.1f}".replace("-", MINUS) for x in (v.accuracy_difference, v.low, v.high)]
    return f"{numbers[0]} points [{numbers[1]}, {numbers[2]}]"


def percent(share: float) -> str:
    """In whole ones."""
    return f"{100 * share:.0f} %"
