"""Which systems a paper shows."""

from itertools import zip_longest

from mgc.report.content import Content, Entry
from mgc.runs.record import RunRecord

MOST_ROWS = 14  # of the table of systems


def pair_of(content: Content) -> list[Entry]:
    """The best system from scratch and the best probe, those there are; else the best of all. Of probes those
    of encoders that have learned something come first."""
    probes = [entry for entry in content.probes if learned(entry.record)] or content.probes
    found = [content.best("baseline"), *probes[:1]]
    return [entry for entry in found if entry] or [max(content.systems, key=lambda entry: entry.accuracy)]


def learned(record: RunRecord) -> bool:
    """Its representation has; features made by hand and twins with random weights have not."""
    return not str(record.representation_card.get("trained_on") or "nothing").startswith("nothing")


def shown_rows(content: Content) -> list[Entry]:
    """Rows of the main table: the best floors, the baseline, then by turns the best of each network and of
    each probed representation, up to MOST_ROWS; in the order of the whole table."""
    chosen = [entry for entry in content.systems if entry.kind == "floor"][-3:]
    chosen += [content.baseline] if content.baseline else []
    for turn in zip_longest(content.probes, _networks(content)):
        chosen += [entry for entry in turn if entry and entry not in chosen]
    titles = {entry.title for entry in chosen[:MOST_ROWS]}
    return [entry for entry in content.systems if entry.title in titles]


def _networks(content: Content) -> list[Entry]:
    """The best of each network, the best first."""
    own = sorted((e for e in content.systems if e.kind == "baseline"), key=lambda e: e.accuracy)
    best = {str(entry.record.recipe.get("network")): entry for entry in own}  # the last one of each counts
    return sorted(best.values(), key=lambda e: -e.accuracy)


def trained(content: Content) -> list[Entry]:
    """The best network from scratch, if its curves are there."""
    best = content.best("baseline")
    return [best] if best and best.curves is not None else []
