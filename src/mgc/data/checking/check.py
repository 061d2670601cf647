"""`mgc data check`: what is wrong with the music, before a number is published about it.

One pass over the audio (`examine_all`), then arithmetic. What must not be used goes into the quarantine file.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from mgc.config import DataRecipe
from mgc.data.catalogue import SOURCES, find
from mgc.data.checking.fingerprint import near_duplicates
from mgc.data.checking.measure import Examination
from mgc.data.checking.measured import examine_all
from mgc.data.dataset import Dataset, Track, as_text, joined
from mgc.data.listing import Listing
from mgc.data.loading import limited
from mgc.data.quarantine import BY_HAND, Quarantined, is_left_out, read_quarantine, write_quarantine
from mgc.data.splits import Fold, make_split
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

USUAL_LENGTH = (
    0.9  # share of the tracks that lie within a tenth of the median: then clips were cut to a length
)
SHORTER = 0.95  # of the usual length: told
FAR_SHORTER = 0.5  # of the usual length: left out
CLIPPED = 0.001  # of the samples: told
MOSTLY_SILENT = 0.5  # of the clip: told
RARE = 8  # values of fewer tracks are taken together
CONFOUND_POINTS = 0.10  # a technical property that tells so much more of the genre than guessing does
CONFOUND_P = 0.001


@dataclass(frozen=True)
class Finding:
    """One thing about one track. `known` is what the data set's own people say of it, where they do."""

    track_id: str
    label: str
    kind: str
    detail: str
    left_out: bool
    known: str = ""


@dataclass(frozen=True)
class Copies:
    """Tracks that are the same recording, and how that is known.

    `first` is the one that the others are copies of; None where their labels differ: nobody knows then which
    is right, and none is used. `across`: they stand on two sides of the split. `done`: what follows.
    """

    track_ids: tuple[str, ...]
    how: str  # "same bytes", "same samples" or "near-duplicate"
    detail: str
    first: str | None
    across: bool
    done: str


@dataclass(frozen=True)
class Property:
    """How much of the genre one property of the files tells, without a note being heard.

    told: share of tracks whose genre is that of most tracks of the same value. chance: share of the commonest
    genre. p_value: chi-squared test of independence.
    """

    name: str
    told: float
    chance: float
    p_value: float
    confound: bool
    usual: str  # the usual values, as a person reads them
    by_class: dict[str, str]


@dataclass(frozen=True)
class Check:
    """What `mgc data check` found; `tracks` were looked at, `used` remain."""

    data: str
    tracks: int
    used: int
    split: str
    findings: tuple[Finding, ...]
    copies: tuple[Copies, ...]
    properties: tuple[Property, ...]
    classes: dict[str, dict[str, int]]
    crossing: dict[str, list[str]]  # "artists" and "albums" on two sides of the split
    taken_back: tuple[str, ...]  # left out by the check, used because a person wrote "keep"
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


@dataclass(frozen=True)
class _Seen:
    """A track, what the look at its file told, and its fingerprint."""

    track: Track
    look: Examination
    heard: np.ndarray  # (n,) uint32

    def finding(self, kind: str, detail: str, left_out: bool = True) -> Finding:
        return Finding(self.track.track_id, self.track.label, kind, detail, left_out)


