"""Heads: they learn, do not depend on the number of cores, and are the same after saving and loading."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import here
from safetensors.numpy import save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mgc.config import BaselineRecipe, ProbeRecipe, is_random
from mgc.data import Dataset, Track, make_split
from mgc.probing import fitting as probing
from mgc.probing.fitting import Embeddings, HeadOfFold, fit_folds
from mgc.probing.heads import (
    HEADS,
    Head,
    find_head,
    fit_strengths,
    logistic,
    probabilities_of,
    weighted,
)
from mgc.probing.heads.logistic import Logistic, logistic_path
from mgc.probing.heads.neural import WeightedLayers
from mgc.probing.heads.saving import load_head, save_head
from mgc.representations import open_representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.util.errors import MgcError

# One strength of those that take long.
QUICK = dict(HEADS)
for long, strength in {"random_forest": 3.0, "mlp": 10.0, "mlp768": 15.0}.items():
    QUICK[long] = replace(HEADS[long], strengths=(strength,))


def test_an_unknown_head_is_an_error() -> None:
    with pytest.raises(MgcError, match="unknown head") as caught:
        find_head("logistics")
    assert "logistic" in str(caught.value)


def clouds(count: int, seed: int, classes: int = 3, copies: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(0).normal(0, 1.2, (classes, 6))
    vectors = (centres[labels] + rng.normal(0, 1, (count, 6))).astype(np.float32)
    return np.tile(vectors, (1, copies)), labels


Part = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """A head, and the log loss of its strengths."""

    classifier: Pipeline
    strength: float
    tried: dict[float, float]

    def probabilities(self, x: np.ndarray, classes: int) -> np.ndarray:
        return probabilities_of(self.classifier, x, classes)


def fit_head(head: Head, train: Part, val: Part, seed: int) -> Fitted:
    """The head with the strength that has the smallest log loss on `val`."""
    classes = int(max(train[1].max(), val[1].max())) + 1
    fits = fit_strengths(head, *train, seed)
    predicted = {strength: probabilities_of(fit, val[0], classes) for strength, fit in fits.items()}
    tried = {strength: log_loss(val[1], p, labels=range(classes)) for strength, p in predicted.items()}
    best = min(tried, key=lambda strength: tried[strength])
    return Fitted(fits[best], best, tried)


@pytest.mark.parametrize(("classes", "count"), [(2, 60), (3, 90), (6, 200), (10, 60)])
def test_the_most_probable_class_of_an_svm_is_its_decision(classes: int, count: int) -> None:
    """On noise and with rare classes, where one-vs-rest probabilities often have another argmax."""
    rng = np.random.default_rng(classes)
    x, noise = rng.normal(size=(count, 5)), rng.normal(size=(500, 5))
    y = np.minimum(rng.geometric(0.4, count) - 1, classes - 1)
    y[:classes] = range(classes)
    for strength, fit in fit_strengths(HEADS["svm"], x, y, 0).items():
        for slope in (0.05, 1.0, 20.0):
            fit[-1].slope = slope
            scaled = fit[0].transform(noise)
            plain = SVC(C=strength, break_ties=True).fit(fit[0].transform(x), y)
            probabilities = fit.predict_proba(noise)
            assert np.array_equal(probabilities.argmax(axis=1), plain.predict(scaled))
            assert np.allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_and_are_the_same_twice(name: str) -> None:
    copies = 50 if name == "mlp768" else 1  # its published learning rate is for vectors as long
    train_set, val, test = (clouds(*drawn, copies=copies) for drawn in ((90, 1), (30, 2), (60, 3)))
    first, second = fit_head(QUICK[name], train_set, val, 0), fit_head(QUICK[name], train_set, val, 0)
    probabilities = first.probabilities(test[0], 3)
    assert np.array_equal(probabilities, second.probabilities(test[0], 3))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == test[1]).mean() > 0.7
    assert first.strength == min(first.tried, key=lambda s: first.tried[s])


@pytest.mark.parametrize("name", HEADS)
def test_a_head_depends_on_the_seed_if_and_only_if_its_recipe_is_random(name: str) -> None:
    # Any feature tells the class, and a tree draws one of them. In the test set they differ.
    y, y_val = np.arange(90) % 2, np.arange(30) % 2
    train_set, val = (np.stack([y] * 9, 1), y), (np.stack([y_val] * 9, 1), y_val)
    by_seed = [fit_head(QUICK[name], train_set, val, n).probabilities(np.eye(9), 2) for n in (0, 1)]
    assert is_random(ProbeRecipe(head=name).model_dump()) != np.array_equal(*by_seed)


def test_random_weights_and_networks_are_random_unless_the_seed_of_the_weights_is_fixed() -> None:
    assert is_random(BaselineRecipe().model_dump())
    assert is_random(ProbeRecipe(model="ast", random_weights=True).model_dump())
    assert not is_random(ProbeRecipe(model="ast", random_weights=True, random_seed=3).model_dump())
    assert not is_random(ProbeRecipe(model="ast", layers="weighted").model_dump())


@pytest.mark.parametrize("name", ["logistic", "svm"])
def test_heads_standardise_by_the_training_set_only(name: str) -> None:
    train_set, val = clouds(60, 1), clouds(30, 2)
    scaler = fit_head(HEADS[name], train_set, val, 0).classifier[0]
    assert np.allclose(scaler.mean_, train_set[0].mean(axis=0), atol=1e-5)


def test_a_weighted_sum_finds_the_informative_layer() -> None:
    def layers(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        vectors, labels = clouds(count, seed)
        noise = np.random.default_rng(seed).normal(size=(2, *vectors.shape)).astype(np.float32)
        return np.hstack([noise[0], vectors, noise[1]]), labels

    train_set, val, test = layers(90, 1), layers(30, 2), layers(60, 3)
    fit = fit_head(weighted(3), train_set, val, 0)
    weights = fit.classifier[-1].layer_weights_
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    assert weights.argmax() == 1
    assert weights[1] > 0.6
    assert (fit.probabilities(test[0], 3).argmax(axis=1) == test[1]).mean() > 0.7
    # With a single layer it is scikit-learn's logistic regression.
    alone = WeightedLayers(1, C=0.1).fit(*clouds(90, 1)).predict_proba(clouds(60, 3)[0])
    usual = LogisticRegression(C=0.1, max_iter=5000).fit(*clouds(90, 1)).predict_proba(clouds(60, 3)[0])
    assert np.abs(alone - usual).max() < 1e-3


def test_a_class_missing_on_the_training_set_gets_no_probability() -> None:
    vectors, labels = clouds(60, 1)
    known = labels != 1
    fit = fit_head(HEADS["logistic"], (vectors[known], labels[known]), (vectors[:20], labels[:20]), 0)
    assert (fit.probabilities(vectors, 3)[:, 1] == 0).all()


def test_constant_features_do_no_harm() -> None:
    vectors, labels = clouds(60, 1)
    dull = np.hstack([vectors, np.full((60, 3), 1e-9, np.float32)])
    fit = fit_head(HEADS["logistic"], (dull, labels), (dull, labels), 0)
    assert np.isfinite(fit.probabilities(dull, 3)).all()


def correlated(count: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standardised, with deviations along the principal axes that fall over five powers of ten."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    vectors = rng.normal(size=(count, dim)) + 0.5 * rng.normal(size=(classes, dim))[labels]
    mix = np.linalg.qr(rng.normal(size=(dim, dim)))[0] * np.logspace(0, -5, dim)
    return StandardScaler().fit_transform(vectors @ mix.T), labels


@pytest.mark.parametrize(("count", "dim", "classes"), [(200, 30, 4), (40, 60, 3), (60, 20, 2)])
def test_the_path_is_scikit_learns_model_fitted_to_the_end(count: int, dim: int, classes: int) -> None:
    x, y = correlated(count, dim, classes)
    labels = np.array(["d", "a", "c", "b"])[y]
    for ours in logistic_path(x, labels, (1e-3, 1e-1, 10.0)):
        usual = LogisticRegression(C=ours.C, tol=1e-9, max_iter=100_000).fit(x, labels)
        assert list(ours.classes_) == list(usual.classes_)
        assert ours.coef_.shape == usual.coef_.shape
        assert np.abs(ours.predict_proba(x) - usual.predict_proba(x)).max() < 1e-4
        assert ours.converged_
        assert ours.n_iter_[0] < 100
    # From scratch it is the same place.
    assert np.abs(Logistic(C=10.0).fit(x, labels).predict_proba(x) - ours.predict_proba(x)).max() < 1e-4


def test_missing_convergence_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logistic, "MAX_STEPS", 2)
    folds(ProbeRecipe())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "converge" in line]
    assert "0.0001 in 10 of 10 fits" in line


LAYERS = ("noise", "music")


def folds(recipe: ProbeRecipe, cores: int = 2) -> list[HeadOfFold]:
    """Five folds of 60 tracks with two layers, one of which is informative."""
    tracks = [Track(f"{i:02}", Path("x"), "abc"[i % 3], f"artist {i}", content=f"{i}") for i in range(60)]
    dataset = Dataset("made", tuple(tracks))
    vectors, _ = clouds(60, 1)
    rows = {"music": vectors, "noise": np.random.default_rng(0).normal(size=vectors.shape)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "cores", lambda: cores)
        patch.setattr(probing, "_layers", lambda *_: [*LAYERS])
        patch.setattr(probing, "_embeddings", lambda s, c, name, r: Embeddings(rows[name], np.arange(61)))
        store = EmbeddingCache(open_representation("musicnn", workspace=here()), root=here().cache)
        return fit_folds(store, dataset, make_split(dataset, "cv5"), recipe)[0]


@pytest.mark.parametrize("name", ["logistic", "mlp768", "svm"])
def test_results_do_not_depend_on_the_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, name, replace(HEADS[name], strengths=(1e-2,) if name == "logistic" else (4,)))
    alone, together = (folds(ProbeRecipe(head=name, seed=3), cores) for cores in (1, 4))
    assert [fold.to_record() for fold in alone] == [fold.to_record() for fold in together]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.test, other.test)
        assert np.array_equal(one.validation, other.validation)
    if name == "logistic":
        assert {fold.choice.layer for fold in alone} == {"music"}
        assert [*alone[0].losses] == [*LAYERS]


def fitted(name: str, width: int = 1) -> tuple[Fitted, np.ndarray]:
    """A fitted head, and vectors that it has not seen."""
    head = weighted(2) if name == "weighted" else QUICK[name]
    if name == "mlp768":
        head = replace(head, strengths=(5.0,))
    if name == "random_forest":
        head = replace(head, make=lambda *_: RandomForestClassifier(9, random_state=0))
    (x, y), val, (test, _) = (clouds(*drawn, copies=width) for drawn in ((60, 1), (30, 2), (40, 3)))
    return fit_head(head, (x, y + 1), (val[0], val[1] + 1), 0), test


# kNN keeps a tree of few numbers, and no tree of many.
@pytest.mark.parametrize(("name", "width"), [*((name, 1) for name in [*HEADS, "weighted"]), ("knn", 4)])
def test_a_head_is_the_same_after_saving_and_loading(name: str, width: int, tmp_path: Path) -> None:
    fit, vectors = fitted(name, width)
    file = tmp_path / "run" / "head0.safetensors"
    save_head(fit.classifier, file)
    loaded = load_head(file)
    assert np.array_equal(loaded.predict_proba(vectors), fit.classifier.predict_proba(vectors))
    assert loaded.classes_.tolist() == [1, 2, 3]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    fit, _ = fitted("logistic")
    file = tmp_path / "head0.safetensors"
    save_head(fit.classifier, file)
    whole = file.read_bytes()

    def refused(content: bytes, message: str) -> None:
        file.write_bytes(content)
        with pytest.raises(MgcError, match=message) as caught:
            load_head(file)
        assert caught.value.where == file

    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        refused(whole[:length], "cannot be read")
    middle = len(whole) // 2
    refused(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "Bad CRC-32")
    refused(whole.replace(b"StandardScaler", b"StandardScales"), "Bad CRC-32")
    save_file({"a": np.zeros(3)}, file)
    refused(file.read_bytes(), "not saved by this version of mgc")
    with pytest.raises(MgcError, match="cannot be read as a head: No such file"):
        load_head(tmp_path / "head1.safetensors")
    with pytest.raises(MgcError, match="cannot be read"):
        load_head(tmp_path)


class Evil:
    """What unpickling, or trusting any type, would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("pwned"),)


