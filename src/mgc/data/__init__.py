"""Datasets known by name, Hugging Face datasets, folders, zips and manifests, all loaded by `load`."""

from mgc.data.catalogue import SOURCES, fetch, name_of, overview, scan
from mgc.data.clips import inspect_all
from mgc.data.dataset import Dataset, Excluded, Track, by_reason
from mgc.data.loading import describe, load
from mgc.data.splits import Fold, Split, make_split, subsample_training, unevaluated_classes

__all__ = [
    "SOURCES", "Dataset", "Excluded", "Fold", "Split", "Track", "by_reason", "describe", "fetch",
    "inspect_all", "load", "make_split", "name_of", "overview", "scan", "subsample_training",
    "unevaluated_classes",
]  # fmt: skip
