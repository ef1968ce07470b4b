"""The searchable fields of a build: of its options, else of the snapshot that it continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from index_builder.lineage.lineage import Lineage
from index_builder.options.build_options import BuildOptions
from nearline.items.search_languages import check_search_languages
from retrieval.index.lexical.text_analysis import LANGUAGES


class SearchFields(NamedTuple):
    """The searchable fields.

    weights: By name; see `check_search_weights`. languages: Of attributes that have another one
    than the collection.
    """

    weights: Mapping[str, float]
    languages: Mapping[str, str]


def search_fields(options: BuildOptions, lineage: Lineage | None) -> SearchFields:
    """Returns the searchable fields of a build.

    Weights and languages that the options lack are those of the snapshot that the build continues:
    languages only for attributes that still have a weight.

    Raises: InvalidRequest: a language of the options is for an attribute without a weight.
    """
    parent = lineage.parent if lineage is not None else None
    weights, languages = options.search_weights, options.search_languages
    if parent is not None and not weights:
        weights = dict(parent.lexical.weights)
    if parent is not None and not languages:
        kept = parent.lexical.languages
        languages = {name: kept[name] for name in kept if name in weights}
    check_search_languages(languages, weights, LANGUAGES)
    return SearchFields(weights, languages)
