"""Which systems a paper shows."""

def pair_of(content: Content) -> list[Entry]:
    """The best system from scratch and the best probe, those there are; else the best of all. Of probes those
    of encoders that have learned something come first."""
    probes = [entry for entry in content.systems if entry.path == "probe"]
    probes = [entry for entry in probes if _learned(entry.record)] or probes
    found = [content.best("baseline"), max(probes, key=lambda entry: entry.accuracy, default=None)]
    return [entry for entry in found if entry] or [max(content.systems, key=lambda entry: entry.accuracy)]


def _learned(record: RunRecord) -> bool:
    return record.representation_card.get("trained_on") not in ("nothing", None)


def shown_rows(content: Content) -> list[Entry]:
    """Rows of the main table: the best floors, the baseline, then by turns the best of each network and of
    each probed representation, up to MOST_ROWS; in the order of the whole table."""
    chosen = [entry for entry in content.systems if entry.path == "floor"][-3:]
    chosen += [content.baseline] if content.baseline else []
    for turn in zip_longest(_families(content, "probe"), _families(content, "baseline")):
        chosen += [entry for entry in turn if entry and entry not in chosen]
    titles = {entry.title for entry in chosen[:MOST_ROWS]}
    return [entry for entry in content.systems if entry.title in titles]


def _families(content: Content, path: str) -> list[Entry]:
    """The best of each network, or of each probed representation; the best family first."""
    best: dict[str, Entry] = {}
    for entry in sorted((e for e in content.systems if e.path == path), key=lambda entry: entry.accuracy):
        record = entry.record
        best[str(record.recipe.get("network")) if path == "baseline" else record.representation] = entry
    return sorted(best.values(), key=lambda entry: -entry.accuracy)


def _trained(content: Content) -> list[Entry]:
    """The best network from scratch, if its curves are there."""
    best = content.best("baseline")
    return [best] if best and best.curves is not None else []
