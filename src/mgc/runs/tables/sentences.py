"""The sentences below a table: how its rows are to be read, and what they show."""

from dataclasses import replace

from mgc.evaluate import Difference, Leak, paired
from mgc.runs.record import RunRecord
from mgc.runs.tables.comparing import Section, System
from mgc.util.errors import counted

REPORTED = "Reported elsewhere"


def caption(section: Section) -> list[str]:
    """What a reader must know about the rows, in sentences."""
    first, scores = section.first, section.first.evaluation
    unit = f"{scores.interval_unit}s"
    compared = [row for row in section.rows if row.p_holm is not None]
    lines = [
        f"{first.data}, {scores.n_tracks} tracks, split {first.split}: {first.split_authority}.",
        f"Intervals: 95 % bootstrap over {scores.n_groups} {unit}.",
    ]
    if not section.distinct:
        last = max(record.created for row in section.rows for record in row.system.records)
        lines[0] += (
            " Another table has the same dataset and number of tracks but other labels, audio, artists or "
            f"splits. Here: tracks {first.data_hash}, split {first.split_hash}, last run on {last[:10]}."
        )
    if compared:
        lines[-1] += (
            f" p is from the exact McNemar test against the baseline, Holm-corrected for the {len(compared)} "
            "systems that are compared with it; floors are not among them and have no p. Better or worse "
            "means that p < 0.05 and that the interval of the difference excludes 0."
        )
    if any(row.versus.tracks_needed for row in compared if row.versus):
        each = ", with as many tracks per artist," if unit == "artists" else ""
        lines.append(
            f"Tracks needed: how many tracks of this kind{each} a single two-sided test at the 5 % level "
            "needs to detect a difference as large as this one, but at least 1 point, with a power of 80 %."
        )
    if all(_frozen_and_scratch(section)):
        lines.append(
            "Best of several: selected by its accuracy on these same test tracks, which is optimistic. Its p "
            "is multiplied by the number of candidates; its difference and interval are not corrected."
        )
    if any(len(row.system.records) > 1 for row in section.shown):
        lines.append(
            "Rows of several seeds show means over seeds. Over seeds: the standard deviation of the accuracy "
            "between seeds; intervals are over tracks. Their p is from a sign-flip test on the share of "
            "seeds that are right about a track."
        )
    if any(row.record.reported for row in section.shown):
        lines.append(f"{REPORTED}: by others, on other tracks or splits; not compared with anything here.")
    if first.excluded:
        lines.append(f"{counted(len(first.excluded), 'track')} excluded for every system: not usable.")
    rules = dict.fromkeys(row.record.split_authority for row in section.rows if row.leak)
    lines += [f"{rule}. Rows on this split are not compared with other rows." for rule in rules]
    if len(section.shown) < len(section.rows):
        lines.append(
            f"Shown: the {section.best} best systems of each kind and the baseline, {len(section.shown)} of "
            f"{len(section.rows)}. Corrections and counts cover all of them."
        )
    if section.superseded:
        lines.append(f"{section.superseded} older runs of the same recipes are not shown.")
    return lines


def verdict_sentence(section: Section) -> str:
    """Whether a frozen pretrained encoder is better than a network from scratch, by how much, and with what
    certainty.

    The sentence compares the two systems of best accuracy and names how many candidates there were. p is
    multiplied by the number of candidates of the better side (Bonferroni: any of them might have been the
    best). A floor that is better than one of the two is named.
    """
    frozen, scratch = _frozen_and_scratch(section)
    if frozen and scratch:
        verdict = _encoder_against_network(frozen, scratch)
    else:
        sides = {"probe of a frozen pretrained encoder": frozen, "network from scratch": scratch}
        missing = " and ".join(f"no {name}" for name, systems in sides.items() if not systems)
        present = "".join(f"; best {name}: {_best(systems)}" for name, systems in sides.items() if systems)
        verdict = (
            "whether a frozen pretrained encoder is better than a network from scratch is unknown: there is "
            f"{missing}{present}"
        )
    verdict += _better_floor(section, [systems[0] for systems in (frozen, scratch) if systems])
    if section.first.leaky:
        verdict = f"on a split that leaks, {verdict}"
    return f"{verdict[0].upper()}{verdict[1:]}."


