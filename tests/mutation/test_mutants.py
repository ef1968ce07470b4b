"""Which changes are made, and which are not worth a trial."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutation.mutants import find_mutants, mutated
from tests.mutation.sample import area_of, draw, shares

PATH = "generation/pages.py"


def _changes(source: str) -> list[str]:
    """Lists the changed lines of every mutant."""
    found = []
    for mutant in find_mutants(PATH, source):
        if (code := mutated(source, mutant)) is not None:
            lines = zip(source.splitlines(), code.splitlines(), strict=True)
            found += [after.strip() for before, after in lines if before != after]
    return sorted(found)


def _module(names: Sequence[str]) -> str:
    return "\n".join(f"def {name}(a, b):\n    return a < b and a + 1\n" for name in names)


def test_a_comparison_a_condition_and_a_number_each_change_alone() -> None:
    source = "def is_last(page, count):\n    if page >= count:\n        return page\n    return 0\n"
    assert _changes(source) == [
        "if not page >= count:",
        "if page < count:",
        "if page > count:",
        "return -1",
        "return 1",
    ]


def test_a_check_whose_result_is_not_used_is_left_out_once() -> None:
    source = "async def put(self, item):\n    await self.check(item)\n    return item\n"
    assert _changes(source) == ["pass"]


def test_each_exception_of_a_handler_is_replaced_alone_whatever_its_name() -> None:
    source = """\
def read(load):
    try:
        return load()
    except (OSError, binascii.Error):
        return None
    except asyncio.CancelledError:
        raise
    except (ValueError):
        return None
    except KeyError as error:
        return error
"""
    other = "CosmicRayTestingException"
    assert [line for line in _changes(source) if line.startswith("except")] == [
        f"except ({other}):",
        f"except ({other}, binascii.Error):",
        f"except (OSError, binascii.{other}):",
        f"except {other} as error:",
        f"except asyncio.{other}:",
    ]


def test_annotations_defaults_and_constants_are_not_mutated() -> None:
    source = (
        "from typing import cast\n"
        "LIMIT = 1024 * 4\n"
        "Pages = int | None\n"
        "class Book:\n"
        "    pages: int | None = 3\n"
        "    def page(self, number: int | None = 1, *, size: int = 2 + 3) -> str | None:\n"
        "        found: str | None = cast('str | None', self.pages)\n"
        "        kept = cast(str | bytes, found)\n"
        "        return kept if isinstance(found, str | bytes) else found\n"
    )
    # The choice of the last line alone.
    assert _changes(source) == ["return kept if not isinstance(found, str | bytes) else found"]


def test_messages_logs_metrics_and_descriptions_are_not_mutated() -> None:
    source = (
        "def turn(self, page):\n"
        "    _log.warning('page %d', page + 1)\n"
        "    metrics.pages.labels(self.name).inc(page - 1)\n"
        "    text = f'{page + 1}'\n"
        "    raise PageError('no page', page + 1)\n"
        "def __repr__(self):\n"
        "    return self.page + 1\n"
    )
    assert _changes(source) == []


def test_assertions_are_not_mutated() -> None:
    source = "def pairs(a, b):\n    assert len(a) > 1\n    return zip(a, b, strict=True)\n"
    assert _changes(source) == []


def test_stars_of_calls_and_signatures_are_no_products() -> None:
    source = (
        "def both(a, *rest, b, **named):\n    return call(*rest, **named), {**named}, [*rest]\n"
    )
    assert _changes(source) == []


def test_the_same_seed_draws_the_same_mutants_and_another_does_not() -> None:
    modules = {PATH: _module("abcdefgh"), "embedding/pages.py": _module("ijklmnop")}
    drawn = draw(modules, 12, seed=7)
    assert len(drawn) == len(set(drawn)) == 12
    assert drawn == draw(dict(modules), 12, seed=7)
    assert drawn != draw(modules, 12, seed=8)


def test_small_areas_get_their_least_and_the_rest_is_divided_by_size() -> None:
    assert shares({"large": 900, "small": 100, "tiny": 4}, 100) == {
        "large": 81,
        "small": 15,
        "tiny": 4,
    }
    assert sum(shares({"a": 3, "b": 2}, 100).values()) == 5


def test_generated_code_and_metrics_belong_to_no_area() -> None:
    assert area_of("retrieval/users/recorder.py") == "retrieval: users"
    assert area_of("nearline/v1/items_pb2.py") is None
    assert area_of("generation/protocols/metrics.py") is None
    assert area_of("nearline_cli/app.py") is None
