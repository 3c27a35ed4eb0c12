"""A BERT sentence encoder as an onnxruntime session, built from safetensors weights without torch.

The graph is written with the operators that onnxruntime fuses to on its own (``com.microsoft`` MultiHeadAttention,
SkipLayerNormalization), so nothing is left to optimise and nothing is worth caching: building it and loading the
weights takes about 0.1 s. It holds the encoder of Devlin et al. 2019 (post-norm, exact GELU), mean pooling over
the tokens that are not padding and L2 normalisation, as sentence-transformers' Transformer, Pooling and Normalize
modules do.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock.embedding.protocol import EmbedderError, Vectors

__all__ = ["BertConfig", "BertEncoder", "SafetensorsFile"]

_FUSED = "com.microsoft"


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The part of a model's config.json that the graph depends on."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float

    @classmethod
    def load(cls, path: Path) -> BertConfig:
        """Read config.json.

        Raises:
            EmbedderError: the file describes no BERT encoder that this graph computes.
        """
        raw = json.loads(path.read_text(encoding="utf-8"))
        for field, expected in (
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ):
            if raw.get(field, expected) != expected:
                raise EmbedderError(f"{path}: {field} is {raw[field]!r}, only {expected!r} is supported")
        return cls(*(raw[name] for name in cls.__dataclass_fields__))


class SafetensorsFile:
    """Float32 tensors of one safetensors file, mapped into memory rather than read.

    Format: 8 bytes little-endian length, that many bytes of JSON (name -> dtype, shape, data_offsets), then the data.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header_length = int.from_bytes(self._map[:8], "little")
        self._header: dict[str, dict[str, Any]] = json.loads(self._map[8 : 8 + header_length])
        self._data = 8 + header_length

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        entry = self._header[name]
        if entry["dtype"] != "F32":
            raise EmbedderError(f"tensor {name} is {entry['dtype']}, expected F32")
        start, end = entry["data_offsets"]
        flat = np.frombuffer(self._map, dtype="<f4", count=(end - start) // 4, offset=self._data + start)
        return flat.reshape(entry["shape"])

    def release_pages(self) -> None:
        """Give the resident pages back; those that are read again come from the page cache."""
        self._map.madvise(mmap.MADV_DONTNEED)


class BertEncoder:
    """Token ids in, unit vectors out.

    The word embeddings (half of the weights) are no constant of the graph but an input of each run: onnxruntime would
    copy a constant to the heap, while the input is read in place from the mapped file, whose pages all processes share.

    Args:
        threads: threads of one run. They sleep between runs instead of spinning.
    """

    def __init__(self, config: BertConfig, weights: SafetensorsFile, threads: int) -> None:
        self._words = weights["embeddings.word_embeddings.weight"]
        graph = _Graph(config, weights)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        names = list(graph.weights)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(graph.weights[name]) for name in names]
        options.add_external_initializers(names, values)
        self._session = onnxruntime.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])
        weights.release_pages()

    def __call__(self, ids: NDArray[np.int32], lengths: NDArray[np.int32]) -> Vectors:
        """Return unit vectors of shape (batch, hidden_size).

        Args:
            ids: shape (batch, longest), padded on the right with any valid id.
            lengths: shape (batch,), the number of ids that count in each row, at least 1.
        """
        feeds = {"input_ids": ids, "lengths": lengths, "word_embeddings": self._words}
        vectors: Vectors = self._session.run(["vectors"], feeds)[0]
        return vectors


