"""Tests the tests: cosmic-ray changes the code in random places, and the nearest tests run.

    python -m tests.mutation.run --sample 120 --seed 7 .cache/mutation/120-7.sqlite

It works on a clone of the last commit, and continues a session that was stopped.
`cr-report --show-diff --surviving-only SESSION` prints what no test noticed.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[2]
_PACKAGES = "nearline embedding retrieval index_builder generation gateway nearline_cli".split()
# Changes that can pass for a slip: `<` for `<=`, never `<<` for `+`, which fails at once.
_OPERATORS = """
    ReplaceBinaryOperator_Add_Sub ReplaceBinaryOperator_Sub_Add ReplaceBinaryOperator_Mul_Div
    ReplaceBinaryOperator_Div_Mul ReplaceComparisonOperator_Eq_NotEq
    ReplaceComparisonOperator_NotEq_Eq ReplaceComparisonOperator_Lt_LtE
    ReplaceComparisonOperator_LtE_Lt ReplaceComparisonOperator_Gt_GtE
    ReplaceComparisonOperator_GtE_Gt ReplaceComparisonOperator_Lt_GtE
    ReplaceComparisonOperator_Gt_LtE ReplaceComparisonOperator_LtE_Gt
    ReplaceComparisonOperator_GtE_Lt ReplaceComparisonOperator_Is_IsNot
    ReplaceComparisonOperator_IsNot_Is ReplaceUnaryOperator_Delete_USub
    ReplaceUnaryOperator_Delete_Not AddNot ReplaceAndWithOr ReplaceOrWithAnd
    ReplaceTrueWithFalse ReplaceFalseWithTrue NumberReplacer ReplaceBreakWithContinue
    ReplaceContinueWithBreak ExceptionReplacer ZeroIterationForLoop
