"""Which music there is: sets known by name, and how what is given with `--data` becomes a `Listing`."""

from dataclasses import replace
from pathlib import Path

from mgc.config import DataRecipe
from mgc.data.dataset import as_text
from mgc.data.fetch import check_digest, download, unpack
from mgc.data.listing import Archive, Listing, Source
from mgc.data.sources import demo, fma, gtzan, hub
from mgc.data.sources.local import (
    MANIFEST_SUFFIXES,
    from_folder,
    from_manifest,
    from_zip,
    name_of_file,
    name_of_manifest,
)
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean
from mgc.workspace import Workspace

HUB = "hf:"


def _demo(root: Path, recipe: DataRecipe) -> Listing:
    return from_manifest(demo.render(root / "demo"), recipe)


SOURCES: dict[str, Source] = {
    "demo": Source(
        about="real scores of six styles, rendered with General MIDI instruments",
        licence="scores: public domain, encodings as the music21 corpus states them",
        tracks=len(demo.STYLES) * demo.PIECES_PER_STYLE,
        genres=len(demo.STYLES),
        size="rendered in a minute, 80 MB",
        place="demo/tracks.csv",
        present=lambda root: (root / "demo" / "tracks.csv").exists(),
        listing=_demo,
    ),
    **fma.SOURCES,
    "gtzan": gtzan.SOURCE,
}


