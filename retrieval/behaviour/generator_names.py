"""Names of the candidate generators that a router may ask shards for."""

from __future__ import annotations

from typing import Final

# The sources of the blend, or of the ranker, for the user's history.
USER: Final = "user"
# What goes with the given items. TAIL: nothing, see `behaviour_shard`.
GOES_WITH: Final = "goes_with"
TAIL: Final = "tail"
# Nearest to the user's vector, or to that of somebody who had the given items.
NEAREST: Final = "nearest"
# The same for everyone: by the snapshot's table of popularity, by plain counts, by popularity that
# decays within days, and by popularity times repeat rate.
POPULAR: Final = "popular"
COUNTS: Final = "counts"
TRENDING: Final = "trending"
REBOUGHT: Final = "rebought"
# What the user had, and how due it is.
REPURCHASE: Final = "repurchase"
