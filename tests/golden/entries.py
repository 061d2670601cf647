"""Everything that has a revision, with a small computation whose outputs are stored beside this file.

An output that changes without a raised revision fails `tests/test_golden.py`. Nothing here depends on how a
library draws random numbers: clips and the weights of tiny encoders come from NumPy's frozen `RandomState`.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from sklearn.metrics import log_loss

from mgc.audio import effects
from mgc.audio.effects import EFFECTS, Alteration
from mgc.config import AugmentRecipe, BaselineRecipe, ProbeRecipe, TrainRecipe
from mgc.data import Dataset, Track, make_split
from mgc.data import splits as splitting
from mgc.probing import fitting
from mgc.probing.heads import HEADS, fit_strengths, probabilities_of, weighted
from mgc.representations import ModelSpec, Representation, open_representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.card import PIPELINE_REVISION, Layer
from mgc.representations.encoders.efficientat import published as efficientat
from mgc.representations.encoders.families import FAMILIES
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.representations.encoders.musicnn import musicnn
from mgc.representations.encoders.transformers_audio import published, random_twin
from mgc.representations.pooling import represent
from mgc.runs.record import NAMES_ONLY
from mgc.training import loop
from mgc.training.augment import Augment
from mgc.training.loop import TrackSet, predict, train
from mgc.training.networks import NETWORKS, make_network
from mgc.util.devices import make_accelerator
from mgc.workspace import Workspace

FOLDER = Path(__file__).parent
CPU = torch.device("cpu")
SAMPLED = 200  # values of an output that are stored
Outputs = dict[str, np.ndarray]


class NotHereError(Exception):
    """The weights of an entry are not on this machine."""


@dataclass(frozen=True)
class Entry:
    """`revisions` are those that its numbers depend on; `compute` gets an empty folder."""

    revisions: tuple[int, ...]
    compute: Callable[[Path], Outputs]
    tolerance: float = 2e-3  # relative to the value plus `floor` times the typical magnitude; 0: exact
    floor: float = 0.1


# ---- the data ---------------------------------------------------------------------------------------------


def clips(folder: Path) -> list[Path]:
    """Three clips at different sample rates: a chord, a pulse of noise, a stereo sweep."""
    files = []
    for number, (rate, seconds) in enumerate(((22_050, 1.6), (16_000, 1.1), (44_100, 2.3))):
        t = np.arange(int(rate * seconds)) / rate
        noise = np.random.RandomState(number).standard_normal(len(t))
        wave = [
            sum(np.sin(2 * np.pi * 220 * k * t + k) / k for k in (1, 2, 3, 5)),
            noise * (np.floor(t * 6) % 2),
            np.stack([np.sin(2 * np.pi * (200 + 900 * t) * t), np.sin(2 * np.pi * 330 * t)], axis=1),
        ][number]
        wave = 0.2 * wave + 0.01 * noise[(slice(None),) + (None,) * (wave.ndim - 1)]
        files.append(folder / f"{number}.wav")
        soundfile.write(files[-1], wave, rate, subtype="FLOAT")
    return files


def table(tracks: int = 48, classes: int = 3, groups: int = 16) -> Dataset:
    """Tracks without files: `groups` artists, of which each has tracks of one class."""
    rows = [
        Track(
            f"track{n:02}", Path("none"), f"genre{n % groups % classes}", f"artist{n % groups}",
            content=f"{n:032x}",
        )
        for n in range(tracks)
    ]  # fmt: skip
    return Dataset("golden", tuple(rows))


def vectors(count: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, width) around one centre for each of three classes, and the class numbers."""
    random = np.random.RandomState(seed)
    labels = np.arange(count) % 3
    centres = np.random.RandomState(9).standard_normal((3, width))
    return (centres[labels] + 0.9 * random.standard_normal((count, width))).astype(np.float32), labels


# ---- representations --------------------------------------------------------------------------------------


def arrays_of(card: Representation, files: list[Path]) -> Outputs:
    """The array of each clip."""
    arrays = represent(card, card.encoder(CPU), files, CPU, batch_size=2)
    outputs = {}
    for number, array in arrays:
        if card.pooled and len(array) == 3:  # the deviation of a single window is zero but for rounding
            array[1][array[1] < 1e-5 * np.abs(array[2])] = 0.0
        outputs[f"clip{number}"] = array.astype(np.float32)
    return outputs


def representation(spec: ModelSpec, folder: Path, where: Path | None = None) -> Outputs:
    """Of a feature, or of an encoder in the folder `where`."""
    name = str(where) if where else spec.name
    workspace = Workspace(cache=folder / "cache")
    card = open_representation(replace(spec, name=name), workspace)
    return arrays_of(card, clips(folder))