def find(recipe: DataRecipe, workspace: Workspace) -> Listing:
    """What `recipe.source` lists: a known name, `hf:...`, a folder, a zip of one, or a manifest.

    Raises:
        MgcError: there is no such thing, or it is not what it should be.
    """
    if recipe.source in SOURCES:
        known = SOURCES[recipe.source]
        listing = known.listing(workspace.data, recipe)
        return replace(listing, name=recipe.source, licence=known.licence)
    if recipe.source.startswith(HUB):
        return hub.listing(recipe.source, workspace.data, recipe)
    path = Path(recipe.source).expanduser()
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return from_manifest(path, recipe)
    if named := [key for key in DataRecipe.model_fields if key.endswith("_column") and getattr(recipe, key)]:
        what = f"{named[0]} = {getattr(recipe, named[0])!r}, but a folder has no columns"
        raise MgcError(what, where=path, fix="give a manifest, or leave --column away")
    if path.is_dir():
        return from_folder(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return from_zip(path, workspace)
    if path.is_file():
        raise MgcError(
            f"a manifest ends in one of {', '.join(MANIFEST_SUFFIXES)}",
            where=path,
            fix="give such a table, a folder root/<genre>/<file>, or a .zip of such a folder",
        )
    raise MgcError(
        f"there is no folder, manifest or data set {recipe.source!r}",
        where=path.absolute(),
        fix=did_you_mean(recipe.source, SOURCES),
    )


def name_of(recipe: DataRecipe) -> str:
    """The name that `find` gives the data set; the folder of its results. Opens nothing."""
    if recipe.source in SOURCES:
        return recipe.source
    if recipe.source.startswith(HUB):
        return hub.name_of(recipe.source)
    path = Path(recipe.source).expanduser()
    if path.is_dir():
        return as_text(path.resolve().name)
    return name_of_file(path) if path.suffix.lower() == ".zip" else name_of_manifest(path)


def overview(root: Path) -> str:
    """What `mgc data list` prints: what is known, what is here, its licence, size and place."""
    lines = [f"data root: {root.absolute()} (--data-root, $MGC_DATA_ROOT)"]
    for name, source in SOURCES.items():
        here = "here" if source.present(root) else "not here"
        lines += [
            "",
            f"{name}  [{here}]  {source.genres} genres, {source.tracks:,} tracks: {source.about}",
            f"  licence: {source.licence}",
            f"  size: {source.size}",
            f"  lies at: {root / source.place}",
        ]
        if source.archives:
            lines.append(f"  to get it: mgc data fetch {name}")
    lines += [
        "",
        "hf:owner/name, hf:path/to/folder  [hub]  any audio data set of the hub, or a saved copy of one",
        "path/to/music, path/to/music.zip, path/to/tracks.csv  [yours]  root/<genre>/<file>, or a manifest",
    ]
    return "\n".join(lines)


def fetch(name: str, root: Path, by_hand: Path | None = None) -> list[str]:
    """Download, check and unpack what belongs to a known set; what is there already is not fetched again.

    `by_hand` is an archive that was downloaded otherwise: it is checked and unpacked, and stays where it is.
    Returns what was done, in lines.

    Raises:
        MgcError: no such set, no network (with what to bring, from where, to which place), a wrong digest,
            no room, or an archive that cannot be unpacked.
    """
    if name not in SOURCES:
        raise MgcError(f"no data set is called {name!r}", fix=did_you_mean(name, SOURCES))
    source = SOURCES[name]
    if not source.archives:
        fix = f"it is made when it is first used: mgc data info --data {name}"
        raise MgcError(f"{name!r} needs no download", fix=fix)
    by_place = {archive.place: archive for archive in reversed(source.archives)}  # the first of each place
    if by_hand is None:
        return [line for a in reversed(by_place.values()) for line in _fetch_archive(name, a, root)]
    if not by_hand.is_file():
        fix = "name the file that you have brought: " + _hint(name, source.archives[0])
        raise MgcError("there is no such archive", where=by_hand.absolute(), fix=fix)
    same_name = [archive for archive in source.archives if archive.file == by_hand.name]
    for archive in same_name:
        try:
            check_digest(by_hand, archive.digest, by_hand=_hint(name, archive))
        except MgcError:
            if archive is same_name[-1]:
                raise
        else:
            return _unpack(by_hand, archive, root)
    if len(by_place) > 1:
        what = f"{by_hand.name!r} is none of the archives of {name}"
        files = " or ".join(archive.file for archive in by_place.values())
        raise MgcError(what, where=by_hand, fix=f"bring {files} under its own name")
    # Another copy of the same set, from another place: nobody has published what its bytes must be.
    other = Archive(by_hand.name, name, None, None)
    return [
        f"no digest is published for {by_hand.name}: not checked",
        *_unpack(by_hand, other, root, top=None),
    ]


def _fetch_archive(name: str, archive: Archive, root: Path) -> list[str]:
    marker = _marker(archive, root)
    if marker.exists() and marker.read_text(encoding="utf-8") == str(archive.digest):
        return [f"{archive.place}: there already"]
    if archive.url is None:
        raise MgcError(f"no link is known for {archive.file}", fix=_hint(name, archive))
    file = root / archive.file
    root.mkdir(parents=True, exist_ok=True)
    download(archive.url, file, None, archive.digest, by_hand=_hint(name, archive))
    lines = _unpack(file, archive, root)
    file.unlink()
    return [*lines, f"{file}: removed, all of it is unpacked"]


def _unpack(file: Path, archive: Archive, root: Path, top: str | None = "") -> list[str]:
    """Unpack so that `archive.place` appears; with `top` None all that the archive holds, into that place."""
    target = root / archive.place
    unpacked = unpack(file, target, None) if top is None else unpack(file, target.parent, target.name)
    if not unpacked.files:
        raise MgcError(f"nothing in this archive belongs to {archive.place}", where=file)
    marker = _marker(archive, root)
    files.write(marker, str(archive.digest))  # last: where it is, all is unpacked
    refused = [f"not unpacked: {member.name}: {member.reason}" for member in unpacked.refused]
    return [f"{target}: {len(unpacked.files)} files", *refused]


def _marker(archive: Archive, root: Path) -> Path:
    return root / archive.place / f".unpacked-{archive.file}"


def _hint(name: str, archive: Archive) -> str:
    source = SOURCES[name]
    where = f"download {archive.url}" if archive.url else f"bring {archive.file}"
    text = f"{where} on a machine with a network, and run: mgc data fetch {name} --from {archive.file}"
    return f"{text}; {source.about_archives}" if source.about_archives else text
