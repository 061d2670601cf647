"""`mgc data check`: faults in the audio, copies, and properties of the files that reveal the genre.

One pass over the audio (`measure_all`), then arithmetic. Tracks that must not be used go into the quarantine
file.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mgc.config import DataRecipe
from mgc.data.catalogue import SOURCES, scan
from mgc.data.checking.fingerprint import near_duplicates
from mgc.data.checking.measure import Measurement, measure_all
from mgc.data.dataset import Dataset, Track, as_text, check_unique_ids
from mgc.data.listing import Listing
from mgc.data.loading import limit_tracks
from mgc.data.quarantine import BY_HAND, Quarantined, read_quarantine, write_quarantine
from mgc.data.splits import Fold, make_split
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

UNIFORM_SHARE = 0.9  # of tracks within a tenth of the median length: then clips were cut to a length
SHORTER = 0.95  # of the usual length: reported
MUCH_SHORTER = 0.5  # of the usual length: excluded
CLIPPED_SHARE = 0.001  # of the samples: reported
SILENT_SHARE = 0.5  # of the clip: reported
DC_OFFSET = 0.01  # of full scale: reported
RARE_BELOW_TRACKS = 8  # values of fewer tracks are pooled
CONFOUND_GAIN = 0.10  # accuracy above chance from which a technical property is a confound
CONFOUND_P = 0.001


@dataclass(frozen=True)
class Finding:
    """One fault of one track. `known` is what others have published about it."""

    track_id: str
    label: str
    kind: str
    detail: str
    excluded: bool
    known: str = ""


@dataclass(frozen=True)
class Copies:
    """Tracks that are the same recording.

    `first` is the track that counts as the original; None if labels differ: it is unknown which is right, and
    none is used. `crosses_split`: they are in several parts of the split. `action`: what follows.
    """

    track_ids: tuple[str, ...]
    how: str  # "same bytes", "same samples" or "near-duplicate"
    detail: str
    first: str | None
    crosses_split: bool
    action: str


@dataclass(frozen=True)
class Property:
    """How well one property of the files predicts the genre, without the music.

    `accuracy`: share of tracks whose genre is the most common one for their value. `chance`: share of the
    most common genre. `p_value`: of a chi-squared test of independence.
    """

    name: str
    accuracy: float
    chance: float
    p_value: float
    confound: bool
    usual: str  # the most common values, for people
    by_class: dict[str, str]


@dataclass(frozen=True)
class Check:
    """Result of `mgc data check`: of `tracks` that were checked, `used` can be used."""

    data: str
    tracks: int
    used: int
    split: str
    findings: tuple[Finding, ...]
    copies: tuple[Copies, ...]
    properties: tuple[Property, ...]
    classes: dict[str, dict[str, int]]
    crossing: dict[str, list[str]]  # "artists" and "albums" in several parts of the split
    kept: tuple[str, ...]  # excluded by the check, used because the quarantine file says "keep"
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The whole result."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


@dataclass(frozen=True)
class _Checked:
    track: Track
    measured: Measurement

    def finding(self, kind: str, detail: str, excluded: bool = True) -> Finding:
        return Finding(self.track.track_id, self.track.label, kind, detail, excluded)


def check(recipe: DataRecipe, workspace: Workspace) -> Check:
    """Check every track of `recipe.source`, and write the quarantine file.

    Raises:
        MgcError: the source does not exist, or none of its tracks can be used.
    """
    listing = scan(recipe, workspace)
    file = workspace.quarantine_file(listing.name)
    before = read_quarantine(file)  # before the work, so that a damaged file is reported at once
    checked = _measure(limit_tracks(listing.tracks, recipe), workspace.cache)
    bad, usual = _bad_tracks(checked, before)
    good = {i: c for i, c in checked.items() if i not in bad}
    split = _split(listing, [c.track for c in good.values()], recipe)
    copies = [_copies(links, good, split) for links in _linked(good)]
    bad |= {finding.track_id: finding for group in copies for finding in _excluded_copies(group, good, split)}
    original = {
        i: group.first for group in copies if group.first for i in group.track_ids if i != group.first
    }
    write_quarantine(file, {*checked}, _rows(checked, bad, original))
    after = read_quarantine(file)
    kept = {i for i in bad if bad[i].kind != "unusable" and after[i].word == "keep"}

    used = {i: c for i, c in checked.items() if i not in bad or i in kept}
    findings = [*bad.values(), *(finding for c in used.values() for finding in _remarks(c, usual))]
    findings.sort(key=lambda f: (not f.excluded, f.kind, f.track_id))
    known = SOURCES[recipe.source].known_bad if recipe.source in SOURCES else {}
    missed = [i for i in known if i in used]
    return Check(
        data=listing.name,
        tracks=len(checked) + len(listing.excluded),
        used=len(used),
        split=split.rule,
        findings=(
            *(Finding(bad.track_id, bad.label, "unusable", bad.reason, True) for bad in listing.excluded),
            *(replace(finding, known=known.get(finding.track_id, "")) for finding in findings),
        ),
        copies=tuple(copies),
        properties=tuple(_properties(used.values())),
        classes=_classes(checked, used),
        crossing=_crossing(used, split.folds),
        kept=tuple(sorted(kept)),
        notes=(
            *listing.notes,
            *([f"known to be faulty, but no fault was found: {', '.join(missed)}"] if missed else []),
            f"decisions for later commands: {file}",
        ),
    )


def _measure(tracks: Sequence[Track], cache: Path) -> dict[str, _Checked]:
    check_unique_ids(tracks)
    measured = measure_all([track.path for track in tracks], cache)
    return {
        track.track_id: _Checked(replace(track, content=m.content, seconds=m.seconds), m)
        for track, m in zip(tracks, measured, strict=True)
    }


def _rows(
    checked: Mapping[str, _Checked], bad: Mapping[str, Finding], original: Mapping[str, str]
) -> Iterator[Quarantined]:
    """The rows of tracks that are excluded, and of copies that stay in one part of the split."""
    for i, c in checked.items():
        if i in bad or i in original:
            kind, reason = (bad[i].kind, bad[i].detail) if i in bad else ("copy", f"a copy of {original[i]}")
            excluded, path = "yes" if i in bad else "no", as_text(c.track.path)
            content = c.measured.content
            yield Quarantined(i, excluded, kind, reason, original.get(i, ""), c.track.label, path, content)


# ---- single tracks ---------------------------------------------------------------------------------------


def _bad_tracks(
    checked: Mapping[str, _Checked], before: Mapping[str, Quarantined]
) -> tuple[dict[str, Finding], float | None]:
    """Tracks that cannot be used, and the length that clips were cut to, if they were."""
    bad = {i: c.finding("unusable", c.measured.problem) for i, c in checked.items() if c.measured.problem}
    for i, row in before.items():
        if i in checked and row.kind == BY_HAND and row.applies_to(row.content):
            bad[i] = checked[i].finding(BY_HAND, row.reason)
    usual = _usual_seconds([c.measured.seconds for i, c in checked.items() if i not in bad])
    for i, c in checked.items():
        if i not in bad and usual is not None and c.measured.seconds < MUCH_SHORTER * usual:
            detail = f"much shorter than the others: {c.measured.seconds:.1f} s, the median is {usual:.1f} s"
            bad[i] = c.finding("short", detail)
    return bad, usual


def _usual_seconds(lengths: Sequence[float]) -> float | None:
    """The length that clips were cut to; None if they are whole tracks of various lengths."""
    if not lengths:
        return None
    usual = float(np.median(lengths))
    near = np.abs(np.array(lengths) - usual) <= 0.1 * usual
    return usual if near.mean() >= UNIFORM_SHARE else None


def _remarks(checked: _Checked, usual: float | None) -> list[Finding]:
    """What is odd about a track that can be used all the same."""
    m = checked.measured
    found = [("header", text) for text in m.remarks]
    if usual is not None and m.seconds < SHORTER * usual:
        found.append(("shorter", f"{m.seconds:.1f} s, the median is {usual:.1f} s"))
    if m.is_misnamed:
        found.append(("wrong suffix", f"the format is {m.format}, the suffix that of {m.suffix_format}"))
    if m.clipped_share > CLIPPED_SHARE:
        found.append(("clipped", f"{100 * m.clipped_share:.1f} % of the samples are at the maximum level"))
    if m.silent_share > SILENT_SHARE:
        found.append(("mostly silent", f"{100 * m.silent_share:.0f} % below -60 dBFS"))
    if abs(m.dc_offset) > DC_OFFSET:
        found.append(("DC offset", f"the mean of the samples is {m.dc_offset:+.3f}, not 0"))
    return [checked.finding(kind, text, excluded=False) for kind, text in found]


# ---- copies ----------------------------------------------------------------------------------------------


class _Link(NamedTuple):
    one: str
    other: str
    how: str
    detail: str = ""


def _linked(tracks: Mapping[str, _Checked]) -> list[list[_Link]]:
    """Links between tracks that are the same recording, in connected groups."""
    from scipy.cluster.hierarchy import DisjointSet

    links: list[_Link] = []
    first: dict[str, str] = {}
    for i, c in tracks.items():
        if (same := first.setdefault(c.measured.content, i)) != i:
            links.append(_Link(same, i, "same bytes"))
        elif (same := first.setdefault(c.measured.samples_hash, i)) != i:
            links.append(_Link(same, i, "same samples"))
    identical = {link.other for link in links}
    distinct = [i for i in tracks if i not in identical]  # one of several identical files is enough
    for pair in near_duplicates([tracks[i].measured.fingerprint for i in distinct]):
        differs = f"{100 * pair.bit_error_rate:.0f} % of the fingerprint bits differ"
        detail = f"{pair.seconds_overlap:.0f} s in common, {differs}"
        links.append(_Link(distinct[pair.first], distinct[pair.second], "near-duplicate", detail))
    groups = DisjointSet(tracks)
    for link in links:
        groups.merge(link.one, link.other)
    by_root = defaultdict(list)
    for link in links:
        by_root[groups[link.one]].append(link)
    return list(by_root.values())


def _copies(links: Sequence[_Link], tracks: Mapping[str, _Checked], split: "_Split") -> Copies:
    ids = sorted({i for link in links for i in (link.one, link.other)})
    how = max((link.how for link in links), key=("same bytes", "same samples", "near-duplicate").index)
    detail = "; ".join(dict.fromkeys(link.detail for link in links if link.detail))
    # A published test set stays whole: if copies must be excluded, they are training tracks.
    order = {"test": 0, "val": 1, "train": 2, None: 3}
    one_label = len({tracks[i].track.label for i in ids}) == 1
    first = min(ids, key=lambda i: (order[tracks[i].track.split], i)) if one_label else None
    crosses = any(split.separates(ids[0], i) for i in ids[1:])
    if first is None:
        action = "all excluded: their labels differ"
    elif crosses and tracks[first].track.split:
        action = f"{first} is used, copies in other parts of the split are excluded"
    else:
        action = "kept in one part of the split"
    return Copies(tuple(ids), how, detail, first, crosses, action)


def _excluded_copies(group: Copies, tracks: Mapping[str, _Checked], split: "_Split") -> Iterator[Finding]:
    """All tracks of a group if their labels differ; of a given split, those in other parts than the first."""
    for i in group.track_ids:
        others = group.first or ", ".join([other for other in group.track_ids if other != i][:3])
        text = f"{'a near-duplicate of' if group.how == 'near-duplicate' else f'the {group.how} as'} {others}"
        if group.detail and len(group.track_ids) == 2:
            text += f" ({group.detail})"
        if group.first is None:
            detail = f"{text}, which has another label: it is unknown which is right"
            yield tracks[i].finding("label conflict", detail)
        elif split.is_given and split.separates(i, group.first):
            yield tracks[i].finding("copy", f"{text}, which is in another part of the given split")


# ---- properties that reveal the genre ----------------------------------------------------------------------


def _properties(tracks: Collection[_Checked]) -> list[Property]:
    """Technical properties, and loudness, which is never a confound: it is mastering and music both."""
    values: dict[str, tuple[str, Callable[[Measurement], object]]] = {
        "sample rate": (" Hz", lambda m: m.sample_rate_hz),
        "channels": ("", lambda m: f"{m.channels}{', dual mono' if m.is_dual_mono else ''}"),
        "format": ("", lambda m: f"{m.format} {m.subtype}".strip()),
        "duration": (" s", lambda m: round(m.seconds, 1)),
        "bandwidth": (" kHz", lambda m: round(m.bandwidth_hz / 1000)),
        "loudness": (" dBFS", lambda m: 3 * round(min(max(m.rms_dbfs, -120.0), 300.0) / 3)),
    }
    labels = [c.track.label for c in tracks]
    return [
        _property(name, [f"{value(c.measured)}{unit}" for c in tracks], labels)
        for name, (unit, value) in values.items()
        if tracks
    ]


def _property(name: str, values: Sequence[str], labels: Sequence[str]) -> Property:
    import pandas as pd
    from scipy.stats import chi2_contingency

    # Rare values are pooled: any value of a single track would "predict" its genre.
    counts = Counter(values)
    pooled = [value if counts[value] >= RARE_BELOW_TRACKS else "rare" for value in values]
    table = pd.crosstab(pd.Series(pooled), pd.Series(labels)).to_numpy()  # (values, genres)
    accuracy, chance = (float(n) / len(values) for n in (table.max(axis=1).sum(), table.sum(axis=0).max()))
    p_value = float(chi2_contingency(table).pvalue) if min(table.shape) > 1 else 1.0
    confound = name != "loudness" and accuracy - chance >= CONFOUND_GAIN and p_value < CONFOUND_P
    by_class = {
        own: _usual([value for value, label in zip(values, labels, strict=True) if label == own])
        for own in sorted({*labels})
    }
    return Property(name, accuracy, chance, p_value, confound, _usual(values), by_class)


def _usual(values: Sequence[str]) -> str:
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{value} ({100 * count / len(values):.0f} %)" for value, count in ranked[:3]]
    return ", ".join(shown) + (f", {len(ranked) - 3} more" if len(ranked) > 3 else "")


# ---- splits and classes ----------------------------------------------------------------------------------


class _Split(NamedTuple):
    """The folds that a run would use. A given split is taken as it is, even if a run would refuse it."""

    folds: tuple[Fold, ...]
    rule: str
    is_given: bool

    def separates(self, one: str, other: str) -> bool:
        """Whether two tracks are in different parts of any fold."""
        owner = {one: "copies", other: "copies"}
        return any(fold.shared(owner) for fold in self.folds)


def _split(listing: Listing, tracks: Sequence[Track], recipe: DataRecipe) -> _Split:
    if tracks and all(track.split for track in tracks) and recipe.split in ("auto", "given"):
        parts = (tuple(t.track_id for t in tracks if t.split == part) for part in ("train", "val", "test"))
        return _Split((Fold(*parts),), listing.split_authority, True)
    try:
        split = make_split(Dataset(listing.name, tuple(tracks)), recipe.split, recipe.split_seed)
    except MgcError as error:
        return _Split((), f"none: {error.what}", False)
    return _Split(split.folds, f"{split.name}: {split.authority}", False)


def _crossing(tracks: Mapping[str, _Checked], folds: Sequence[Fold]) -> dict[str, list[str]]:
    """Artists and albums that are in several parts of a fold."""
    owners = {
        "artists": {i: c.track.group.removeprefix("artist: ") for i, c in tracks.items() if c.track.artist},
        "albums": {i: c.track.album for i, c in tracks.items() if c.track.album},
    }
    return {what: sorted({n for f in folds for n in f.shared(owner)}) for what, owner in owners.items()}


def _classes(checked: Mapping[str, _Checked], used: Collection[str]) -> dict[str, dict[str, int]]:
    result = {}
    for label in sorted({c.track.label for c in checked.values()}):
        own = [c.track for c in checked.values() if c.track.label == label]
        result[label] = {
            "tracks": len(own),
            "excluded": sum(track.track_id not in used for track in own),
            "artists": len({track.group for track in own if track.artist}),
            "albums": len({track.album for track in own if track.album}),
        }
    return result
