"""A small convolutional network over static token vectors, in numpy alone (Kim 2014, "Convolutional neural networks for
sentence classification").

Filters of one to three word pieces slide over the vectors of a text; of each filter the highest answer anywhere in the
text counts, so a short attack in a long text is not diluted. With the mean of the vectors they pass one hidden layer.
Words that mean alike have vectors that point alike (`penstock.embedding.static`), so a filter knows words that the training
never held.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

WIDTHS = (1, 2, 3)
MAX_PIECES = 1200
"""Word pieces of one text that are read; a prompt's chunk has about 1,000."""


@dataclass(frozen=True, slots=True)
class ConvolutionModel:
    """Weights of one network.

    `table` is the vectors' table, shape (pieces, d). `filters[i]` has shape (WIDTHS[i] * d, f), `offsets[i]` shape (f,).
    `hidden` has shape (f * len(WIDTHS) + d, h), `hidden_bias` and `output` shape (h,).
    """

    table: F32
    filters: tuple[F32, ...]
    offsets: tuple[F32, ...]
    hidden: F32
    hidden_bias: F32
    output: F32
    bias: float

    @classmethod
    def load(cls, path: Path, table: F32) -> "ConvolutionModel":
        """Read `path` (.npz, no pickle). Raises ValueError where it was not trained on vectors of the table's width."""
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name].astype(np.float32) for name in arrays.files}
        filters = tuple(values[f"filters{width}"] for width in WIDTHS)
        if filters[0].shape[0] != table.shape[1]:
            raise ValueError(
                f"{path} was trained on vectors of {filters[0].shape[0]} dimensions, the table has {table.shape[1]}; "
                "run the training script again"
            )
        offsets = tuple(values[f"offsets{width}"] for width in WIDTHS)
        return cls(
            table, filters, offsets, values["hidden"], values["hidden_bias"], values["output"], float(values["bias"][0])
        )

    def arrays(self) -> dict[str, npt.NDArray[np.float16]]:
        """What `load` reads, as float16."""
        named = {f"filters{width}": array for width, array in zip(WIDTHS, self.filters, strict=True)}
        named |= {f"offsets{width}": array for width, array in zip(WIDTHS, self.offsets, strict=True)}
        named |= {"hidden": self.hidden, "hidden_bias": self.hidden_bias, "output": self.output}
        named["bias"] = np.array([self.bias], dtype=np.float32)
        return {name: array.astype(np.float16) for name, array in named.items()}

    def margin(self, rows: I64) -> float:
        """Log odds of the positive class for a text's rows; 0 where there are none."""
        if not len(rows):
            return 0.0
        vectors = self.table[rows[:MAX_PIECES]]
        count, dimension = vectors.shape
        padded = np.zeros((count + WIDTHS[-1] - 1, dimension), dtype=np.float32)
        padded[:count] = vectors
        pooled = []
        for width, weights, offset in zip(WIDTHS, self.filters, self.offsets, strict=True):
            answers = padded[:count] @ weights[:dimension]
            for shift in range(1, width):
                answers += padded[shift : shift + count] @ weights[shift * dimension : (shift + 1) * dimension]
            pooled.append(np.maximum(answers.max(axis=0) + offset, 0))
        mean = vectors.sum(axis=0)
        pooled.append(mean / (np.sqrt(mean @ mean) + np.float32(1e-6)))
        layer = np.maximum(np.concatenate(pooled) @ self.hidden + self.hidden_bias, 0)
        return float(layer @ self.output) + self.bias
