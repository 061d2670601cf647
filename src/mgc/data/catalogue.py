"""Datasets known by name, and how the value of `--data` becomes a `Listing`."""

from dataclasses import replace
from pathlib import Path

from mgc.config import DataRecipe
from mgc.data.dataset import Archive, Listing, Source, as_text
from mgc.data.fetch import check_digest, download, unpack
from mgc.data.sources import demo, fma, gtzan, hub, local
from mgc.data.sources.local import MANIFEST_SUFFIXES, from_folder, from_manifest, from_zip
from mgc.util import files
from mgc.util.errors import MgcError, counted, did_you_mean
from mgc.workspace import Workspace

HUB = "hf:"
SOURCES: dict[str, Source] = {
    "demo": Source(
        about="real scores of six styles, rendered with General MIDI instruments",
        licence="scores: public domain, encodings as the music21 corpus states them",
        tracks=len(demo.STYLES) * demo.PIECES_PER_STYLE,
        genres=len(demo.STYLES),
        size="rendered in a minute, 80 MB",
        place="demo/tracks.csv",
        present=lambda root: (root / "demo" / "tracks.csv").exists(),
        listing=lambda root, recipe: from_manifest(demo.render(root / "demo"), recipe),
    ),
    **fma.SOURCES,
    "gtzan": gtzan.SOURCE,
}