def check(recipe: DataRecipe, workspace: Workspace) -> Check:
    """Look at every track of `recipe.source`, tell what is wrong, and write the quarantine file.

    Raises:
        MgcError: there is no such data, or none of it can be used.
    """
    listing = find(recipe, workspace)
    before = read_quarantine(listing.name, workspace)  # a damaged file is told before the work, not after it
    seen = _look(limited(listing.tracks, recipe), workspace.cache)
    bad = {i: s.finding("unusable", s.look.problem) for i, s in seen.items() if s.look.problem}
    for i in {i for i, row in before.items() if _by_hand(row)} & {*seen}:
        bad[i] = seen[i].finding(BY_HAND, before[i].reason)
    usual = _usual_seconds([s.look.seconds for i, s in seen.items() if i not in bad])
    for i, s in seen.items():
        if i not in bad and (short := _short(s, usual)):
            bad[i] = s.finding("short", short)
    good = {i: s for i, s in seen.items() if i not in bad}

    folds, split, given = _split(listing, [s.track for s in good.values()], recipe)
    apart = _apart(folds)
    copies = _copies(good, apart)
    bad |= {f.track_id: f for group in copies for f in _copies_out(group, good, apart, given)}
    copy_of = {i: group.first for group in copies if group.first for i in group.track_ids if i != group.first}
    file = write_quarantine(listing.name, workspace, {*seen}, _rows(seen, bad, copy_of))
    after = read_quarantine(listing.name, workspace)
    kept = {i for i in bad if bad[i].kind != "unusable" and after[i].word == "keep"}

    used = {i: s for i, s in seen.items() if i not in bad or i in kept}
    findings = [*bad.values(), *(finding for s in used.values() for finding in _remarks(s, usual))]
    findings.sort(key=lambda f: (not f.left_out, f.kind, f.track_id))
    known = SOURCES[recipe.source].known_bad if recipe.source in SOURCES else {}
    return Check(
        data=listing.name,
        tracks=len(seen) + len(listing.excluded),
        used=len(used),
        split=split,
        findings=(
            *(Finding(bad.track_id, bad.label, "unusable", bad.reason, True) for bad in listing.excluded),
            *(replace(finding, known=known.get(finding.track_id, "")) for finding in findings),
        ),
        copies=tuple(copies),
        properties=tuple(_properties(used)),
        classes=_classes(seen, used),
        crossing=_crossing(used, folds),
        taken_back=tuple(sorted(kept)),
        notes=(
            *listing.notes,
            *_missed([i for i in known if i in used]),
            f"what later runs leave out or keep together: {file}",
        ),
    )


def _look(tracks: Sequence[Track], cache: Path) -> dict[str, _Seen]:
    twice = [i for i, count in Counter(track.track_id for track in tracks).items() if count > 1]
    if twice:
        message = f"{len(twice)} track ids stand more than once, first {twice[0]!r}"
        raise MgcError(message, fix="give every track an id of its own")
    looks = examine_all([track.path for track in tracks], cache)
    return {
        track.track_id: _Seen(replace(track, content=look.content, seconds=look.seconds), look, heard)
        for track, (look, heard) in zip(tracks, looks, strict=True)
    }


def _by_hand(row: Quarantined) -> bool:
    return row.kind == BY_HAND and is_left_out(row, row.content)


def _rows(seen: dict[str, _Seen], bad: dict[str, Finding], copy_of: dict[str, str]) -> Iterator[Quarantined]:
    """What is to be kept of each track that is left out, or that must stand beside another."""
    for i, s in seen.items():
        if i in bad or i in copy_of:
            kind, reason = (bad[i].kind, bad[i].detail) if i in bad else ("copy", f"a copy of {copy_of[i]}")
            out, path = "yes" if i in bad else "no", as_text(s.track.path)
            yield Quarantined(i, out, kind, reason, copy_of.get(i, ""), s.track.label, path, s.look.content)


def _missed(ids: list[str]) -> list[str]:
    return [f"known to be bad, but nothing was found: {', '.join(ids)}"] if ids else []


# ---- lengths ---------------------------------------------------------------------------------------------


def _usual_seconds(lengths: Sequence[float]) -> float | None:
    """The length that clips were cut to; None where they are whole tracks of their own lengths."""
    if not lengths:
        return None
    usual = float(np.median(lengths))
    near = np.abs(np.array(lengths) - usual) <= 0.1 * usual
    return usual if near.mean() >= USUAL_LENGTH else None


def _short(seen: _Seen, usual: float | None) -> str:
    if usual is None or seen.look.seconds >= FAR_SHORTER * usual:
        return ""
    return f"far shorter than the rest: {seen.look.seconds:.1f} s, the usual clip has {usual:.1f} s"


# ---- one track -------------------------------------------------------------------------------------------


def _remarks(seen: _Seen, usual: float | None) -> list[Finding]:
    """What is odd about a track that can be used all the same."""
    look = seen.look
    found = [("header", text) for text in look.remarks]
    if usual is not None and look.seconds < SHORTER * usual:
        found.append(("shorter", f"{look.seconds:.1f} s, the usual clip has {usual:.1f} s"))
    if look.misnamed:
        found.append(("wrong suffix", f"holds {look.format}, its name ends like {look.suffix_format}"))
    if look.clipped > CLIPPED:
        found.append(("clipped", f"{100 * look.clipped:.1f} % of the samples stand at the ceiling"))
    if look.silent > MOSTLY_SILENT:
        found.append(("mostly silent", f"{100 * look.silent:.0f} % below -60 dBFS"))
    if abs(look.dc_offset) > 0.01:
        found.append(("offset", f"the mean of the samples is {look.dc_offset:+.3f}, not 0"))
    return [seen.finding(kind, text, left_out=False) for kind, text in found]