class _Graph:
    """Collects nodes and weights; the nodes are named as the tensors they compute."""

    def __init__(self, config: BertConfig, weights: SafetensorsFile) -> None:
        self._config = config
        self._file = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self.weights: dict[str, NDArray[np.float32]] = {}
        hidden = self._embeddings()
        for layer in range(config.num_hidden_layers):
            hidden = self._layer(hidden, layer)
        self._pool(hidden)

    def model(self) -> bytes:
        size = self._config.hidden_size
        graph = helper.make_graph(
            self._nodes,
            "bert-sentence-encoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "longest"]),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
                helper.make_tensor_value_info("word_embeddings", TensorProto.FLOAT, ["words", size]),
            ],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", size])],
            initializer=[_placeholder(name, array) for name, array in self.weights.items()] + self._constants,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_FUSED, 1)]
        model: bytes = onnx.ModelProto.SerializeToString(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        return model

    def _embeddings(self) -> str:
        # Sentences have one segment, so its embedding is a constant that can be added to the positions' beforehand.
        segment = self._file["embeddings.token_type_embeddings.weight"][0]
        positions = self._weight("positions", self._file["embeddings.position_embeddings.weight"] + segment)
        scale, bias = self._norm("embeddings.LayerNorm")
        inputs = ["input_ids", "", "word_embeddings", positions, "", scale, bias]
        # The second output, a mask index, is not optional, and not used.
        self._node(
            "EmbedLayerNormalization", inputs, ["embeddings", "embeddings_mask"], epsilon=self._config.layer_norm_eps
        )
        self._constant("row_shape", np.array([-1, self._config.hidden_size], np.int64))
        return self._op("Reshape", ["embeddings", "row_shape"], "embedding_rows")

    def _layer(self, rows: str, layer: int) -> str:
        """Add one encoder layer; ``rows`` and the result have shape (batch * longest, hidden_size)."""
        key = f"encoder.layer.{layer}"
        heads = [
            self._op("Reshape", [self._linear(rows, f"{key}.attention.self.{part}"), self._shape()], f"{key}.{part}")
            for part in ("query", "key", "value")
        ]
        self._node(
            "MultiHeadAttention",
            [*heads, "", "lengths"],
            [f"{key}.context"],
            num_heads=self._config.num_attention_heads,
        )
        context = self._op("Reshape", [f"{key}.context", "row_shape"], f"{key}.context_rows")
        attended = self._linear(context, f"{key}.attention.output.dense")
        rows = self._add_and_norm(attended, rows, f"{key}.attention.output.LayerNorm")
        widened = self._linear(rows, f"{key}.intermediate.dense")
        self._node("Gelu", [widened], [f"{key}.gelu"])
        return self._add_and_norm(self._linear(f"{key}.gelu", f"{key}.output.dense"), rows, f"{key}.output.LayerNorm")

    def _pool(self, rows: str) -> None:
        self._constant("zero", np.array(0, np.int32))
        self._constant("one", np.array(1, np.int32))
        self._constant("axis_1", np.array([1], np.int64))
        self._node("Shape", ["input_ids"], ["longest_1d"], domain="", start=1, end=2)
        self._op("Squeeze", ["longest_1d"], "longest_64")
        self._op("Cast", ["longest_64"], "longest", to=TensorProto.INT32)
        self._op("Range", ["zero", "longest", "one"], "token_index")
        self._op("Unsqueeze", ["lengths", "axis_1"], "lengths_column")
        self._op("Less", ["token_index", "lengths_column"], "counts")
        self._op("Cast", ["counts"], "mask", to=TensorProto.FLOAT)
        self._op("Unsqueeze", ["mask", "axis_1"], "mask_rows")
        self._op("Reshape", [rows, self._shape()], "token_vectors")
        self._op("MatMul", ["mask_rows", "token_vectors"], "sums_3d")
        self._op("Squeeze", ["sums_3d", "axis_1"], "sums")
        self._op("Cast", ["lengths_column"], "divisors", to=TensorProto.FLOAT)
        self._op("Div", ["sums", "divisors"], "means")
        self._op("LpNormalization", ["means"], "vectors", axis=-1, p=2)

    def _shape(self) -> str:
        """Return the tensor [batch, longest, hidden_size]."""
        if not any("batch_shape" in node.output for node in self._nodes):
            self._node("Shape", ["embeddings"], ["batch_shape"], domain="")
        return "batch_shape"

    def _linear(self, rows: str, key: str) -> str:
        weight = self._weight(f"{key}.weight", self._file[f"{key}.weight"])
        bias = self._weight(f"{key}.bias", self._file[f"{key}.bias"])
        return self._op("Gemm", [rows, weight, bias], f"{key}.out", transB=1)

    def _add_and_norm(self, rows: str, residual: str, key: str) -> str:
        self._node(
            "SkipLayerNormalization",
            [rows, residual, *self._norm(key)],
            [f"{key}.out"],
            epsilon=self._config.layer_norm_eps,
        )
        return f"{key}.out"

    def _norm(self, key: str) -> tuple[str, str]:
        return (
            self._weight(f"{key}.weight", self._file[f"{key}.weight"]),
            self._weight(f"{key}.bias", self._file[f"{key}.bias"]),
        )

    def _weight(self, name: str, array: NDArray[np.float32]) -> str:
        self.weights[name] = array
        return name

    def _constant(self, name: str, value: NDArray[Any]) -> None:
        self._constants.append(numpy_helper.from_array(value, name))

    def _op(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._node(op, inputs, [output], domain="", **attributes)
        return output

    def _node(self, op: str, inputs: list[str], outputs: list[str], domain: str = _FUSED, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))


def _placeholder(name: str, array: NDArray[np.float32]) -> Any:
    """Return a tensor that declares a weight without holding it; the session takes the data from memory."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="memory")
    return tensor
