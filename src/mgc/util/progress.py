"""Progress of long work: a bar on a terminal, plain lines anywhere else, always on standard error."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

from mgc.util.errors import printable

SECONDS_BETWEEN_LINES = 5.0


def say(line: str) -> None:
    """Print one line to standard error, without breaking a running bar."""
    tqdm.write(printable(line), file=sys.stderr)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Counts towards a known total: `with Progress("decode", 400, "clips") as p: p.step()`.

    On a terminal this is a tqdm bar; elsewhere a line at most every five seconds and one at the end, so
    that a log file stays readable. `note` is shown after the count (a loss, an accuracy).
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self.note = ""
        self._start = self._last_line = time.monotonic()
        self._bar = (
            tqdm(total=total, desc=what, unit=f" {unit}", file=sys.stderr, leave=False, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "Progress":
        return self

    def step(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units done."""
        self.done += count
        self.note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self._last_line = time.monotonic()
            say(self._line())

    def reach(self, done: int) -> None:
        """Advance to `done` units, at most to the total; fewer than before are ignored."""
        self.step(max(0, min(done, self.total) - self.done))

    def expect_less(self, count: int) -> None:
        """Lower the total: `count` units will not be needed."""
        self.total -= count
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.refresh()

    def _line(self) -> str:
        seconds = time.monotonic() - self._start
        rate = self.done / seconds if seconds > 0 else 0.0
        left = f", {clock((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        note = f", {self.note}" if self.note else ""
        speed = f"{rate:.1f}/s" if rate >= 0.1 else f"{seconds / max(self.done, 1):.0f} s each"
        return f"{self.what}: {self.done}/{self.total} {self.unit}, {speed}{left}{note}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.done:
            say(f"{self._line()}, took {clock(time.monotonic() - self._start)}")