def test_an_untrusted_type_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit, _ = fitted("naive_bayes")
    fit.classifier[-1].priors = Evil()
    file = tmp_path / "head0.safetensors"
    save_head(fit.classifier, file)
    with pytest.raises(MgcError, match="cannot be read as a head: Untrusted types"):
        load_head(file)
    save_head(fit.classifier[0], file)  # a scaler is trusted, but is no head
    with pytest.raises(MgcError, match="does not hold a head"):
        load_head(file)
    assert not Path("pwned").exists()


# ---- how settings are chosen ------------------------------------------------------------------------------


def choose(
    labels: str, artists: list[int], rows: np.ndarray, recipe: ProbeRecipe, parts: str = ""
) -> list[HeadOfFold]:
    """Heads on tracks of one letter per label; `parts` has "t", "v" or "e" (test) for each track."""
    given = {"t": "train", "v": "val", "e": "test"}
    tracks = [
        Track(f"{i:03}", Path("x"), label, f"a{artist}", content=f"{i}", split=given.get(part))
        for i, (label, artist, part) in enumerate(
            zip(labels, artists, parts or "x" * len(labels), strict=True)
        )
    ]
    dataset = Dataset("made", tuple(tracks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "_layers", lambda *_: ["only"])
        patch.setattr(probing, "_embeddings", lambda *_: Embeddings(rows, np.arange(len(rows) + 1)))
        store = EmbeddingCache(open_representation("musicnn", workspace=here()), root=here().cache)
        return fit_folds(store, dataset, make_split(dataset, "given" if parts else "cv5"), recipe)[0]


def test_inner_folds_keep_artists_apart() -> None:
    """Tracks of an artist are nearly equal, so that one neighbour wins unless artists are kept apart."""
    rng = np.random.default_rng(0)
    artists = np.repeat(np.arange(40), 5)
    centres = rng.normal(size=(40, 4)) + 0.6 * (np.arange(40) % 2)[:, np.newaxis]
    rows = (centres[artists] + 0.01 * rng.normal(size=(200, 4))).astype(np.float32)
    labels = "".join("ab"[artist % 2] for artist in artists)
    heads = choose(labels, artists.tolist(), rows, ProbeRecipe(head="knn"))
    assert all(head.choice.strength > 5 for head in heads)
    assert all(head.validation.shape[1] == 2 for head in heads)


@pytest.mark.parametrize("head", ["logistic", "svm", "knn", "naive_bayes"])
@pytest.mark.parametrize(
    ("labels", "artists", "parts", "note"),
    [
        ("abcabcabc", [*range(9)], "tttvvveee", ""),
        ("aabbab", [0, 0, 1, 1, 2, 3], "ttttve", "too few"),  # class b: one artist
        ("ababab", [0, 0, 1, 1, 2, 2], "ttvvee", ""),  # two groups
        ("abcaab", [*range(6)], "tttvve", "too few"),  # c has one track
        # One artist per label; c has no training tracks.
        ("aabbcaba", [0, 0, 1, 1, 2, 3, 4, 5], "ttttveee", "too few"),
    ],
)
def test_few_artists_do_not_fail(
    head: str, labels: str, artists: list[int], parts: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
    for select in ("cv", "validation"):
        (fold,) = choose(labels, artists, rows, ProbeRecipe(head=head, select=select), parts)  # type: ignore[arg-type]
        assert np.isfinite(fold.test).all()
        assert len(fold.validation) == parts.count("v")
    assert note in capsys.readouterr().err


def test_overconfident_heads_are_compared_by_their_calibrated_probabilities() -> None:
    """Certain and right for 6 of 10 tracks is better than 0.5 for the right class of 5 of 10."""
    labels = np.arange(60) % 3
    certain, smooth = (
        np.full((3, 3), (1 - share) / 2) + np.eye(3) * (1.5 * share - 0.5) for share in (1.0, 0.5)
    )
    wrong = (labels + 1) % 3
    rows = {
        8.0: np.where((np.arange(60) < 30)[:, np.newaxis], smooth[labels], smooth[wrong]),
        1.0: np.where((np.arange(60) < 36)[:, np.newaxis], certain[labels], certain[wrong]),
    }
    fitting = probing._Fitting(find_head("random_forest"), ProbeRecipe(), np.tile(labels, 2), 3)
    held = np.arange(60)
    plan = probing._Plan(np.arange(120), [held], held, held)
    choice = fitting.choose("only", plan, [probing._HeldOut(rows, np.ones(60, int), set())])
    assert choice.strength == 1
    assert np.array_equal(choice.tracks[held], rows[1.0])  # as the head predicts them