def _encoder_against_network(frozen: list[System], scratch: list[System]) -> str:
    gain = paired(frozen[0].predictions, scratch[0].predictions)
    ahead = frozen if gain.accuracy_difference >= 0 else scratch
    p = min(1.0, len(ahead) * gain.p_value)
    gain = replace(gain, p_corrected=p)
    verdict = {
        "better": "a frozen pretrained encoder is better than a network from scratch here",
        "worse": "a frozen pretrained encoder is worse than a network from scratch here",
    }.get(gain.verdict, f"a frozen pretrained encoder against a network from scratch: {gain.words}")
    by = f" by {gain.n_groups} {gain.interval_unit}s" if gain.interval_unit != "track" else ""
    numbers = f"{points(gain)}, p = {p:.3g}, on {gain.n_tracks} tracks{by}"
    return f"{verdict}: {_best(frozen)} against {_best(scratch)}, {numbers}"


def _frozen_and_scratch(section: Section) -> tuple[list[System], list[System]]:
    """Probes of pretrained encoders and networks from scratch, each best first. Probes of features and of
    untrained twins are neither."""
    probes = [system for system in _ranked(section, "probe") if is_pretrained(system.record)]
    return probes, [system for system in _ranked(section, "baseline") if not is_pretrained(system.record)]


def _ranked(section: Section, kind: str) -> list[System]:
    """The systems of a kind on the section's own split, best first."""
    systems = [row.system for row in section.rows if row.leak is None and row.record.kind == kind]
    return sorted(systems, key=lambda system: -system.scores.accuracy)


def is_pretrained(record: RunRecord) -> bool:
    """Whether the representation was trained before; features and untrained twins were not."""
    # "nothing" of a feature, "nothing: random weights, seed 0" of a twin.
    return not str(record.representation_card.get("trained_on") or "nothing").startswith("nothing")


def _best(systems: list[System]) -> str:
    """`musicnn + logistic (0.762, the best of 5)`."""
    number = f"the best of {len(systems)}" if len(systems) > 1 else "the only one"
    return f"{systems[0].title} ({systems[0].scores.accuracy:.3f}, {number})"


def _better_floor(section: Section, others: list[System]) -> str:
    floors = _ranked(section, "floor")
    score = floors[0].scores.accuracy if floors else 0.0
    beaten = [system.title for system in others if system.scores.accuracy < score]
    if not beaten:
        return ""
    return f"; the floor {floors[0].title} scores {score:.3f}, more than {' and '.join(beaten)}"


def points(d: Difference | Leak) -> str:
    """A difference of accuracies and its interval, in percentage points."""
    return f"{100 * d.accuracy_difference:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def verdicts(section: Section) -> list[str]:
    """One sentence for each system that is compared with the baseline, except floors, and for each leak."""
    sentences = []
    for row in section.shown:
        if row.leak and row.twin:
            sentences.append(_leak_sentence(row.system, row.leak, row.twin.record))
        elif row.versus and row.p_holm is not None and section.baseline:
            ours, theirs = _sentence_name(row.system), _sentence_name(section.baseline)
            numbers = f"{points(row.versus)}, p = {row.p_holm:.3g}"
            sentences.append(f"{ours} against {theirs}: {row.versus.words}, {numbers}.")
    return sentences


def further_verdicts(section: Section) -> list[str]:
    """`verdicts`, or nothing if there is only one and `verdict_sentence` states the same comparison."""
    sentences = verdicts(section)
    one_of_each = [len(systems) for systems in _frozen_and_scratch(section)] == [1, 1]
    return [] if len(sentences) == 1 and one_of_each else sentences


def _sentence_name(system: System) -> str:
    return f"{system.title} from scratch" if system.record.kind == "baseline" else system.title


def _leak_sentence(system: System, leak: Leak, honest: RunRecord) -> str:
    ours = system.record
    shown = "" if leak.low > 0 else "; no leak shown"
    tracks = ""
    if honest.training_tracks:  # 0 in older records
        tracks = f", with {ours.training_tracks:.0f} instead of {honest.training_tracks:.0f} training tracks"
    return (
        f"LEAKY: {system.title} scores {points(leak)} on the {ours.split} split compared with "
        f"{honest.split}{tracks}{shown}."
    )
