"""What a section says in sentences: how its rows are to be read, and what they show."""

from dataclasses import replace

from mgc.evaluate import Difference, Leak, paired
from mgc.runs.tables.comparing import Row, Section, System
from mgc.util.errors import counted

REPORTED = "Reported elsewhere"


def caption(section: Section) -> list[str]:
    """What must be known to read the rows, in sentences."""
    first = section.rows[0].system.record
    scores = first.evaluation
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    compared = [row for row in section.rows if row.p_holm is not None]
    told_apart = f" {section.told_apart}" if section.told_apart else ""
    lines = [
        f"{first.data}, {scores.n_tracks} tracks, split {first.split}: {first.split_authority}.{told_apart}",
        f"Intervals: 95 % bootstrap over {scores.n_groups} {unit}.",
    ]
    if compared:
        lines[-1] += (
            f" p: exact McNemar against the baseline, by Holm's correction for all systems compared with it "
            f"({len(compared)}); floors are none of these and get no p. Better or worse: p < 0.05 and the "
            "interval of the difference excludes 0."
        )
    if any(row.versus.tracks_needed for row in compared if row.versus):
        each = ", as many to an artist," if unit == "artists" else ""
        lines.append(
            f"Tracks needed: of this kind{each} to show a difference as large as this one, at least 1 point, "
            "by a single two-sided test at 5 % with a power of 80 %."
        )
    if all(_frozen_and_scratch(section)):
        lines.append(
            "Best of several: by accuracy on these very tracks, which flatters it; its p is multiplied by "
            "how many it is the best of, the points and their interval are as they are."
        )
    if any(len(row.system.records) > 1 for row in section.shown):
        lines.append(
            "Rows of several seeds show means over them; over seeds: the deviation of the accuracy from seed "
            "to seed, while the interval is over tracks. Their p: sign-flip test of the shares of seeds."
        )
    if any(row.system.record.reported for row in section.shown):
        lines.append(f"{REPORTED}: by others, on other tracks or splits; compared with nothing here.")
    if first.excluded:
        lines.append(f"{counted(len(first.excluded), 'track')} left out everywhere: could not be used.")
    rules = dict.fromkeys(row.system.record.split_authority for row in section.rows if row.leak)
    lines += [f"{rule}. Such rows stand against no other row." for rule in rules]
    if len(section.shown) < len(section.rows):
        lines.append(
            f"Shown are the {section.best} best of each kind and the baseline, {len(section.shown)} of "
            f"{len(section.rows)} systems; all of them count wherever a number of systems does."
        )
    if section.superseded:
        lines.append(f"{section.superseded} older runs of the same recipes are not shown.")
    return lines


def verdict_sentence(section: Section) -> str:
    """Is a frozen pretrained encoder better than a network from scratch here, by how much, is it real?

    One sentence. Of each side the system of best accuracy, with how many there were to choose from; p is
    multiplied by that number for the side that is ahead (Bonferroni: any of them might have been the best).
    A floor that beats either is named.
    """
    frozen, scratch = _frozen_and_scratch(section)
    if frozen and scratch:
        told = _encoder_against_network(frozen, scratch)
    else:
        sides = {
            "probe of a frozen pretrained encoder": frozen,
            "network from scratch": scratch,
        }
        gone = " and ".join(f"no {name}" for name, side in sides.items() if not side)
        here = "".join(f"; of the other side, {_best(side)}" for side in sides.values() if side)
        told = (
            f"whether a frozen pretrained encoder beats a network from scratch is open: {gone} is here{here}"
        )
    told += _floor_above(section, [side[0] for side in (frozen, scratch) if side])
    if section.rows[0].system.record.leaky:
        told = f"on a split that leaks, {told}"
    return f"{told[0].upper()}{told[1:]}."


