"""Heads: they learn, do not depend on the number of cores, and are the same after saving and loading."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import here
from safetensors.numpy import save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mgc.config import ProbeRecipe
from mgc.data import Dataset, Track, make_split
from mgc.probing import fitting as probing
from mgc.probing.fitting import Embeddings, HeadOfFold, fit_folds
from mgc.probing.heads import HEADS, Fitted, find_head, fit_head, logistic, weighted
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
        assert {fold.layer for fold in alone} == {"music"}
        assert [*alone[0].fits] == [*LAYERS]


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
    refused(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "damaged")
    refused(whole.replace(b"StandardScaler", b"StandardScales"), "damaged")
    save_file({"a": np.zeros(3)}, file)
    refused(file.read_bytes(), "not a head saved by mgc")
    with pytest.raises(MgcError, match="a head cannot be read: No such file"):
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
    with pytest.raises(MgcError, match="cannot be loaded"):
        load_head(file)
    save_head(fit.classifier[0], file)  # a scaler is trusted, but is no head
    with pytest.raises(MgcError, match="does not hold a head"):
        load_head(file)
    assert not Path("pwned").exists()
