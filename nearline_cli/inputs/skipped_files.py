"""Files in named folders that are skipped because nothing can be read from them, such as pictures.

They are counted and named, so that nobody takes them for indexed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearline_cli.terminal import output


def print_skipped(skipped: Sequence[str]) -> None:
    """Prints how many files were skipped, by ending; nothing if there are none.

    Args:
        skipped: Their paths.
    """
    # Imported late: reading no folder needs no reader.
    from index_builder.readers.folder import describe_skipped

    if skipped:
        output.print_note(output.escaped(f"skipped {describe_skipped(skipped)}"))


def skipped_record(skipped: Sequence[str]) -> Mapping[str, int]:
    """Returns the number of skipped files by ending, the most frequent first."""
    from index_builder.readers.folder import by_ending

    return {ending: len(names) for ending, names in by_ending(skipped).items()}
