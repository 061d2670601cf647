"""The music: sets known by name, the hub, folders, zips and manifests, all through `load`."""

from mgc.data.catalogue import SOURCES, fetch, find, name_of, overview
from mgc.data.clips import inspect_all, load_windows
from mgc.data.dataset import Dataset, Excluded, Track, by_reason
from mgc.data.describe import describe, gaps
from mgc.data.listing import Archive, Listing, Source
from mgc.data.loading import load
from mgc.data.splits import Fold, Split, make_split, thinned

__all__ = [
    "SOURCES",
    "Archive",
    "Dataset",
    "Excluded",
    "Fold",
    "Listing",
    "Source",
    "Split",
    "Track",
    "by_reason",
    "describe",
    "fetch",
    "find",
    "gaps",
    "inspect_all",
    "load",
    "load_windows",
    "make_split",
    "name_of",
    "overview",
    "thinned",
]
