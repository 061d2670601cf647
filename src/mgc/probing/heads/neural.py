"""Heads in torch with scikit-learn's interface: a weighted sum of layers, and a published perceptron."""

import threading
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn

_GLOBAL_DRAWS = threading.Lock()  # torch initialises layers with the random generator of the process


class WeightedLayers(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression on a weighted sum of layers, fitted jointly (Yang et al. 2021, SUPERB).

    Takes (N, layers * D), layer by layer. The weights are a softmax and start equal; `C` is that of
    scikit-learn's LogisticRegression. After `fit`, `layer_weights_` (layers,) sum to 1.
    """

    def __init__(self, layers: int = 1, C: float = 1.0) -> None:
        self.layers, self.C = layers, C

    def fit(self, embeddings: np.ndarray, labels: np.ndarray) -> "WeightedLayers":
        """Full-batch L-BFGS on all of (N, layers * D)."""
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        x, y = self._by_layer(embeddings), torch.from_numpy(numbers)
        logits = torch.zeros(self.layers, requires_grad=True)
        weight = torch.zeros(len(self.classes_), x.shape[2], requires_grad=True)
        bias = torch.zeros(len(self.classes_), requires_grad=True)
        optimizer = torch.optim.LBFGS([logits, weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> float:
            optimizer.zero_grad()
            mixed = torch.einsum("l,nld->nd", logits.softmax(0), x)
            penalty = weight.square().sum() / (2 * self.C)
            value = (F.cross_entropy(F.linear(mixed, weight, bias), y, reduction="sum") + penalty) / len(y)
            value.backward()  # type: ignore[no-untyped-call]
            return float(value.detach())

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.layer_weights_ = logits.detach().softmax(0).numpy()
        self.coef_, self.intercept_ = weight.detach().numpy(), bias.detach().numpy()
        return self

    def predict_proba(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, classes)."""
        weights = torch.from_numpy(self.layer_weights_)
        mixed = torch.einsum("l,nld->nd", weights, self._by_layer(embeddings))
        scores = mixed @ torch.from_numpy(self.coef_).T + torch.from_numpy(self.intercept_)
        return scores.double().softmax(dim=1).numpy()

    def _by_layer(self, embeddings: np.ndarray) -> torch.Tensor:
        flat = torch.from_numpy(np.asarray(embeddings, np.float32))
        return flat.reshape(len(flat), self.layers, -1)  # (N, L, D)


class Perceptron(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """D -> D (BatchNorm, ReLU) -> classes, as in the wav2vec2 study on GTZAN with D = 768.

    Adam, learning rate 5e-5, weight decay 1e-5 and batches of 8 as published; `epochs` is tuned here.
    """

    LEARNING_RATE, WEIGHT_DECAY, BATCH_SIZE = 5e-5, 1e-5, 8

    def __init__(self, epochs: int = 100, random_state: int = 0) -> None:
        self.epochs, self.random_state = epochs, random_state

    def fit(self, embeddings: np.ndarray, labels: np.ndarray) -> "Perceptron":
        """Train for `epochs` passes over (N, D) in random order."""
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        x, y = torch.from_numpy(np.asarray(embeddings, np.float32)), torch.from_numpy(numbers)
        width = x.shape[1]
        # Folds run in parallel threads: neither their random numbers nor the caller's may affect one another.
        with _GLOBAL_DRAWS, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self.network_ = self._network(width, len(self.classes_))
        draws = torch.Generator().manual_seed(self.random_state)
        parameters = self.network_.parameters()
        optimizer = torch.optim.Adam(parameters, self.LEARNING_RATE, weight_decay=self.WEIGHT_DECAY)
        batches = max(1, -(-len(x) // self.BATCH_SIZE))
        for _ in range(self.epochs):
            # Batches of equal size, since BatchNorm needs at least two rows.
            for chosen in torch.randperm(len(x), generator=draws).tensor_split(batches):
                optimizer.zero_grad()
                F.cross_entropy(self.network_(x[chosen]), y[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.network_.eval()
        return self

    def predict_proba(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, classes)."""
        with torch.inference_mode():
            scores = self.network_(torch.from_numpy(np.asarray(embeddings, np.float32)))
        return scores.double().softmax(dim=1).numpy()

    def __getstate__(self) -> dict[str, Any]:
        """The network as arrays, so that it can be saved without pickling code."""
        state = dict(super().__getstate__())
        if network := state.pop("network_", None):
            state["arrays_"] = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = state.pop("arrays_", None)
        super().__setstate__(state)
        if arrays:
            self.network_ = self._network(arrays["0.weight"].shape[1], len(self.classes_))
            self.network_.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
            self.network_.eval()

    @staticmethod
    def _network(width: int, classes: int) -> Any:
        return nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes)
        )
