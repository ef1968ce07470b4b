"""Makes vectors that are harder to search than those of a sentence embedder.

    python -m benchmarks.peers.vectors --out vectors.npy

The vectors are TF-IDF of short texts after a truncated SVD, at unit length. Texts are the titles
and sentences of corpora (BEIR layout), in file order, without repeats; without corpora they are
made up.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.texts import short_texts
from nearline.errors import InvalidRequest, NearlineError
from nearline_cli.terminal.output import print_error

# Shorter vectors have no direction: nothing of the text is in the factors.
_SHORTEST = 1e-6


def sentence_vectors(texts: Sequence[str], dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns a unit vector for each text with a word that another text has, too: (n, dim).

    Raises InvalidRequest: The texts have fewer such words than dimensions are asked for.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        table = TfidfVectorizer(
            sublinear_tf=True, min_df=2, stop_words="english", dtype=np.float32
        ).fit_transform(texts)
        matrix = TruncatedSVD(dim, n_iter=2, random_state=seed).fit_transform(table)
    except ValueError as error:
        raise InvalidRequest(
            f"{len(texts)} texts give no vectors of {dim} dimensions ({error}); name more texts, "
            "or lower --dim",
            field="dim",
        ) from error
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    kept = lengths[:, 0] > _SHORTEST
    vectors: NDArray[np.float32] = (matrix[kept] / lengths[kept]).astype(np.float32)
    return vectors


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.vectors", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "corpus", nargs="*", type=Path, help="corpus.jsonl in BEIR layout [../shared/data/*]"
    )
    parser.add_argument("--out", required=True, type=Path, help=".npy file to write")
    parser.add_argument("--n", type=int, default=50_000, help="Most texts to use (%(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="Dimensions (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the SVD (%(default)s)")
    options = parser.parse_args(argv)
    try:
        vectors = sentence_vectors(
            short_texts(options.n, options.corpus, options.seed), options.dim, seed=options.seed
        )
    except NearlineError as error:
        print_error(error)
        return 1
    np.save(options.out, vectors)
    print(json.dumps({"vectors": len(vectors), "dim": options.dim, "file": str(options.out)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
