"""The error that a user can act on, and helpers for its wording."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError


def printable(text: str) -> str:
    """`text` on one line: control characters and invalid characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class MgcError(Exception):
    """An error that the user can fix: what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = self.what.split("\n")
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(map(printable, lines))


def reason_of(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return printable(f"{'.'.join(map(str, problem['loc'])) or 'JSON'}: {problem['msg']}")
    first, *_ = str(getattr(error, "strerror", None) or error).splitlines() or [""]
    return printable(first) or type(error).__name__


@contextmanager
def explaining(
    what: str, where: object, fix: str | None = None, errors: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """Turn `errors` into an `MgcError`: `what`, a colon, and the reason that the error gives."""
    try:
        yield
    except errors as error:
        raise MgcError(f"{what}: {reason_of(error)}", where=where, fix=fix) from None


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'musicnn'? ` for the most similar known word, then the list of all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(known)}"