def tiny(name: str, folder: Path) -> Outputs:
    """Of a checkpoint with a few thousand weights, all overwritten by numbers of a fixed generator."""
    import transformers
    from test_transformers_audio import FAMILIES as TINY

    transformers.utils.logging.disable_progress_bar()
    model, front = TINY[name].make(transformers)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            random = np.random.RandomState(zlib.crc32(key.encode()))
            values = 0.15 * random.standard_normal(tuple(weight.shape)) + (weight.dim() == 1)
            weight.copy_(torch.from_numpy(np.asarray(values)))
    for part in (model, front):
        part.save_pretrained(folder / "encoder")
    return representation(ModelSpec("tiny"), folder, folder / "encoder")


def shared(name: str, folder: Path) -> Outputs:
    """Of an encoder that lies beside the repository on some machines."""
    from conftest import SHARED

    if not (SHARED / "weights" / name).is_dir():
        raise NotHereError(f"needs {name} in ../shared/weights")
    return representation(ModelSpec(name), folder, SHARED / "weights" / name)


def altered(effect: str, value: float, folder: Path) -> Outputs:
    """Of an effect, on the stereo clip played five times: 11.5 s."""
    source, target = folder / "long.wav", folder / "altered.caf"
    samples, rate = soundfile.read(clips(folder)[2])
    soundfile.write(source, np.tile(samples, (5, 1)), rate, subtype="FLOAT")
    Alteration(effect, value).write(source, "5" * 32, target)
    samples, _ = soundfile.read(target, dtype="float32")
    return {"samples": samples}


# ---- what is trained --------------------------------------------------------------------------------------