def scan(recipe: DataRecipe, workspace: Workspace) -> Listing:
    """The tracks of `recipe.source`: a known name, `hf:...`, a folder, a zip of one, or a manifest.

    Raises `MgcError` if the source does not exist or cannot be read.
    """
    if recipe.source in SOURCES:
        known = SOURCES[recipe.source]
        return replace(known.listing(workspace.data, recipe), name=recipe.source, licence=known.licence)
    if recipe.source.startswith(HUB):
        return hub.listing(recipe.source, workspace.data, recipe)
    path = Path(recipe.source).expanduser()
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return from_manifest(path, recipe)
    if named := [key for key in DataRecipe.model_fields if key.endswith("_column") and getattr(recipe, key)]:
        what = f"{named[0]} = {getattr(recipe, named[0])!r}, but a folder has no columns"
        raise MgcError(what, where=path, fix="give a manifest, or omit --column")
    if path.is_dir():
        return from_folder(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return from_zip(path, workspace)
    if path.is_file():
        what = f"not a manifest: the supported suffixes are {', '.join(MANIFEST_SUFFIXES)}"
        fix = "give such a table, a folder root/<genre>/<file>, or a .zip of such a folder"
        raise MgcError(what, where=path, fix=fix)
    what = f"there is no folder, manifest or dataset {recipe.source!r}"
    raise MgcError(what, where=path.absolute(), fix=did_you_mean(recipe.source, SOURCES))


def name_of(recipe: DataRecipe) -> str:
    """The name that `scan` gives the dataset, which is the folder of its results. Opens no file."""
    if recipe.source in SOURCES:
        return recipe.source
    if recipe.source.startswith(HUB):
        return hub.name_of(recipe.source)
    path = Path(recipe.source).expanduser()
    if path.is_dir():
        return as_text(path.resolve().name)
    is_zip = path.suffix.lower() == ".zip"
    return local.name_of_file(path) if is_zip else local.name_of_manifest(path)


def overview(root: Path) -> str:
    """The text of `mgc data list`: known datasets, whether they are available, licence, size and place."""
    lines = [f"data root: {root.absolute()} (--data-root, $MGC_DATA_ROOT)"]
    for name, source in SOURCES.items():
        state = "available" if source.present(root) else "not available"
        lines += [
            "",
            f"{name}  [{state}]  {source.genres} genres, {source.tracks:,} tracks: {source.about}",
            f"  licence: {source.licence}",
            f"  size: {source.size}",
            f"  place: {root / source.place}",
            *([f"  download: mgc data fetch {name}"] if source.archives else []),
        ]
    lines += [
        "",
        "hf:owner/name, hf:path/to/folder  [hub]  any audio dataset of the Hugging Face hub, or a saved copy",
        "path/to/music, path/to/music.zip, path/to/tracks.csv  [yours]  root/<genre>/<file>, or a manifest",
    ]
    return "\n".join(lines)


def fetch(name: str, root: Path, archive: Path | None = None) -> list[str]:
    """Download, verify and unpack the archives of a known dataset that are not complete: lines about it.

    `archive` is a file that was downloaded by other means: it is verified, unpacked and kept.

    Raises:
        MgcError: an unknown name, no network (with what to download elsewhere), a wrong digest, too little
            disk space, or an archive that cannot be unpacked.
    """
    if name not in SOURCES:
        raise MgcError(f"there is no dataset {name!r}", fix=did_you_mean(name, SOURCES))
    source = SOURCES[name]
    if not source.archives:
        fix = f"it is generated when it is first used: mgc data info --data {name}"
        raise MgcError(f"{name!r} needs no download", fix=fix)
    if archive is not None:
        return _unpack_given(name, source, archive, root)
    preferred = {each.place: each for each in reversed(source.archives)}  # the first of each place
    return [line for each in reversed(preferred.values()) for line in _download(name, each, root)]


def _unpack_given(name: str, source: Source, file: Path, root: Path) -> list[str]:
    if not file.is_file():
        fix = "give the path of the downloaded file: " + _hint(name, source.archives[0])
        raise MgcError("the archive does not exist", where=file.absolute(), fix=fix)
    for archive in (same := [archive for archive in source.archives if archive.file == file.name]):
        try:
            check_digest(file, archive.digest, by_hand=_hint(name, archive))
        except MgcError:
            if archive is same[-1]:
                raise
        else:
            return _unpack(file, archive, root)
    if len({archive.place for archive in source.archives}) > 1:
        names = " or ".join(dict.fromkeys(archive.file for archive in source.archives))
        fix = f"give {names}, under its original name"
        raise MgcError(f"{file.name!r} is not an archive of {name}", where=file, fix=fix)
    # A copy of the same dataset from another place, for which no digest is published.
    lines = _unpack(file, Archive(file.name, name, None, None), root, whole=True)
    return [f"no digest is published for {file.name}: not verified", *lines]


def _download(name: str, archive: Archive, root: Path) -> list[str]:
    marker = _marker(archive, root)
    if marker.exists() and marker.read_text(encoding="utf-8") == str(archive.digest):
        return [f"{archive.place}: up to date"]
    if archive.url is None:
        raise MgcError(f"no link is known for {archive.file}", fix=_hint(name, archive))
    file = root / archive.file
    root.mkdir(parents=True, exist_ok=True)
    download(archive.url, file, archive.digest, by_hand=_hint(name, archive))
    lines = _unpack(file, archive, root)
    file.unlink()
    return [*lines, f"{file}: removed after unpacking"]


def _unpack(file: Path, archive: Archive, root: Path, whole: bool = False) -> list[str]:
    """Unpack so that `archive.place` appears. `whole`: everything in the archive goes into that folder."""
    target = root / archive.place
    unpacked = unpack(file, target) if whole else unpack(file, target.parent, target.name)
    if not unpacked.files:
        raise MgcError(f"the archive contains no files of {archive.place}", where=file)
    files.write(_marker(archive, root), str(archive.digest))  # last: it marks that everything is unpacked
    refused = [f"not unpacked: {member}: {reason}" for member, reason in unpacked.refused]
    return [f"{target}: {counted(len(unpacked.files), 'file')}", *refused]


def _marker(archive: Archive, root: Path) -> Path:
    return root / archive.place / f".unpacked-{archive.file}"


def _hint(name: str, archive: Archive) -> str:
    where = f"download {archive.url}" if archive.url else f"get {archive.file}"
    text = f"{where} on a machine with a network, and run: mgc data fetch {name} --from {archive.file}"
    return f"{text}; {SOURCES[name].about_archives}".removesuffix("; ")
