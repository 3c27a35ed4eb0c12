"""Training of `scanners.convolution.ConvolutionModel` in numpy: logistic loss, Adam (Kingma and Ba 2015), dropout on the
pooled answers and on whole words. The token vectors stay as they are, so that words outside the training keep their
meaning. A minute for 20,000 prompts on one core.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.guardrails.scanners.convolution import MAX_PIECES, WIDTHS, ConvolutionModel

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Parameters = dict[str, F32]

FILTERS, HIDDEN = 64, 128
BATCH = 64
RATE, WARM_UP = 2e-3, 100
DROPOUT, WORD_DROPOUT = 0.3, 0.1
DECAY = 1e-5
CROP = 300
"""Word pieces of a training text: longer ones are cropped at random, so that their label rests on all of them."""
_NOTHING = np.zeros(1, dtype=np.int64)


def fit(
    table: F32,
    texts: Sequence[I64],
    labels: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    epochs: int,
    seed: int,
) -> ConvolutionModel:
    """A network fitted on texts given as rows of `table`, with a label (0 or 1) and a weight each."""
    rng = np.random.default_rng(seed)
    parameters = _initial(table.shape[1], rng)
    first = {name: np.zeros_like(value) for name, value in parameters.items()}
    second = {name: np.zeros_like(value) for name, value in parameters.items()}
    scaled = (weights / weights.mean()).astype(np.float32)
    steps, total = 0, epochs * (len(texts) // BATCH + 1)
    for _ in range(epochs):
        order = rng.permutation(len(texts))
        for start in range(0, len(texts), BATCH):
            chosen = order[start : start + BATCH]
            batch = [_cropped(texts[i], rng) for i in chosen]
            gradients = _gradients(parameters, table, batch, labels[chosen], scaled[chosen] / len(chosen), rng)
            steps += 1
            rate = RATE * min(1.0, steps / WARM_UP) * (1 - steps / (total + 1))
            for name, value in parameters.items():
                gradient = gradients[name] + DECAY * value
                first[name] += np.float32(0.1) * (gradient - first[name])
                second[name] += np.float32(0.001) * (gradient * gradient - second[name])
                value -= (
                    rate * (first[name] / (1 - 0.9**steps)) / (np.sqrt(second[name] / (1 - 0.999**steps)) + 1e-8)
                ).astype(np.float32)
    return ConvolutionModel(
        table,
        tuple(parameters[f"filters{width}"] for width in WIDTHS),
        tuple(parameters[f"offsets{width}"] for width in WIDTHS),
        parameters["hidden"],
        parameters["hidden_bias"],
        parameters["output"],
        float(parameters["bias"][0]),
    )


def averaged(models: Sequence[ConvolutionModel]) -> ConvolutionModel:
    """One network whose log odds are the mean of those of networks over one table."""
    filters = tuple(np.concatenate([m.filters[i] for m in models], axis=1) for i in range(len(WIDTHS)))
    offsets = tuple(np.concatenate([m.offsets[i] for m in models]) for i in range(len(WIDTHS)))
    sizes, dimension = [len(m.offsets[0]) for m in models], models[0].table.shape[1]
    pooled = sum(sizes) * len(WIDTHS)
    hidden = np.zeros((pooled + dimension, sum(len(m.output) for m in models)), dtype=np.float32)
    column = before = 0
    for model, size in zip(models, sizes, strict=True):
        columns = slice(column, column + len(model.output))
        for i in range(len(WIDTHS)):
            start = i * sum(sizes) + before
            hidden[start : start + size, columns] = model.hidden[i * size : (i + 1) * size]
        hidden[pooled:, columns] = model.hidden[size * len(WIDTHS) :]
        column, before = columns.stop, before + size
    bias = np.concatenate([m.hidden_bias for m in models])
    output = (np.concatenate([m.output for m in models]) / len(models)).astype(np.float32)
    return ConvolutionModel(
        models[0].table, filters, offsets, hidden, bias, output, sum(m.bias for m in models) / len(models)
    )


def _initial(dimension: int, rng: np.random.Generator) -> Parameters:
    """He initialisation (He et al. 2015)."""
    parameters: Parameters = {}
    for width in WIDTHS:
        size = width * dimension
        parameters[f"filters{width}"] = _normal(rng, (size, FILTERS), float(np.sqrt(2 / size)))
        parameters[f"offsets{width}"] = np.zeros(FILTERS, dtype=np.float32)
    pooled = FILTERS * len(WIDTHS) + dimension
    parameters["hidden"] = _normal(rng, (pooled, HIDDEN), float(np.sqrt(2 / pooled)))
    parameters["hidden_bias"] = np.zeros(HIDDEN, dtype=np.float32)
    parameters["output"] = _normal(rng, (HIDDEN,), 0.01)
    parameters["bias"] = np.zeros(1, dtype=np.float32)
    return parameters


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> F32:
    return (rng.standard_normal(shape) * deviation).astype(np.float32)


def _cropped(rows: I64, rng: np.random.Generator) -> I64:
    if not len(rows):
        return _NOTHING
    if len(rows) <= CROP:
        return rows
    start = int(rng.integers(0, min(len(rows), MAX_PIECES) - CROP + 1))
    return rows[start : start + CROP]


def _gradients(
    parameters: Parameters,
    table: F32,
    batch: Sequence[I64],
    labels: npt.NDArray[np.int64],
    weights: F32,
    rng: np.random.Generator,
) -> Parameters:
    """Gradient of the weighted logistic loss. The texts lie one after another with zeros between them, so that one
    product of matrices answers for all; only the place of each highest answer carries a gradient back.
    """
    gap = WIDTHS[-1] - 1
    lengths = [len(rows) for rows in batch]
    starts = np.cumsum([0, *(length + gap for length in lengths)])[:-1]
    vectors = np.zeros((sum(lengths) + gap * (len(batch) + 1), table.shape[1]), dtype=np.float32)
    for rows, start, length in zip(batch, starts, lengths, strict=True):
        vectors[start : start + length] = table[rows] * (rng.random((length, 1)) > WORD_DROPOUT)
    count, dimension = len(vectors) - gap, table.shape[1]
    pooled, places = [], []
    for width in WIDTHS:
        weight = parameters[f"filters{width}"]
        answers = vectors[:count] @ weight[:dimension]
        for shift in range(1, width):
            answers += vectors[shift : shift + count] @ weight[shift * dimension : (shift + 1) * dimension]
        place = np.array([answers[s : s + n].argmax(axis=0) + s for s, n in zip(starts, lengths, strict=True)])
        pooled.append(np.maximum(answers[place, np.arange(FILTERS)] + parameters[f"offsets{width}"], 0))
        places.append(place)
    means = np.array([vectors[s : s + n].sum(axis=0) for s, n in zip(starts, lengths, strict=True)])
    pooled.append(means / (np.linalg.norm(means, axis=1, keepdims=True) + 1e-6))
    features = np.concatenate(pooled, axis=1)
    kept = (rng.random(features.shape) > DROPOUT).astype(np.float32) / np.float32(1 - DROPOUT)
    features = features * kept
    layer = np.maximum(features @ parameters["hidden"] + parameters["hidden_bias"], 0)
    margins = layer @ parameters["output"] + parameters["bias"][0]
    slope = ((1 / (1 + np.exp(-np.clip(margins, -30, 30))) - labels) * weights).astype(np.float32)
    back = np.outer(slope, parameters["output"]) * (layer > 0)
    gradients: Parameters = {
        "output": layer.T @ slope,
        "bias": np.array([slope.sum()], dtype=np.float32),
        "hidden": features.T @ back,
        "hidden_bias": back.sum(axis=0),
    }
    to_pooled = (back @ parameters["hidden"].T) * kept
    for index, width in enumerate(WIDTHS):
        mine = slice(index * FILTERS, (index + 1) * FILTERS)
        passed = to_pooled[:, mine] * (features[:, mine] > 0)
        gradients[f"offsets{width}"] = passed.sum(axis=0)
        gradients[f"filters{width}"] = np.concatenate(
            [np.einsum("bf,bfd->df", passed, vectors[places[index] + shift]) for shift in range(width)]
        )
    return gradients