""".split()
_ARITHMETIC = {"arith_expr", "term"}
# Types, defaults, and what is said to people.
_LEFT_OUT = {"annassign", "assert_stmt", "decorator", "fstring", "param", "raise_stmt"}
_DESCRIPTIONS = {"__repr__", "__str__"}
_OBSERVATION = re.compile(
    r"\s*(_?(log|LOG|logging|metrics|warnings)\b|.*\.(inc|dec|observe)\()", re.S
)
# Not those of documents, of whole systems, and of servers that are not here.
_NEAR = re.compile(
    r"tests/(?!benchmarks|deploy|docs|integrations|live|milvus|mutation|project).*/test_"
)
# Those that start services take longer.
_MAX_FILES, _MAX_SERVICE_FILES, _TESTS_S = 16, 8, 400.0
_PYTEST = [sys.executable, "-m", "pytest", "-xq", "-rfE", "--tb=line", "-p", "no:cacheprovider"]
_PYTEST += ["-o", "timeout=20"]
# The quick ones first. Exit code 5: there are none.
_BOTH = """{quick}; code=$?; [ $code = 0 ] || [ $code = 5 ] || exit $code
{others}; code=$?; [ $code = 5 ] || exit $code"""
_FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.M)


def _is_mutable(node: Any) -> bool:
    """Returns whether a change here could be a defect: code of a function, nothing else."""
    if node.type in _LEFT_OUT:
        return False
    if node.type == "operator" and node.parent.type not in _ARITHMETIC:
        return False
    below, above = node, node.parent
    while above is not None:
        if above.type in _LEFT_OUT:
            return False
        # As in `zip(a, b, strict=True)`.
        if above.type == "argument" and above.get_first_leaf().value == "strict":
            return False
        if above.type == "atom_expr" and _OBSERVATION.match(above.get_code()):
            return False
        if above.type == "funcdef":
            return below is not above.annotation and above.name.value not in _DESCRIPTIONS
        below, above = above, above.parent
    return False


def mutations(path: str, source: str) -> list[MutationSpec]:
    """Lists the changes of a module that a test ought to notice."""
    nodes = [(node, _is_mutable(node)) for node in ast_nodes(get_ast(source))]
    found = []
    for name in _OPERATORS:
        operator, occurrence = get_operator(f"core/{name}")(), 0
        for node, is_mutable in nodes:
            for start, end in operator.mutation_positions(node):
                if is_mutable:
                    found.append(MutationSpec(path, f"core/{name}", occurrence, start, end))
                occurrence += 1
    return found


def changed(source: str, mutation: MutationSpec) -> str | None:
    """Returns the changed module; None if it is no other program, or none at all."""
    try:
        code = mutate_code(source, get_operator(mutation.operator_name)(), mutation.occurrence)
        is_same = ast.dump(ast.parse(code)) == ast.dump(ast.parse(source))
    except (SyntaxError, AttributeError, TypeError):
        # cosmic-ray cannot replace every kind of exception.
        return None
    return None if is_same else str(code)


def draw(sources: dict[str, str], count: int, seed: int) -> Iterator[MutationSpec]:
    """Yields changes at random, of large modules more than of small ones, no two in one place."""
    rng, places = random.Random(seed), set[object]()
    while len(places) < count:
        (path,) = rng.choices(list(sources), [len(text) for text in sources.values()])
        if found := mutations(path, sources[path]):
            mutation = rng.choice(found)
            place = (path, mutation.start_pos)
            if place not in places and changed(sources[path], mutation):
                places.add(place)
                yield mutation


def nearest_tests(path: str, sources: dict[str, str], tests: dict[str, str]) -> list[str]:
    """Returns test files: that of the module's name; those that import it; those of its folder;
    those that import what imports it.
    """
    folder = os.path.dirname(path)
    own = f"tests/{folder}/test_{os.path.basename(path)}"
    while not (beside := [one for one in tests if os.path.dirname(one) == f"tests/{folder}"]):
        folder = os.path.dirname(folder)
    users = [test for source in _importers(path, sources) for test in _importers(source, tests)]
    found = (*_importers(path, tests), *beside, *users)
    return list(dict.fromkeys((*(one for one in found if one == own), *found)))[:_MAX_FILES]


def _importers(path: str, texts: dict[str, str]) -> list[str]:
    module = path.removesuffix(".py").replace("/", ".")
    package, _, name = module.rpartition(".")
    names = rf"from {package} import (\([^)]*|.*)\b{name}\b"
    imported = re.compile(rf"\b{re.escape(module)}\b|{names}")
    return [one for one, text in texts.items() if imported.search(text)]


def read(*folders: str) -> dict[str, str]:
    """Returns the text of modules by path, without generated code and without metrics."""
    paths = [one for folder in folders for one in sorted(Path(folder).rglob("*.py"))]
    left_out = re.compile(r"_pb2|__init__|metrics\.py|/v1/")
    return {str(one): one.read_text("utf-8") for one in paths if not left_out.search(str(one))}


def try_change(item: WorkItem, near: list[str]) -> WorkResult:
    """Runs the nearest tests with a change; one that fails without it, too, notices nothing."""
    quick = shlex.join([*_PYTEST, "-m", "not service", *near])
    others = shlex.join([*_PYTEST, "-m", "service or long", *near[:_MAX_SERVICE_FILES]])
    both = shlex.join(["sh", "-c", _BOTH.format(quick=quick, others=others)])
    result = mutate_and_test(item.mutations, both, _TESTS_S)
    failed = _FAILED.search(result.output or "")
    # Each test has its own limit of time, so tests that are too slow together noticed nothing.
    note = "cut short" if result.output == "timeout" else ""
    if failed and subprocess.run([*_PYTEST, failed[1]], capture_output=True).returncode:
        note = f"{failed[1]} fails without it"
    if note:
        return WorkResult(WorkerOutcome.NORMAL, note, TestOutcome.SURVIVED, result.diff)
    return result


def main() -> None:
    """Tries all changes of a session, which it makes if there is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description=__doc__)
    parser.add_argument("session", type=Path)
    parser.add_argument("--sample", type=int, default=120, help="number of changes")
    parser.add_argument("--seed", type=int, default=1, help="decides which")
    options = parser.parse_args()
    session = options.session.absolute()
    session.parent.mkdir(parents=True, exist_ok=True)
    checkout = session.with_suffix(".checkout")
    shutil.rmtree(checkout, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    # cosmic-ray lets tests write no byte code; without any, each run would compile everything.
    compileall.compile_dir(str(checkout), quiet=2)
    os.environ.setdefault("NEARLINE_DATA", str(ROOT.parent / "shared" / "data"))
    os.environ["PYTHONPATH"] = str(checkout)
    os.chdir(checkout)
    with use_db(str(session)) as db:
        sources = read(*_PACKAGES)
        if not db.num_work_items:
            drawn = draw(sources, options.sample, options.seed)
            db.add_work_items(WorkItem.single(str(n), one) for n, one in enumerate(drawn))
        tests = {path: text for path, text in read("tests").items() if _NEAR.match(path)}
        for item in list(db.pending_work_items):
            (mutation,) = item.mutations
            near = nearest_tests(str(mutation.module_path), sources, tests)
            result = try_change(item, near)
            db.set_result(item.job_id, result)
            place = f"{mutation.module_path}:{mutation.start_pos[0]}"
            print(item.job_id, result.test_outcome.value, place, mutation.operator_name, flush=True)
        noticed = sum(result.is_killed for _, result in db.results)
        share = noticed / max(1, db.num_results)
        print(f"{noticed} of {db.num_results} changes were noticed: {share:.1%}")


if __name__ == "__main__":
    main()
