"""Progress of long work on standard error: a bar on a terminal, plain lines anywhere else."""

import sys
import time

from tqdm import tqdm

from mgc.util.errors import counted, printable

SECONDS_BETWEEN_LINES = 5.0


def say(line: str) -> None:
    """Print one line to standard error without breaking a running bar."""
    tqdm.write(printable(line), file=sys.stderr)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    return str(tqdm.format_interval(round(seconds))).removeprefix("0")


def duration(seconds: float) -> str:
    """Seconds in words, for an estimate: `40 seconds`, `14 minutes`."""
    return counted(round(seconds), "second") if seconds < 90 else counted(round(seconds / 60), "minute")


class Progress:
    """Counts towards a known total: `with Progress("decode", 400, "clips") as p: p.step()`.

    A terminal shows a tqdm bar. Elsewhere a line is printed at most every five seconds and once at the end,
    so that log files stay readable.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._note = ""
        self._start = self._last_line = time.monotonic()
        # Without a terminal the bar is disabled, and `step` prints lines.
        options = {"leave": False, "dynamic_ncols": True, "disable": not sys.stderr.isatty()}
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}", file=sys.stderr, **options)

    def __enter__(self) -> "Progress":
        return self

    def step(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units. `note`, such as a loss, is shown after the count."""
        self.done += count
        self._note = note
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        due = time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES
        if self._bar.disable and due and 0 < self.done < self.total:
            self._last_line = time.monotonic()
            say(self._line())

    def reach(self, done: int) -> None:
        """Advance to `done` units, at most to the total; fewer than before are ignored."""
        self.step(max(0, min(done, self.total) - self.done))

    def expect_less(self, count: int) -> None:
        """Lower the total by `count` units that turned out not to be needed."""
        self.total -= count
        self._bar.total = self.total
        self._bar.refresh()

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-3)
        left = seconds * (self.total - self.done) / self.done
        count = f"{self.what}: {self.done}/{self.total} {self.unit}, {self.done / seconds:.2f}/s"
        note = f", {self._note}" if self._note else ""
        return f"{count}, {clock(seconds)} elapsed, {clock(left)} left{note}"

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self.done:
            say(self._line())