def _encoder_against_network(frozen: list[System], scratch: list[System]) -> str:
    gain = paired(frozen[0].predictions, scratch[0].predictions)
    ahead = frozen if gain.accuracy_difference >= 0 else scratch
    p = min(1.0, len(ahead) * gain.p_value)
    gain = replace(gain, p_corrected=p)
    told = {
        "better": "a frozen pretrained encoder is better than a network from scratch here",
        "worse": "a frozen pretrained encoder is worse than a network from scratch here",
    }.get(gain.verdict, f"a frozen pretrained encoder against a network from scratch: {gain.words}")
    over = f" of {gain.n_groups} artists" if gain.interval_unit == "group" else ""
    numbers = f"{_points(gain)}, p = {p:.3g}, on {gain.n_tracks} tracks{over}"
    return f"{told}: {_best(frozen)} against {_best(scratch)}, {numbers}"


def _frozen_and_scratch(section: Section) -> tuple[list[System], list[System]]:
    """Probes of encoders that were trained on something, and networks that learn all they know here, each the
    best first, on the section's own split. Features made by hand and random twins are neither."""

    def best_first(path: str, pretrained: bool) -> list[System]:
        systems = [row.system for row in section.rows if row.leak is None and row.system.record.kind == path]
        side = [s for s in systems if _pretrained(s) == pretrained]
        return sorted(side, key=lambda s: -s.scores.accuracy)

    return best_first("probe", True), best_first("baseline", False)


def _pretrained(system: System) -> bool:
    # "nothing" of a feature made by hand, "nothing: random weights, seed 0" of a twin.
    return not str(system.record.representation_card.get("trained_on")).startswith("nothing")


def _best(side: list[System]) -> str:
    """`musicnn + logistic (0.762, the best of 5)`, by its place in front of the others."""
    number = f"the best of {len(side)}" if len(side) > 1 else "the only one"
    return f"{side[0].title} ({side[0].scores.accuracy:.3f}, {number})"


def _floor_above(section: Section, others: list[System]) -> str:
    floors = [row.system for row in section.rows if row.leak is None and row.system.record.kind == "floor"]
    if not floors:
        return ""
    floor = max(floors, key=lambda s: s.scores.accuracy)
    beaten = [system.title for system in others if system.scores.accuracy < floor.scores.accuracy]
    more = f", more than {' and '.join(beaten)}"
    return f"; the floor {floor.title} scores {floor.scores.accuracy:.3f}{more}" if beaten else ""


def _points(d: Difference | Leak) -> str:
    return f"{100 * d.accuracy_difference:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def verdicts(section: Section) -> list[str]:
    """A sentence for each system that was set against the baseline, floors apart, and for each leak."""
    sentences = []
    for row in section.shown:
        if row.versus is None or row.p_holm is None or section.baseline is None:
            continue
        ours, theirs = _sentence_name(row.system), _sentence_name(section.baseline)
        numbers = f"{_points(row.versus)}, p = {row.p_holm:.3g}"
        sentences.append(f"{ours} against {theirs}: {row.versus.words}, {numbers}.")
    return sentences + [_leak_sentence(row) for row in section.shown if row.leak]


def further_verdicts(section: Section) -> list[str]:
    """`verdicts`, or nothing if there is only one and `verdict_sentence` states the same comparison."""
    sentences = verdicts(section)
    one_of_each = [len(systems) for systems in _frozen_and_scratch(section)] == [1, 1]
    return [] if len(sentences) == 1 and one_of_each else sentences


def _sentence_name(system: System) -> str:
    return f"{system.title} from scratch" if system.record.kind == "baseline" else system.title


def _leak_sentence(row: Row) -> str:
    assert row.leak
    assert row.twin
    ours, honest = row.system.record, row.twin.record
    shown = "" if row.leak.low > 0 else ", no leak shown"
    learned = ""
    if honest.training_tracks:  # older records do not tell
        learned = f", {ours.training_tracks:.0f} against {honest.training_tracks:.0f} training tracks"
    return (
        f"LEAKY: {row.system.title} scores {_points(row.leak)} on the {ours.split} "
        f"split over {honest.split}{learned}{shown}."
    )
