"""A small fully connected network in numpy, with RMSprop: enough for a table's worth of features, and seeded."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
DECAY, EPSILON = 0.99, 1e-8
GRADIENT_MAX = 1.0


class Network:
    """Layers with ReLU between them. `weights` alternates matrices and biases."""

    def __init__(self, weights: Sequence[Array]) -> None:
        self.weights = [np.asarray(one, dtype=np.float64) for one in weights]
        self._squares = [np.zeros_like(one) for one in self.weights]

    @classmethod
    def seeded(cls, sizes: Sequence[int], rng: np.random.Generator) -> "Network":
        """Return a network of these layer sizes, He-initialised."""
        weights: list[Array] = []
        for before, after in pairwise(sizes):
            weights += [rng.normal(0.0, np.sqrt(2.0 / before), size=(before, after)), np.zeros(after)]
        return cls(weights)

    def copied(self) -> "Network":
        """Return an independent copy without the optimiser's state."""
        return Network([one.copy() for one in self.weights])

    def forward(self, inputs: Array) -> Array:
        """Return the outputs for a batch."""
        return self._layers(inputs)[-1]

    def _layers(self, inputs: Array) -> list[Array]:
        layers = [np.asarray(inputs, dtype=np.float64)]
        last = len(self.weights) // 2 - 1
        for number in range(last + 1):
            found = layers[-1] @ self.weights[2 * number] + self.weights[2 * number + 1]
            layers.append(found if number == last else np.maximum(found, 0.0))
        return layers

    def learn(self, inputs: Array, chosen: npt.NDArray[np.int64], wanted: Array, rate: float) -> float:
        """Move the chosen outputs towards what is wanted (Huber loss); return the loss before."""
        layers = self._layers(inputs)
        rows = np.arange(len(chosen))
        error = layers[-1][rows, chosen] - wanted
        gradient = np.zeros_like(layers[-1])
        gradient[rows, chosen] = np.clip(error, -GRADIENT_MAX, GRADIENT_MAX) / len(chosen)
        for number in range(len(self.weights) // 2 - 1, -1, -1):
            slopes = [layers[number].T @ gradient, gradient.sum(axis=0)]
            if number:
                gradient = (gradient @ self.weights[2 * number].T) * (layers[number] > 0)
            for at, slope in enumerate(slopes, start=2 * number):
                self._squares[at] = DECAY * self._squares[at] + (1 - DECAY) * slope**2
                self.weights[at] -= rate * slope / (np.sqrt(self._squares[at]) + EPSILON)
        absolute = np.abs(error)
        return float(np.mean(np.where(absolute <= 1, 0.5 * error**2, absolute - 0.5)))
