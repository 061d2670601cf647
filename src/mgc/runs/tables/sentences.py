"""The sentences around a table: what the runs at hand answer, and how the rows are to be read."""

import re

from mgc.evaluate import MIN_SEEDS, Comparison
from mgc.runs.tables.comparing import BestPair, Row, Section, System
from mgc.util.errors import counted
from mgc.util.text import listed

REPORTED = "Reported elsewhere"
FEW_GROUPS = 30  # with fewer, captions warn
# What a section can answer, the main question first: pairs of categories, and the article of each.
QUESTIONS = (("frozen", "scratch"), ("frozen", "features"), ("scratch", "features"))
NOUNS = {
    "frozen": "a frozen pretrained encoder",
    "scratch": "a network trained from scratch on audio",
    "features": "a classifier of hand-made features",
    "untrained": "an untrained encoder",
    "floor": "the floor",
}


def verdict_sentence(section: Section) -> str:
    """The answer to the main question that the runs at hand can answer, with numbers and certainty."""
    return answers(section)[0]


def further_verdicts(section: Section) -> list[str]:
    """The other answers, and one sentence for each leak."""
    leaks = [_leak_sentence(row, row.twin) for row in section.shown if row.twin]
    return [*answers(section)[1:], *leaks]


def answers(section: Section) -> list[str]:
    """Which category of systems is best, where two have runs; else what is better than the baseline or floor.

    Each answer compares the best system of one category with the best of another. All pairs from which these
    were chosen are one family, so that p and interval account for the choice.
    """
    found = []
    for category, other in QUESTIONS:
        if pair := section.best_against(category, other):
            found.append(_answer(section, pair, NOUNS[category], NOUNS[other]))
    if not found and (pair := _best_variant(section)):
        found.append(_answer(section, pair, pair.one.title, pair.other.title))
    for category in ("frozen", "scratch", "features", "untrained"):
        if (pair := section.best_against(category, "floor")) and (
            not found or pair.comparison.difference < 0 or pair.comparison.verdict(section.margin) != "better"
        ):
            found.append(_answer(section, pair, NOUNS[category], NOUNS["floor"]))
    prefix = "On a split that leaks: " if section.first.leaky else ""
    found = found or [f"only {listed([s.title for s in section.systems])} at hand: nothing to compare"]
    return [f"{prefix}{_capitalised(sentence)}." for sentence in found]


def _capitalised(sentence: str) -> str:
    """With a capital letter, unless it starts with the name of a system."""
    plain = re.match(r"(an?|the|whether|no|only) ", sentence)
    return f"{sentence[0].upper()}{sentence[1:]}" if plain else sentence


def _best_variant(section: Section) -> BestPair | None:
    """The best system that is compared with the baseline, from the family of all of them."""
    compared = [row for row in section.rows if row.versus]
    if section.baseline is None or not compared:
        return None
    best = max(compared, key=lambda row: row.scores.accuracy)
    assert best.versus
    return BestPair(best.system, section.baseline, best.versus, (len(compared), 1))


def _answer(section: Section, pair: BestPair, one: str, other: str) -> str:
    result, first = pair.comparison, section.first.evaluation
    margin = f"{100 * section.margin:g}"
    verdict = {
        "better": f"{one} is better than {other}",
        "worse": f"{one} is worse than {other}",
        "equivalent": f"{one} and {other} are equivalent within {margin} points",
        "undecided": f"whether {one} is better than {other} is undecided",
        "one seed": f"no verdict on {one} against {other}",
    }[result.verdict(section.margin)]
    sides = [
        f"{system.title} ({system.scores.accuracy:.3f}{f', the best of {count}' if count > 1 else ''})"
        for system, count in zip((pair.one, pair.other), pair.candidates, strict=True)
    ]
    p = "p < 0.001" if result.p_value < 0.001 else f"p = {result.p_value:.3f}"
    family = f", corrected for {result.family_size} pairs" if result.family_size > 1 else ""
    by = "" if first.interval_unit == "track" else f" by {counted(result.n_groups, first.interval_unit)}"
    where = f"on {counted(result.n_tracks, 'track')}{by}"
    sentence = f"{verdict}: {sides[0]} against {sides[1]}, {points(result)}, {p}{family}, {where}"
    if result.verdict(section.margin) == "undecided":
        sentence += f"; {_power(section, result)}"
    return sentence + (f"; {_lacking_seeds(pair)}" if result.needs_seeds else "")


def _power(section: Section, result: Comparison) -> str:
    """What the data could show, and how much more of it the margin would need."""
    needed, unit = result.groups_needed(section.margin), section.first.evaluation.interval_unit
    margin = f"{100 * section.margin:g} points"
    more = (
        f"for {margin}, about {needed:,} {unit}s are needed"
        if needed
        else (f"{margin} cannot be shown with so few seeds and splits")
    )
    return f"a difference of {100 * result.detectable:.0f} points would be shown with a power of 80 %; {more}"


def _lacking_seeds(pair: BestPair) -> str:
    lacking = [system for system in (pair.one, pair.other) if system.outcomes.needs_seeds]
    have = " and ".join(f"{s.title} has {counted(len(s.records), 'seed')}" for s in lacking)
    record = lacking[0].record
    if record.kind == "baseline" and record.variant == "":
        network = "" if record.system == "cnn" else f" --network {record.system}"
        return f"{have}: run mgc baseline{network} --seeds {MIN_SEEDS}"
    return f"{have}: repeat its command (mgc runs show {record.run_id}) with --seeds {MIN_SEEDS}"