# ---- copies ----------------------------------------------------------------------------------------------


def _copies(seen: dict[str, _Seen], apart: Callable[[str, str], bool]) -> list[Copies]:
    """Groups of tracks that are one recording, each with the one to keep."""
    links: list[tuple[str, str, str, str]] = []  # two ids, how, detail
    first: dict[str, str] = {}
    for i, s in seen.items():
        if (same := first.setdefault(s.look.content, i)) != i:
            links.append((same, i, "same bytes", ""))
        elif (same := first.setdefault(s.look.pcm, i)) != i:
            links.append((same, i, "same samples", ""))
    again = {b for _, b, *_ in links}
    distinct = [i for i in seen if i not in again]  # of identical files one is compared
    for pair in near_duplicates([seen[i].heard for i in distinct]):
        differs = f"{100 * pair.bit_error_rate:.0f} % of the fingerprint differs"
        detail = f"{pair.seconds_overlap:.0f} s in common, {differs}"
        links.append((distinct[pair.first], distinct[pair.second], "near-duplicate", detail))
    leader_of = joined((a, b) for a, b, *_ in links)
    groups = defaultdict(list)
    for link in dict.fromkeys(links):
        groups[leader_of(link[0])].append(link)
    return [_one_group(group, seen, apart) for group in groups.values()]


def _one_group(
    links: list[tuple[str, str, str, str]], seen: dict[str, _Seen], apart: Callable[[str, str], bool]
) -> Copies:
    ids = sorted({i for a, b, *_ in links for i in (a, b)})
    how = max((link[2] for link in links), key=("same bytes", "same samples", "near-duplicate").index)
    detail = "; ".join(dict.fromkeys(link[3] for link in links if link[3]))
    # A test set that others have published on stays whole; the copy to go is the one that is learned from.
    order = {"test": 0, "val": 1, "train": 2, None: 3}
    one_label = len({seen[i].track.label for i in ids}) == 1
    first = min(ids, key=lambda i: (order[seen[i].track.split], i)) if one_label else None
    across = any(apart(ids[0], i) for i in ids[1:])
    if first is None:
        done = "all left out: their labels differ"
    elif across and seen[first].track.split:
        done = f"{first} stays, what is learned from goes"
    else:
        done = "kept on one side from now on"
    return Copies(tuple(ids), how, detail, first, across, done)


def _apart(folds: Sequence[Fold]) -> Callable[[str, str], bool]:
    """Whether two tracks stand on two sides of any fold."""
    places = [
        {i: name for name, ids in (("train", f.train), ("val", f.val), ("test", f.test)) for i in ids}
        for f in folds
    ]
    return lambda a, b: any(a in p and b in p and p[a] != p[b] for p in places)


def _copies_out(
    group: Copies, seen: dict[str, _Seen], apart: Callable[[str, str], bool], given: bool
) -> Iterator[Finding]:
    """Those of a group that must not be used: all where their labels differ, and what a given split has on
    another side than the first."""
    for i in group.track_ids:
        if group.first is None:
            yield seen[i].finding("label conflict", _why(group, i))
        elif given and apart(i, group.first):
            yield seen[i].finding("copy", _why(group, i))


def _why(group: Copies, track_id: str) -> str:
    others = [i for i in group.track_ids if i != track_id]
    words = {"same bytes": "the same bytes as", "same samples": "the same samples as"}
    text = f"{words.get(group.how, 'a near-duplicate of')} {group.first or ', '.join(others[:3])}"
    if group.detail and len(group.track_ids) == 2:
        text += f" ({group.detail})"
    if group.first is None:
        return f"{text}, which has another label: nobody knows which is right"
    return f"{text}, on another side of the given split"


# ---- what tells the genre without the music --------------------------------------------------------------


