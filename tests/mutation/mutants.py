"""Finds the changes that cosmic-ray can make to a module and that a test ought to notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.exception_replacer import ExceptionReplacer
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Keyword

# Replacements that can pass for a slip: `<` for `<=`, never `<<` for `+`, which fails at once.
_BINARY = (
    "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul "
    "RShift_LShift LShift_RShift BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd"
)
_COMPARISONS = (
    "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is"
)
_FAMILIES = {
    "arithmetic": [f"ReplaceBinaryOperator_{name}" for name in _BINARY.split()],
    "comparison": [f"ReplaceComparisonOperator_{name}" for name in _COMPARISONS.split()],
    "sign": ["ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"],
    "condition": ["AddNot"],
    "and, or": ["ReplaceAndWithOr", "ReplaceOrWithAnd"],
    "constant": ["ReplaceTrueWithFalse", "ReplaceFalseWithTrue"],
    "number": ["NumberReplacer"],
    "jump": ["ReplaceBreakWithContinue", "ReplaceContinueWithBreak"],
    "except": ["ExceptionReplacer"],
    "loop": ["ZeroIterationForLoop"],
    "call": ["CallRemoval"],
}
_FAMILY = {name: family for family, names in _FAMILIES.items() for name in names}
# The kinds of nodes that these operators look at.
_NODES = {
    "comparison",
    "except_clause",
    "factor",
    "for_stmt",
    "if_stmt",
    "keyword",
    "not_test",
    "number",
    "operator",
    "simple_stmt",
    "test",
    "while_stmt",
}
_BINARY_PARENTS = {"and_expr", "arith_expr", "expr", "power", "shift_expr", "term", "xor_expr"}
# Arguments that only assert something, as `zip(a, b, strict=True)` does.
_ASSERTIONS = {"strict"}
# What is said to people, and types.
_LEFT_OUT = {"assert_stmt", "decorator", "fstring", "param", "raise_stmt"}
_DESCRIPTIONS = {"__repr__", "__str__"}
_OBSERVERS = {"_LOG", "_log", "log", "logging", "metrics", "warnings"}
_OBSERVATIONS = {"dec", "inc", "labels", "observe"}
_TYPE_CALLS = {"TypeAdapter", "cast", "isinstance", "issubclass"}


@dataclass(frozen=True, order=True)
class Mutant:
    """One change of one module.

    Attributes:
        path: The module, relative to the root of the repository.
        line: Where the change is, from 1.
        column: Where in the line, from 0.
        operator: Which operator of cosmic-ray makes it, or `CallRemoval`.
        occurrence: Which of the places where that operator applies, from 0.
    """

    path: str
    line: int
    column: int
    operator: str
    occurrence: int

    @property
    def family(self) -> str:
        """The kind of change; a place has one mutant of each kind in a sample."""
        return _FAMILY[self.operator]


class CallRemoval(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """Removes a call whose result is not used: a check, a release, a notification."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Yields where the statement begins and ends."""
        if node.type == "simple_stmt" and node.children[0].type == "atom_expr":
            call = node.children[0]
            if call.children[-1].type == "trailer" and call.children[-1].children[0].value == "(":
                yield call.start_pos, call.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Returns the statement with `pass` in place of the call."""
        call = node.children[0]
        node.children[0] = Keyword("pass", call.start_pos, call.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Returns what it does, by an example."""
        return (Example("check(1)\n", "pass\n"),)


class HandlerReplacer(ExceptionReplacer):  # type: ignore[misc]  # cosmic-ray has no types
    """Replaces an exception of a handler; cosmic-ray's fails at names like `binascii.Error`."""

    @staticmethod
    def _name_nodes(node: Any) -> list[Any]:
        caught = node.children[1]
        if caught.type == "atom":
            caught = caught.children[1]
        several = caught.type == "testlist_comp"
        parts = caught.children[::2] if several else [caught]
        return [part.get_last_leaf() for part in parts]


def _names(call: Any) -> list[str]:
    """Lists the dotted name that a call or attribute begins with."""
    names = [leaf.value for leaf in call.children[:2] if leaf.type == "name"]
    for part in call.children:
        if part.type == "trailer" and part.children[0].value == ".":
            names.append(part.children[1].value)
    return names


def _is_observation(call: Any) -> bool:
    """Returns whether it only writes a log line or a metric."""
    names = set(_names(call))
    return bool(names & _OBSERVERS or names & _OBSERVATIONS)


def _is_type_union(node: Any) -> bool:
    """Returns whether a `|` joins types: cosmic-ray takes all but a few for arithmetic."""
    if node.type != "operator" or node.value != "|":
        return False
    if any(child.type == "keyword" for child in node.parent.children):
        return True
    above = node.parent
    while above is not None and above.type not in {"simple_stmt", "suite"}:
        if above.type == "atom_expr" and _names(above)[:1] and _names(above)[0] in _TYPE_CALLS:
            return True
        above = above.parent
    return False


def _is_mutable(node: Any) -> bool:
    """Returns whether a change here could be a defect: code of a function, nothing else."""
    if node.type == "operator" and node.parent.type not in _BINARY_PARENTS:
        return False
    if _is_type_union(node):
        return False
    if node.type == "simple_stmt" and node.children[0].type == "atom_expr":
        if _is_observation(node.children[0]):
            return False
    below, above, in_function = node, node.parent, False
    while above is not None:
        if above.type in _LEFT_OUT:
            return False
        if above.type == "argument" and above.get_first_leaf().value in _ASSERTIONS:
            return False
        if above.type == "annassign" and below is above.children[1]:
            return False
        if above.type == "atom_expr" and _is_observation(above):
            return False
        if above.type == "funcdef":
            if above.name.value in _DESCRIPTIONS or below is above.annotation:
                return False
            in_function = True
        below, above = above, above.parent
    return in_function


_OWN = {"CallRemoval": CallRemoval, "ExceptionReplacer": HandlerReplacer}


def _operator(name: str) -> Any:
    own = _OWN.get(name)
    return OperatorProvider()[name]() if own is None else own()


def find_mutants(path: str, source: str) -> list[Mutant]:
    """Lists every change that a test ought to notice.

    Left out are module and class bodies, default values, annotations, decorators, messages of
    errors, assertions, log lines, metrics, and `__repr__`.
    """
    nodes = [node for node in ast_nodes(get_ast(source)) if node.type in _NODES]
    mutable = [_is_mutable(node) for node in nodes]
    found = []
    for name in _FAMILY:
        operator = _operator(name)
        occurrence = 0
        for node, is_mutable in zip(nodes, mutable, strict=True):
            for (line, column), _ in operator.mutation_positions(node):
                if is_mutable:
                    found.append(Mutant(path, line, column, name, occurrence))
                occurrence += 1
    return sorted(found)


def mutated(source: str, mutant: Mutant) -> str | None:
    """Returns the changed module; None if it is no other program, or none at all."""
    code = MutationVisitor.mutate_code(source, _operator(mutant.operator), mutant.occurrence)
    if code is None:
        return None
    try:
        is_same = ast.dump(ast.parse(code)) == ast.dump(ast.parse(source))
    except SyntaxError:
        return None
    return None if is_same else str(code)