def spectrograms(count: int, seed: int, frames: int, bands: int, lowest: float = -60.0) -> TrackSet:
    """Two classes with energy in the lower or in the upper bands."""
    random = np.random.RandomState(seed)
    labels = np.arange(count) % 2
    arrays = lowest + 20 * random.random_sample((count, frames, bands))
    for array, label in zip(arrays, labels, strict=True):
        array[:, bands // 2 * label : bands // 2 * (label + 1)] += 15
    return TrackSet.of([*arrays.astype(np.float32)], labels.tolist())


def three_epochs(name: str, folder: Path, augment: AugmentRecipe | None = None, **recipe: Any) -> Outputs:
    """Losses of three epochs, and the probabilities of six other tracks."""
    network = NETWORKS[name]
    bands, frames = (57, 1) if network.max_frames == 1 else (64, max(32, network.min_frames))
    done = train(
        lambda: make_network(name, 2, bands, frames),
        spectrograms(12, 1, frames, bands),
        spectrograms(6, 2, frames, bands),
        TrainRecipe(epochs=3, patience=3, batch_size=6, **recipe),
        crop_frames=frames,
        seed=1,
        device="cpu",
        checkpoint=folder / "checkpoint",
        report=lambda line: None,
        augment=Augment(augment, ("low", "high")) if augment else None,
    )
    probabilities = predict(
        done.network, spectrograms(6, 3, frames + 9, bands), frames, make_accelerator("cpu")
    )
    losses = [(line.train_loss, line.val_loss) for line in done.history]
    return {"losses": np.array(losses), "probabilities": probabilities}


def one_fit(name: str, folder: Path) -> Outputs:
    """Probabilities of a head for other vectors, and the losses of all strengths."""
    head = weighted(3) if name == "weighted" else HEADS[name]
    x, labels = vectors(30, 12, 2)
    fits = fit_strengths(head, *vectors(60, 12, 1), seed=0)
    losses = [log_loss(labels, probabilities_of(fit, x, 3)) for fit in fits.values()]
    best = [*fits.values()][int(np.argmin(losses))]
    return {"losses": np.array(losses), "probabilities": probabilities_of(best, vectors(12, 12, 3)[0], 3)}


def probed(layers: str, keep: str, select: str, folder: Path) -> Outputs:
    """Test probabilities of logistic regression on cached arrays of two layers."""
    dataset = table()
    card = replace(
        efficientat(), spec=ModelSpec("golden", keep=keep), layers=(Layer("low", 6), Layer("high", 6))  # type: ignore[arg-type]
    )  # fmt: skip
    cache = EmbeddingCache(card, folder)
    labels = dataset.label_numbers(dataset.tracks)
    with cache.writer() as writer:
        for n, (track, label) in enumerate(zip(dataset.tracks, labels, strict=True)):
            windows = 2 if keep == "windows" else 1
            array = np.random.RandomState(n).standard_normal((3 * windows, 12))
            writer.add(track.content, track.track_id, array + 0.7 * label)
    split = make_split(dataset, "holdout", 0)
    recipe = ProbeRecipe(layers=layers, pool="mean+std", select=select)  # type: ignore[arg-type]
    heads, _ = fitting.fit_folds(cache, dataset, split, recipe)
    return {f"fold{number}": head.test for number, head in enumerate(heads)}


def split(name: str, folder: Path) -> Outputs:
    """Which fold and part each track of a table is in."""
    dataset = table()
    if name == "given":
        parts = ("train", "train", "val", "test")
        tracks = [replace(t, split=parts[int(t.group[6:]) // 4]) for t in dataset.tracks]
        dataset = replace(dataset, tracks=tuple(tracks))
    made = make_split(dataset, name, 1)  # type: ignore[arg-type]
    found = np.zeros((len(made.folds), len(dataset)), np.float32)
    for number, fold in enumerate(made.folds):
        for column, track in enumerate(dataset.tracks):
            found[number, column] = [
                track.track_id in part for part in (fold.train, fold.val, fold.test)
            ].index(True)
    return {"parts": found}


# ---- the table --------------------------------------------------------------------------------------------


def _represented(card: Representation) -> tuple[int, ...]:
    return (PIPELINE_REVISION, card.revision, *(revision for _, revision in card.steps))


def _family(name: str) -> tuple[int, ...]:
    model_type = {"clap-fused": "clap"}.get(name, name.removesuffix("-dense"))
    model_type = {"ast": "audio-spectrogram-transformer"}.get(model_type, model_type)
    return (PIPELINE_REVISION, FAMILIES[model_type].revision)


def entries() -> dict[str, Entry]:
    """All entries by name."""
    from test_transformers_audio import FAMILIES as TINY

    home = Workspace()
    found = {}
    features = ("logmel", "logmel44", "mfcc", "chroma", "cqt", "stats57", "fma518")
    derived = [ModelSpec("logmel", pitch_semitones=2.0), ModelSpec("logmel", stretch_rate=1.25)]
    for spec in [
        *map(ModelSpec, features),
        *derived,
        ModelSpec("musicnn"),
        ModelSpec("musicnn", keep="windows"),
    ]:
        card = open_representation(spec, home)
        floor = 1e-4 if card.dtype == "float32" else 0.1  # its columns have different units
        found[card.name] = Entry(_represented(card), partial(representation, spec), floor=floor)
    found["efficientat"] = Entry(_represented(efficientat()), partial(shared, "efficientat-mn04"))
    found["whisper-tiny.en"] = Entry(_family("whisper"), partial(shared, "whisper-tiny.en-encoder"))
    found |= {f"tiny {name}": Entry(_family(name), partial(tiny, name)) for name in TINY}
    strengths = {"noise": 10, "gain": 6, "mp3": 32, "lowpass": 2000, "highpass": 300, "crop": 0.5}
    for effect, value in strengths.items():
        found[f"effect {effect}"] = Entry((effects.REVISION,), partial(altered, effect, value), 5e-3)
    assert {*strengths} == {*EFFECTS}
    for name, network in NETWORKS.items():
        found[f"network {name}"] = Entry((network.revision, loop.REVISION), partial(three_epochs, name), 1e-2)
    recipes: dict[str, dict[str, Any]] = {
        "augmented": {
            "augment": AugmentRecipe(
                noise=0.3, shift=0.2, mask=0.1, mixup=0.4, strong_class="low", strong_factor=1.5
            ),
            "crops": 2,
        },
        "scheduled": {
            **{"optimizer": "adamw", "weight_decay": 0.03, "scheduler": "onecycle", "label_smoothing": 0.1},
            **{"clip_norm": 0.5, "init": "xavier", "normalise": "range", "stop_on": "accuracy"},
        },
    }
    for name, recipe in recipes.items():
        revisions = (NETWORKS["cnn"].revision, loop.REVISION)
        found[f"training {name}"] = Entry(revisions, partial(three_epochs, "cnn", **recipe), 1e-2)
    for name in (*HEADS, "weighted"):
        head = weighted(3) if name == "weighted" else HEADS[name]
        found[f"head {name}"] = Entry((head.revision,), partial(one_fit, name), 1e-2)
    for layers, keep in (("sweep", "clip"), ("weighted", "clip"), ("last", "windows")):
        for select, name in (("cv", f"{layers} {keep}"), ("validation", f"{layers} {keep} validation")):
            fit = partial(probed, layers, keep, select)
            found[f"fitting {name}"] = Entry((fitting.REVISION,), fit, 1e-2)
    for name in ("holdout", "cv5", "random", "given"):
        found[f"split {name}"] = Entry((splitting.REVISION,), partial(split, name), 0.0)
    return found


# ---- stored outputs ---------------------------------------------------------------------------------------


def summary(output: np.ndarray) -> np.ndarray:
    """Shape, mean, standard deviation, extremes, and values from all over the output, in float32."""
    flat = np.asarray(output, np.float64).ravel()
    places = np.linspace(0, flat.size - 1, min(SAMPLED, flat.size)).astype(int)
    shape = [*output.shape, *[0] * (2 - output.ndim)]
    return np.array([*shape, flat.mean(), flat.std(), flat.min(), flat.max(), *flat[places]], np.float32)


def file_of(name: str) -> Path:
    """Where the outputs of an entry are stored."""
    return FOLDER / f"{name.replace(' ', '-').replace('+', '')}.npz"


def differences(name: str, entry: Entry, outputs: Outputs) -> list[str]:
    """How outputs differ from the stored ones, beyond the tolerance of the entry."""
    with np.load(file_of(name)) as stored:
        if {*stored} - {"revisions"} != {*outputs}:
            return [f"stored are {sorted({*stored} - {'revisions'})}, computed {sorted(outputs)}"]
        found = []
        for key, output in outputs.items():
            before, now = stored[key].astype(np.float64), summary(output).astype(np.float64)
            if before.shape != now.shape or not np.array_equal(before[:2], now[:2]):
                found.append(f"{key}: another shape")
                continue
            typical = entry.floor * np.median(np.abs(before[6:]))
            allowed = entry.tolerance * (np.abs(before) + typical + 1e-6)
            worst = int(np.argmax(np.abs(now - before) - allowed))
            if abs(now[worst] - before[worst]) > allowed[worst]:
                found.append(f"{key}: {before[worst]:.6g} became {now[worst]:.6g}")
        return found


def store(name: str, entry: Entry, outputs: Outputs) -> None:
    """Write the outputs of an entry."""
    arrays = {key: summary(output) for key, output in outputs.items()}
    np.savez_compressed(file_of(name), allow_pickle=False, revisions=np.array(entry.revisions), **arrays)


def stored_revisions(name: str) -> tuple[int, ...] | None:
    """The revisions of the stored outputs; None if there are none."""
    if not file_of(name).exists():
        return None
    with np.load(file_of(name)) as stored:
        return tuple(int(number) for number in stored["revisions"])


# ---- keys and defaults ------------------------------------------------------------------------------------


def keys() -> dict[str, str]:
    """Cache keys of all entries of the table that can be known without weights."""
    cards = [
        open_representation(name, Workspace()) for name in ("logmel", "logmel44", "mfcc", "chroma", "cqt")
    ]
    cards += [open_representation(name, Workspace()) for name in ("stats57", "fma518")]
    cards += [open_representation(ModelSpec("logmel", stretch_rate=1.1), Workspace())]
    cards += [open_representation(ModelSpec("logmel", alteration=Alteration("mp3", 32.0)), Workspace())]
    cards += [musicnn(Workspace()), efficientat(), *map(published, SHORT_NAMES), random_twin("ast", 3)]
    specs = [ModelSpec("musicnn", keep="windows"), ModelSpec("musicnn", precision="bfloat16")]
    cards += [open_representation(spec, Workspace()) for spec in specs]
    return {card.name: card.key for card in cards}


def defaults() -> dict[str, dict[str, Any]]:
    """Defaults that run ids omit, with the revision to raise when one of them changes."""
    baseline = BaselineRecipe().model_dump(mode="json", exclude=NAMES_ONLY)
    probe = ProbeRecipe().model_dump(mode="json", exclude=NAMES_ONLY)
    found = {
        "training": {"revision": loop.REVISION, **baseline.pop("train")},
        "augmentation": {"revision": loop.REVISION, **baseline.pop("augment")},
        "baseline": {"revision": loop.REVISION, **baseline},
        "probe": {"revision": fitting.REVISION, **probe},
    }
    for name, network in NETWORKS.items():
        values = {key: value for key, value in vars(network).items() if key != "make"}
        found[f"network {name}"] = {**values, "options": dict(network.options)}
    for name, head in HEADS.items():
        found[f"head {name}"] = {"revision": head.revision, "strengths": list(head.strengths)}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]
