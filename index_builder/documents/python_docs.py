"""The corpus of the demo: the documentation of the running Python, as JSONL.

Sources are read with `ast`, never imported: importing a whole standard library opens browsers and
prints poems. Modules written in C have no source; these are imported, from a fixed list.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_SKIPPED = frozenset(
    {
        "__phello__",
        "antigravity",
        "config",
        "distutils",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "this",
        "tkinter",
        "turtle",
        "turtledemo",
    }
)
# Modules that hold the documentation, with the name that users import.
_TWINS = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_socket": "socket",
    "posix": "os",
    "posixpath": "os.path",
}
_IN_C = (
    *("array", "atexit", "binascii", "builtins", "cmath", "collections", "datetime", "decimal"),
    *("errno", "faulthandler", "fcntl", "functools", "gc", "grp", "io", "itertools", "marshal"),
    *("math", "mmap", "operator", "os", "pwd", "re", "resource", "select", "signal", "socket"),
    *("sqlite3", "struct", "sys", "syslog", "termios", "threading", "time", "unicodedata", "zlib"),
)
_STARS: dict[object, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Entry:
    """A documented name: a module, a class, a function or a method."""

    id: str
    title: str
    text: str
    module: str
    kind: str
    line: int

    def record(self) -> dict[str, object]:
        """Returns the corpus row; module, kind and line become attributes."""
        return {
            "id": self.id,
            "title": self.title,
            "text": self.text,
            "module": self.module,
            "kind": self.kind,
            "line": self.line,
        }


def write_corpus(path: Path) -> int:
    """Writes the corpus, in order of id, and returns the number of entries.

    The same Python writes the same bytes.
    """
    lines = [
        json.dumps(entry.record(), ensure_ascii=False, sort_keys=True) + "\n" for entry in entries()
    ]
    data = "".join(lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return len(lines)


def entries() -> list[Entry]:
    """Returns every public name of the standard library that has a docstring, in order of id.

    If source and interpreter both document a name, the source wins, since it has the line.
    """
    found: dict[str, Entry] = {}
    for entry in (*_from_sources(Path(sysconfig.get_path("stdlib"))), *_from_interpreter()):
        found.setdefault(entry.id, entry)
    return [found[key] for key in sorted(found)]


def _from_sources(root: Path) -> Iterator[Entry]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        name = _TWINS.get(parts[0], ".".join(parts)) if parts else ""
        if not name or any(
            part.startswith(("_", "config-")) or part in _SKIPPED for part in name.split(".")
        ):
            continue
        with warnings.catch_warnings():
            # Old modules contain invalid escapes, which do not concern us.
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
        yield from _entry(tree, name, name, name, "module")
        yield from _members(tree, name, name)


def _members(parent: ast.Module | ast.ClassDef, path: str, module: str) -> Iterator[Entry]:
    for node in _unfolded(parent.body):
        if not isinstance(node, (*_DEFINITIONS, ast.ClassDef)) or node.name.startswith("_"):
            continue
        name = f"{path}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _entry(node, name, f"class {name}", module, "class")
            yield from _members(node, name, module)
        else:
            kind = "method" if isinstance(parent, ast.ClassDef) else "function"
            yield from _entry(node, name, f"{name}({_parameters(node)})", module, kind)


def _unfolded(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields statements, including those under a top-level `if` or `try`."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _unfolded(node.body)
            yield from _unfolded(node.orelse)
        else:
            yield node


def _entry(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
    name: str,
    title: str,
    module: str,
    kind: str,
) -> Iterator[Entry]:
    text = ast.get_docstring(node)
    if text and text.strip():
        line = 1 if isinstance(node, ast.Module) else node.lineno
        yield Entry(name, title, text.strip(), module, kind, line)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = node.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if named and named[0] in ("self", "cls"):
        named = named[1:]
    if arguments.vararg:
        named.append(f"*{arguments.vararg.arg}")
    named += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        named.append(f"**{arguments.kwarg.arg}")
    return ", ".join(named)


def _from_interpreter() -> Iterator[Entry]:
    for name in _IN_C:
        try:
            module = importlib.import_module(name)
        except ImportError:
            # Some systems lack some modules, such as syslog.
            continue
        yield from _documented(module, name, name, name, "module")
        for member in sorted(vars(module)):
            if not member.startswith("_"):
                yield from _native(module, member)


def _native(module: ModuleType, member: str) -> Iterator[Entry]:
    name = module.__name__
    value = getattr(module, member)
    # An imported name is documented in its own module.
    if _home(value, name) != name:
        return
    path = member if name == "builtins" else f"{name}.{member}"
    if inspect.isclass(value):
        yield from _documented(value, path, f"class {path}", name, "class")
        # All exceptions share their methods.
        own = (
            []
            if issubclass(value, BaseException)
            else [parent for parent in value.__mro__ if _home(parent, name) == name]
        )
        for attribute in sorted({key for parent in own for key in vars(parent)}):
            inner = getattr(value, attribute, None)
            if not attribute.startswith("_") and callable(inner):
                inside = f"{path}.{attribute}"
                yield from _documented(inner, inside, _signed(inside, inner), name, "method")
    elif callable(value):
        yield from _documented(value, path, _signed(path, value), name, "function")


def _home(value: object, default: str) -> str:
    origin = str(getattr(value, "__module__", None) or default)
    return _TWINS.get(origin, origin.lstrip("_"))


def _signed(path: str, value: object) -> str:
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError):
        return f"{path}()"
    names = [
        _STARS.get(p.kind, "") + p.name
        for p in signature.parameters.values()
        if p.name not in ("self", "cls", "type")
    ]
    return f"{path}({', '.join(names)})"


def _documented(value: object, name: str, title: str, module: str, kind: str) -> Iterator[Entry]:
    text = inspect.getdoc(value)
    # Without a docstring of its own, an object shows that of its type.
    if text and text.strip() and getattr(value, "__doc__", None):
        yield Entry(name, title, text.strip(), module, kind, 0)


def python_version() -> str:
    """Returns the version that the corpus documents."""
    return ".".join(map(str, sys.version_info[:3]))
