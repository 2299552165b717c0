"""The code that a result depends on: a hash that comments, docstrings and changes elsewhere leave as it is.

A module counts by its syntax tree, with all modules of the project that it imports, those inside functions included, and with the versions
of the libraries that shape numbers. What is imported for type checkers alone is left out.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
PLACES: Mapping[str, Path] = {"nightloom": PACKAGE, "expectations": PACKAGE.parent.parent / "expectations"}
"""Package -> its folder: the code of the project that results may depend on."""
APART = ("nightloom.config", "nightloom.runs", "nightloom.promotion.registry")
"""Left out, as is the package's own `__init__` with its version. A stage's key holds the values of the config that it reads, and where
files are kept shapes no result."""
LIBRARIES = {
    "PIL": ("pillow",),
    "gensim": ("gensim",),
    "great_expectations": ("great-expectations",),
    "implicit": ("implicit",),
    "lightgbm": ("lightgbm",),
    "numpy": ("numpy",),
    "openvino": ("openvino",),
    "pandas": ("pandas", "pyarrow"),
    "peft": ("peft",),
    "pyarrow": ("pyarrow",),
    "safetensors": ("safetensors",),
    "scipy": ("scipy",),
    "sklearn": ("scikit-learn",),
    "torch": ("torch",),
    "transformers": ("transformers", "tokenizers"),
}
"""Name in an import -> distributions whose versions shape results."""


def code_of(roots: Iterable[Callable[..., Any] | str], places: Mapping[str, Path] | None = None) -> str:
    """Hash of all code that some functions or modules depend on, 16 hex digits.

    Args:
        roots: functions, each standing for the module that defines it, or names of modules; a package stands for all its modules.
            Those outside of `places` are left out.
        places: package -> folder of its source; None: `PLACES`.
    """
    places = PLACES if places is None else places
    names = [root if isinstance(root, str) else str(getattr(root, "__module__", "")) for root in roots]
    found: dict[str, tuple[str, Path]] = {}
    libraries: set[str] = set()
    waiting = [one for name in names for one in _modules_of(name, places)]
    while waiting:
        name = waiting.pop()
        if name in found or _is_apart(name) or (path := _file(name, places)) is None:
            continue
        found[name] = (_tree(path)[0], path)
        for one in _imports(path, name):
            if one.partition(".")[0] in places:
                waiting.append(one)
            else:
                libraries.update(LIBRARIES.get(one.partition(".")[0], ()))
    digest = sha256()
    for name in sorted(found):
        digest.update(f"{name} {found[name][0]}\n".encode())
    for library in sorted(libraries):
        digest.update(f"{library} {_version(library)}\n".encode())
    return digest.hexdigest()[:16]


@functools.cache
def code_version() -> str:
    """Hash of the recommender's whole code and of the data contracts beside it, 12 hex digits; comments and docstrings do not count."""
    digest = sha256()
    for package, folder in sorted(PLACES.items()):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package} {path.relative_to(folder).as_posix()} {_tree(path)[0]}\n".encode())
    return digest.hexdigest()[:12]


def _modules_of(name: str, places: Mapping[str, Path]) -> list[str]:
    path = _file(name, places)
    if path is None or path.name != "__init__.py":
        return [name]
    inside = (one.relative_to(path.parent).with_suffix("").parts for one in sorted(path.parent.rglob("*.py")))
    return [".".join((name, *(part for part in parts if part != "__init__"))) for parts in inside]


def _is_apart(name: str) -> bool:
    return name == "nightloom" or any(name == one or name.startswith(f"{one}.") for one in APART)


def _file(name: str, places: Mapping[str, Path]) -> Path | None:
    """The source of a module or package; None where it is not of the project."""
    package, *parts = name.split(".")
    if package not in places:
        return None
    stem = places[package].joinpath(*parts)
    found = (stem / "__init__.py", stem.with_name(f"{stem.name}.py")) if parts else (stem / "__init__.py",)
    return next((path for path in found if path.is_file()), None)


def _imports(path: Path, name: str) -> Iterator[str]:
    """Names that a module's imports may mean: of `from a import b` both `a` and `a.b`, which may be a module, and the packages around."""
    here = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for module, level, names in _tree(path)[1]:
        around = here.split(".")[: len(here.split(".")) - level + 1] if level else []
        whole = ".".join([*around, *([module] if module else [])])
        yield from (whole, *(f"{whole}.{one}" for one in names))
        parts = whole.split(".")
        yield from (".".join(parts[:length]) for length in range(2, len(parts)))


def _tree(path: Path) -> tuple[str, tuple[tuple[str, int, tuple[str, ...]], ...]]:
    return _read(path, path.stat().st_mtime_ns, path.stat().st_size)


@functools.cache
def _read(path: Path, _changed: int, _size: int) -> tuple[str, tuple[tuple[str, int, tuple[str, ...]], ...]]:
    """A file's hash, and its imports as (module, level, names)."""
    tree = _Bare().visit(ast.parse(path.read_bytes()))
    imports: list[tuple[str, int, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(one.name, 0, ()) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.module or "", node.level, tuple(one.name for one in node.names)))
    return sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports)


class _Bare(ast.NodeTransformer):
    """Leaves out what does nothing when the code runs: docstrings, and what only type checkers read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