def caption(section: Section) -> list[str]:
    """What a reader must know about the rows, in sentences."""
    first, scores = section.first, section.first.evaluation
    compared = [row.versus for row in section.rows if row.versus]
    records = [record for system in section.systems for record in system.records]
    seeds = sorted({record.split_seed for record in records})
    rule = first.split_authority
    if len({record.split_hash for record in records}) > 1:
        rule = re.sub(r"seed \d+", f"seeds {', '.join(map(str, seeds))}", rule, count=1)
    units = f"{scores.interval_unit}s"
    lines = [f"{first.data}, {counted(scores.n_tracks, 'track')}, split {first.split}: {rule}."]
    if not section.distinct:
        last = max(record.created for record in records)
        lines[0] += (
            " Another table has the same dataset and number of tracks but other labels, audio, artists or "
            f"splits. Here: tracks {first.data_hash}, split {first.split_hash}, last run on {last[:10]}."
        )
    lines.append(
        f"Intervals of the accuracy: 95 %, bootstrap over {counted(scores.n_groups, scores.interval_unit)}"
        + (
            ", with the variation between seeds and splits."
            if any(r.system.runs_text for r in section.rows)
            else "."
        )
    )
    if compared and section.baseline:
        size = compared[0].family_size
        family = f"all {size} intervals hold together with 95 %, and p is corrected for as many comparisons"
        lines.append(
            f"Against {section.baseline.title}: {family if size > 1 else 'one comparison'} (sign flips of "
            f"{units}, step-down max-T). Floors are not compared."
        )
        lines.append(
            f"Verdict: better or worse if p < 0.05; equivalent if the difference is shown to be within "
            f"{100 * section.margin:g} points; else undecided. One seed: training is random and has fewer "
            f"than {MIN_SEEDS} seeds, so there is no verdict."
        )
        least, most = (f"{100 * of(result.detectable for result in compared):.0f}" for of in (min, max))
        reach = f"{least} to {most} points, depending on the systems," if least != most else f"{most} points"
        lines.append(f"A true difference of {reach} is shown with a power of 80 %.")
    if scores.n_groups < FEW_GROUPS:
        lines.append(
            f"There are only {counted(scores.n_groups, scores.interval_unit)}: intervals are corrected for "
            "that, but only large differences can be shown, and with fewer than 10 the 95 % are not reached."
        )
    if variation := _variation(section):
        lines.append(variation)
    if any(row.record.reported for row in section.shown):
        lines.append(f"{REPORTED}: by others, on other tracks or splits; not compared with anything here.")
    if first.excluded:
        lines.append(f"{counted(len(first.excluded), 'track')} excluded for every system: not usable.")
    rules = dict.fromkeys(row.record.split_authority for row in section.rows if row.twin)
    lines += [f"{rule}. Rows on this split are not compared with other rows." for rule in rules]
    if len(section.shown) < len(section.rows):
        lines.append(
            f"Shown: the {section.best} best systems of each kind and the baseline, {len(section.shown)} of "
            f"{len(section.rows)}. Corrections and counts cover all of them."
        )
    if section.superseded:
        older = counted(section.superseded, "older run")
        lines.append(f"{older} of the same recipes {'is' if section.superseded == 1 else 'are'} not shown.")
    return lines


def _variation(section: Section) -> str:
    """Standard deviations of the accuracy, the median over systems: of artists, seeds and splits."""
    scores = [row.scores for row in section.rows if row.twin is None and row.system.category != "floor"]
    unit = section.first.evaluation.interval_unit
    parts = []
    for what, values in (
        (f"the sample of {unit}s (standard error)", [score.group_error for score in scores]),
        ("the training seed (SD)", [score.seed_sd for score in scores]),
        ("the split (SD)", [score.split_sd for score in scores]),
    ):
        known = sorted(value for value in values if value is not None)
        if known:
            parts.append(f"{100 * known[len(known) // 2]:.1f} points from {what}")
    return f"Variation of the accuracy, the median over systems: {', '.join(parts)}." if parts[1:] else ""


def p_value_text(p: float) -> str:
    """`0.043`; `<0.001` for smaller ones."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def points(d: Comparison) -> str:
    """A difference of accuracies and its interval, in percentage points."""
    return f"{100 * d.difference:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def _leak_sentence(row: Row, honest: System) -> str:
    ours, theirs = row.record, honest.record
    if row.leak is None:
        return f"LEAKY: {row.title}: the {ours.split} and the {theirs.split} split test no track in common."
    shown = "" if row.leak.low > 0 else "; no leak shown"
    tracks = ""
    if theirs.training_tracks:  # 0 in older records
        tracks = f", with {ours.training_tracks:.0f} instead of {theirs.training_tracks:.0f} training tracks"
    seeds = "; a single seed" if row.leak.needs_seeds else ""
    common = f" on the {counted(row.leak.n_tracks, 'track')} that both test"
    return (
        f"LEAKY: {row.title} scores {points(row.leak)} on the {ours.split} split compared with "
        f"{theirs.split}{common}{tracks}{shown}{seeds}."
    )
