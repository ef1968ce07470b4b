"""Methods that do not keep their object alive, for what the object itself holds.

An object with a cache of its own method refers to itself. Only a full garbage collection frees it,
and none does if it was loaded before the server began to serve (`gc.freeze`): the files of a
snapshot would stay open for good.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def weak_method(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Returns a function that calls a bound method, and must not outlive its object."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: _P.args, **named: _P.kwargs) -> _R:
        found = reference()
        assert found is not None, "the object has gone"
        return found(*arguments, **named)

    return call