def _properties(seen: dict[str, _Seen]) -> list[Property]:
    """Technical properties first; loudness is mastering and music both, so it is told and not blamed."""
    values: dict[str, Callable[[Examination], object]] = {
        "sample rate": lambda look: look.sample_rate_hz,
        "channels": lambda look: f"{look.channels}{', alike' if look.channels_alike else ''}",
        "format": lambda look: " ".join(word for word in (look.format, look.subtype) if word),
        "duration": lambda look: round(look.seconds, 1),
        "bandwidth": lambda look: round(look.bandwidth_hz / 1000),
        "loudness": lambda look: 3 * round(min(max(look.rms_dbfs, -120.0), 300.0) / 3),
    }
    labels = {i: s.track.label for i, s in seen.items()}
    return [
        _property(name, {i: value(s.look) for i, s in seen.items()}, labels)
        for name, value in values.items()
        if seen
    ]


def _property(name: str, value: dict[str, object], label: dict[str, str]) -> Property:
    pairs = Counter((value[i], label[i]) for i in value)
    labels = Counter(label.values())
    total = len(value)
    # Values that few tracks have are one value: of a single track the genre is "told" by any of them.
    of_value = Counter(value.values())
    merged: dict[object, Counter[str]] = defaultdict(Counter)
    for (v, own), count in pairs.items():
        merged[v if of_value[v] >= RARE else None][own] += count
    told = sum(max(counts.values()) for counts in merged.values()) / total
    chance = max(labels.values()) / total
    p_value = _independence(merged, sorted(labels))
    confound = name != "loudness" and told - chance >= CONFOUND_POINTS and p_value < CONFOUND_P
    usual = _usual(dict(of_value), name)
    by_class = {
        own: _usual({v: n for (v, other), n in pairs.items() if other == own}, name) for own in sorted(labels)
    }
    return Property(name, told, chance, p_value, confound, usual, by_class)


def _independence(counts: dict[object, Counter[str]], labels: Sequence[str]) -> float:
    """Chi-squared test on the table of values and genres; 1.0 where there is but one value or one genre."""
    from scipy.stats import chi2_contingency

    if len(counts) < 2 or len(labels) < 2:
        return 1.0
    return float(
        chi2_contingency(np.array([[row[label] for label in labels] for row in counts.values()])).pvalue
    )


def _usual(counts: dict[object, int], name: str) -> str:
    unit = {"sample rate": " Hz", "duration": " s", "bandwidth": " kHz", "loudness": " dBFS"}.get(name, "")
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    shown = [f"{v}{unit} ({100 * n / total:.0f} %)" for v, n in ranked[:3]]
    return ", ".join(shown) + (f", {len(ranked) - 3} more" if len(ranked) > 3 else "")


# ---- splits and classes ----------------------------------------------------------------------------------


def _split(
    listing: Listing, tracks: Sequence[Track], recipe: DataRecipe
) -> tuple[tuple[Fold, ...], str, bool]:
    """The folds that a run would have, their rule, and whether they are the source's own: these are taken as
    they stand, even where a run would refuse them."""
    if tracks and all(track.split for track in tracks) and recipe.split in ("auto", "given"):
        sides = {s: tuple(t.track_id for t in tracks if t.split == s) for s in ("train", "val", "test")}
        return (Fold(sides["train"], sides["val"], sides["test"]),), listing.split_authority, True
    try:
        split = make_split(Dataset(listing.name, tuple(tracks)), recipe.split, recipe.split_seed)
    except MgcError as error:
        return (), f"none: {error.what}", False
    return split.folds, f"{split.name}: {split.authority}", False


def _crossing(seen: dict[str, _Seen], folds: Sequence[Fold]) -> dict[str, list[str]]:
    """Artists and albums that stand on two sides of a fold."""
    found: dict[str, list[str]] = {}
    owners = {
        "artists": {i: s.track.group.removeprefix("artist: ") for i, s in seen.items() if s.track.artist},
        "albums": {i: s.track.album for i, s in seen.items() if s.track.album},
    }
    for what, owner in owners.items():
        crossing = set()
        for fold in folds:
            sides = [{owner[i] for i in ids if i in owner} for ids in (fold.train, fold.val, fold.test)]
            crossing |= sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
        found[what] = sorted(crossing)
    return found


def _classes(seen: dict[str, _Seen], used: dict[str, _Seen]) -> dict[str, dict[str, int]]:
    result = {}
    for label in sorted({s.track.label for s in seen.values()}):
        own = [s.track for s in seen.values() if s.track.label == label]
        result[label] = {
            "tracks": len(own),
            "left out": sum(track.track_id not in used for track in own),
            "artists": len({track.group for track in own if track.artist}),
            "albums": len({track.album for track in own if track.album}),
        }
    return result
