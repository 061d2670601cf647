"""`mgc data check`: faults in the audio, copies, and properties of the files that reveal the genre.

One pass over the audio, then arithmetic. Tracks that must not be used go into the quarantine file.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from mgc.config import DataRecipe
from mgc.data.catalogue import SOURCES, scan
from mgc.data.checking.fingerprint import near_duplicates
from mgc.data.checking.measure import Measurement, measure_all
from mgc.data.dataset import Dataset, Listing, Track, as_text, check_unique_ids
from mgc.data.loading import limit_tracks
from mgc.data.quarantine import BY_HAND, Quarantined, read_quarantine, write_quarantine
from mgc.data.splits import Fold, make_split
from mgc.evaluate import ARTIST_PREFIX
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

UNIFORM_SHARE = 0.9  # of tracks within a tenth of the median length: then clips were cut to a length
SHORTER = 0.95  # of the usual length: reported
MUCH_SHORTER = 0.5  # of the usual length: excluded
CLIPPED_SHARE = 0.001  # of the samples: reported
SILENT_SHARE = 0.5  # of the clip: reported
DC_OFFSET = 0.01  # of full scale: reported
RARE_BELOW_TRACKS = 8  # values of fewer tracks are pooled: that of a single track would "predict" its genre
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
    """Tracks that are the same recording."""

    track_ids: tuple[str, ...]
    how: str  # "same bytes", "same samples" or "near-duplicate"
    detail: str
    first: str | None  # counts as the original; None if labels differ: no track is used
    crosses_split: bool  # they are in several parts of the split
    action: str  # what follows


@dataclass(frozen=True)
class Property:
    """How well one property of the files predicts the genre, without the music."""

    name: str
    accuracy: float  # share of tracks whose genre is the most common one for their value
    chance: float  # share of the most common genre
    p_value: float  # of a chi-squared test of independence
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


class _Checked(NamedTuple):
    track: Track
    measured: Measurement
    known: str

    def finding(self, kind: str, detail: str, excluded: bool = True) -> Finding:
        return Finding(self.track.track_id, self.track.label, kind, detail, excluded, self.known)


def check(recipe: DataRecipe, workspace: Workspace) -> Check:
    """Check every track of `recipe.source`, and write the quarantine file; `MgcError` if it has no tracks."""
    listing = scan(recipe, workspace)
    file = workspace.quarantine_file(listing.name)
    before = read_quarantine(file)  # before the work, so that a damaged file is reported at once
    tracks = limit_tracks(listing.tracks, recipe)
    check_unique_ids(tracks)
    measured = measure_all([track.path for track in tracks], workspace.cache)
    known = SOURCES[recipe.source].known_bad if recipe.source in SOURCES else {}
    checked = {
        t.track_id: _Checked(replace(t, content=m.content, seconds=m.seconds), m, known.get(t.track_id, ""))
        for t, m in zip(tracks, measured, strict=True)
    }
    bad, usual = _bad_tracks(checked, before)
    good = {i: c for i, c in checked.items() if i not in bad}
    split = _split(listing, [c.track for c in good.values()], recipe)
    groups = [_copies(links, good, split) for links in _linked(good)]
    copies = tuple(group for group, _ in groups)
    bad |= {finding.track_id: finding for _, excluded in groups for finding in excluded}
    original = {i: g.first for g in copies if g.first for i in g.track_ids if i != g.first}
    rows = []
    for i in bad | original:
        t, f = checked[i].track, bad.get(i) or checked[i].finding("copy", f"a copy of {original[i]}", False)
        excluded, path = "yes" if f.excluded else "no", as_text(t.path)
        row = Quarantined(i, excluded, f.kind, f.detail, original.get(i, ""), t.label, path, t.content)
        rows.append(row)
    write_quarantine(file, checked, rows)
    after = read_quarantine(file)
    kept = {i for i in bad if bad[i].kind != "unusable" and after[i].word == "keep"}

    used = {i: c for i, c in checked.items() if i not in bad or i in kept}
    findings = [*bad.values(), *(finding for c in used.values() for finding in _remarks(c, usual))]
    missed = ", ".join(i for i in known if i in used)
    return Check(
        data=listing.name,
        tracks=len(checked) + len(listing.excluded),
        used=len(used),
        split=split.rule,
        findings=(
            *(Finding(bad.track_id, bad.label, "unusable", bad.reason, True) for bad in listing.excluded),
            *sorted(findings, key=lambda f: (not f.excluded, f.kind, f.track_id)),
        ),
        copies=copies,
        properties=_properties(used.values()),
        classes=_classes(checked, used),
        crossing=_crossing(used, split.folds),
        kept=tuple(sorted(kept)),
        notes=(
            *listing.notes,
            *([f"known to be faulty, but no fault was found: {missed}"] if missed else []),
            f"decisions for later commands: {file}",
        ),
    )


def _bad_tracks(
    checked: Mapping[str, _Checked], before: Mapping[str, Quarantined]
) -> tuple[dict[str, Finding], float]:
    """Tracks that cannot be used, and the seconds that clips were cut to; 0 if their lengths vary."""
    bad = {i: c.finding("unusable", c.measured.problem) for i, c in checked.items() if c.measured.problem}
    by_hand = {i: row for i, row in before.items() if row.kind == BY_HAND and row.applies_to(row.content)}
    bad |= {i: checked[i].finding(BY_HAND, row.reason) for i, row in by_hand.items() if i in checked}
    seconds = {i: c.measured.seconds for i, c in checked.items() if i not in bad}
    usual = float(np.median([*seconds.values()])) if seconds else 0.0
    if sum(abs(own - usual) <= 0.1 * usual for own in seconds.values()) < UNIFORM_SHARE * len(seconds):
        return bad, 0.0
    for i, own in seconds.items():
        if own < MUCH_SHORTER * usual:
            detail = f"much shorter than the others: {own:.1f} s, the median is {usual:.1f} s"
            bad[i] = checked[i].finding("short", detail)
    return bad, usual


def _remarks(checked: _Checked, usual: float) -> list[Finding]:
    """What is odd about a track that can be used all the same."""
    m = checked.measured
    found = [("header", text) for text in m.remarks]
    if m.seconds < SHORTER * usual:
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


def _linked(tracks: Mapping[str, _Checked]) -> Iterator[pd.DataFrame]:
    """Links between tracks that are the same recording, in connected groups."""
    from scipy.cluster.hierarchy import DisjointSet

    links: list[tuple[str, str, str, str]] = []
    first: dict[str, str] = {}
    for i, c in tracks.items():
        if (same := first.setdefault(c.measured.content, i)) != i:
            links.append((same, i, "same bytes", ""))
        elif (same := first.setdefault(c.measured.samples_hash, i)) != i:
            links.append((same, i, "same samples", ""))
    identical = {other for _, other, *_ in links}
    distinct = [i for i in tracks if i not in identical]  # one of several identical files is enough
    for pair in near_duplicates([tracks[i].measured.fingerprint for i in distinct]):
        differs = f"{100 * pair.bit_error_rate:.0f} % of the fingerprint bits differ"
        detail = f"{pair.seconds_overlap:.0f} s in common, {differs}"
        links.append((distinct[pair.first], distinct[pair.second], "near-duplicate", detail))
    groups = DisjointSet(tracks)
    for one, other, *_ in links:
        groups.merge(one, other)
    table = pd.DataFrame(links, columns=["one", "other", "how", "detail"])
    yield from (group for _, group in table.groupby(table["one"].map(groups.__getitem__), sort=False))


def _copies(
    links: pd.DataFrame, tracks: Mapping[str, _Checked], split: "_Split"
) -> tuple[Copies, list[Finding]]:
    """One group, and those of its tracks that are excluded: all if their labels differ; of a given split,
    those in other parts than the first."""
    ids = sorted({*links["one"], *links["other"]})
    how = max(links["how"], key=("same bytes", "same samples", "near-duplicate").index)
    detail = "; ".join(filter(None, links["detail"].unique()))
    # A published test set stays whole: if copies must be excluded, they are training tracks.
    order = {"test": 0, "val": 1, "train": 2, None: 3}
    one_label = len({tracks[i].track.label for i in ids}) == 1
    first = min(ids, key=lambda i: (order[tracks[i].track.split], i)) if one_label else None
    excluded = []
    for i in ids:
        others = first or ", ".join([other for other in ids if other != i][:3])
        text = f"{'a near-duplicate of' if how == 'near-duplicate' else f'the {how} as'} {others}"
        text += f" ({detail})" if detail and len(ids) == 2 else ""
        if first is None:
            text += ", which has another label: it is unknown which is right"
            excluded.append(tracks[i].finding("label conflict", text))
        elif split.is_given and split.separates(i, first):
            text += ", which is in another part of the given split"
            excluded.append(tracks[i].finding("copy", text))
    action = "all excluded: their labels differ"
    if first is not None:
        used = f"{first} is used, copies in other parts of the split are excluded"
        action = used if excluded else "kept in one part of the split"
    crosses = any(split.separates(ids[0], i) for i in ids[1:])
    return Copies(tuple(ids), how, detail, first, crosses, action), excluded


def _properties(tracks: Iterable[_Checked]) -> tuple[Property, ...]:
    """Technical properties, and loudness, which is never a confound: it is mastering and music both."""
    rows = [
        {
            "label": c.track.label,
            "sample rate": f"{c.measured.sample_rate_hz} Hz",
            "channels": f"{c.measured.channels}{', dual mono' if c.measured.is_dual_mono else ''}",
            "format": f"{c.measured.format} {c.measured.subtype}".strip(),
            "duration": f"{c.measured.seconds:.1f} s",
            "bandwidth": f"{c.measured.bandwidth_hz / 1000:.0f} kHz",
            "loudness": f"{3 * round(min(max(c.measured.rms_dbfs, -120.0), 300.0) / 3)} dBFS",
        }
        for c in tracks
    ]
    table = pd.DataFrame(rows)
    return tuple(_property(table[name], table["label"]) for name in table.columns[1:])


def _property(values: pd.Series, labels: pd.Series) -> Property:
    from scipy.stats import chi2_contingency

    common = values.map(values.value_counts()) >= RARE_BELOW_TRACKS
    table = pd.crosstab(values.where(common, "rare"), labels).to_numpy()  # (values, genres)
    accuracy, chance = (float(n) / len(values) for n in (table.max(axis=1).sum(), table.sum(axis=0).max()))
    p_value = float(chi2_contingency(table).pvalue) if min(table.shape) > 1 else 1.0
    name = str(values.name)
    confound = name != "loudness" and accuracy - chance >= CONFOUND_GAIN and p_value < CONFOUND_P
    by_class = {str(label): _usual(own) for label, own in values.groupby(labels)}
    return Property(name, accuracy, chance, p_value, confound, _usual(values), by_class)


def _usual(values: Collection[str]) -> str:
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{value} ({100 * count / len(values):.0f} %)" for value, count in ranked[:3]]
    return ", ".join(shown) + (f", {len(ranked) - 3} more" if len(ranked) > 3 else "")


class _Split(NamedTuple):
    """The folds that a run would use. A given split is taken as it is, even if a run would refuse it."""

    folds: tuple[Fold, ...]
    rule: str
    is_given: bool = False

    def separates(self, one: str, other: str) -> bool:
        """Whether two tracks are in different parts of any fold."""
        return any(fold.shared({one: "copies", other: "copies"}) for fold in self.folds)


def _split(listing: Listing, tracks: Sequence[Track], recipe: DataRecipe) -> _Split:
    if tracks and all(track.split for track in tracks) and recipe.split in ("auto", "given"):
        parts = (tuple(t.track_id for t in tracks if t.split == part) for part in ("train", "val", "test"))
        return _Split((Fold(*parts),), listing.split_authority, True)
    try:
        split = make_split(Dataset(listing.name, tuple(tracks)), recipe.split, recipe.split_seed)
    except MgcError as error:
        return _Split((), f"none: {error.what}")
    return _Split(split.folds, f"{split.name}: {split.authority}")


def _crossing(tracks: Mapping[str, _Checked], folds: Sequence[Fold]) -> dict[str, list[str]]:
    """Artists and albums that are in several parts of a fold."""
    owners = {
        "artists": {
            i: c.track.group.removeprefix(ARTIST_PREFIX) for i, c in tracks.items() if c.track.artist
        },
        "albums": {i: c.track.album for i, c in tracks.items() if c.track.album},
    }
    return {what: sorted({n for f in folds for n in f.shared(owner)}) for what, owner in owners.items()}


def _classes(checked: Mapping[str, _Checked], used: Collection[str]) -> dict[str, dict[str, int]]:
    tracks_of = defaultdict(list)
    for c in checked.values():
        tracks_of[c.track.label].append(c.track)
    return {
        label: {
            "tracks": len(own),
            "excluded": sum(track.track_id not in used for track in own),
            "artists": len({track.group for track in own if track.artist}),
            "albums": len({track.album for track in own if track.album}),
        }
        for label, own in sorted(tracks_of.items())
    }
