"""From a suite's name or path to a validated ``Suite`` that knows where each of its values was written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ditbench.harness.errors import InputError, Position, did_you_mean
from ditbench.harness.suite.positions import KeyPath, Node, merge, parse, read_text, respelled_number
from ditbench.harness.suite.schema import SHORTHAND, Suite, suite_model
from ditbench.harness.suite.validation import validate


@dataclass(frozen=True)
class LoadedSuite:
    """A suite after ``extends`` was followed.

    suite   the validated values; weights paths are absolute
    source  what the user typed: a path or a shipped name
    files   the suite's own file, then the ones that it extends, nearest first
    text    the same suite as one YAML document that stands alone
    root    the values with their places
    """

    suite: Suite
    source: str
    files: tuple[Path, ...]
    text: str = field(repr=False)
    root: Node = field(repr=False)

    def position_of(self, path: KeyPath) -> Position:
        """Where the value at ``path`` stands, e.g. ``("cells", 0, "steps")``; else its closest ancestor."""
        return self.root.nearest(path).position


def shipped_suites() -> dict[str, Path]:
    """Name -> file of the suites that come with ditbench, by name."""
    folder = Path(str(files("ditbench.suites")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def load_suite(source: str | Path) -> LoadedSuite:
    """Read a suite from a path, or a shipped one by its name when no such file exists.

    Raises InputError, with the place in the file, for anything that is wrong with it.
    """
    file = _find(str(source), Path(), Position(Path(source)))
    root, chain = _read(file, ())
    root = _absolute_weights(root)
    suite = validate(suite_model(), root)
    return LoadedSuite(suite, str(source), chain, _dump(root.plain()), root)


def expand_shorthand(fields: Node) -> Node:
    """``sampler: ddim`` becomes ``sampler: {name: ddim}`` in the fields of a cell or of ``defaults``, and a ``method``
    with its config and modifiers in it becomes three fields."""
    fields = _method_apart(fields)
    for name, inner in SHORTHAND.items():
        child = fields.child(name)
        if child is not None and child.value is not None and not isinstance(child.value, dict | list):
            fields = fields.with_child(name, replace(child, value={inner: replace(child, key=None)}))
    return fields


def _method_apart(fields: Node) -> Node:
    """``method: {name: x, key: value, with: [...]}`` -> method: x, config: {key: value}, modifiers: [...].

    Whoever names a method starts without the modifiers of ``defaults``, whose method is another one.
    """
    method = fields.child("method")
    if method is None or method.value is None or isinstance(method.value, list):
        return fields
    if not isinstance(method.value, dict):
        bare = Node([], method.position)
        return fields if fields.child("modifiers") is not None else fields.with_child("modifiers", bare)
    name = method.child("name")
    if name is None:
        raise InputError("method: give its name, as in {name: dit-xl-2, with: [...]}", method.position)
    around = method.child("with") or Node([], method.position)
    keys = {key: child for key, child in method.value.items() if key not in ("name", "with")}
    config = merge(fields.child("config") or Node({}, method.position), Node(keys, method.position))
    fields = fields.with_child("method", name).with_child("modifiers", _listed(around))
    return fields.with_child("config", config) if keys or fields.child("config") is not None else fields


def _listed(around: Node) -> Node:
    """[fora, {tome: {ratio: 0.3}}] -> [{fora: {}}, {tome: {ratio: 0.3}}]."""
    if not isinstance(around.value, list):
        return around
    items = [
        replace(item, value={item.value: Node({}, item.position)}) if isinstance(item.value, str) else item
        for item in around.value
    ]
    return replace(around, value=items)


def _find(source: str, folder: Path, position: Position) -> Path:
    file = folder / Path(source).expanduser()
    if file.is_file():
        return file
    shipped = shipped_suites()
    has_separator = "/" in source or "\\" in source
    if not has_separator and source in shipped:
        return shipped[source]
    if file.exists() or has_separator:
        problem = "a folder, not a suite" if file.is_dir() else "not a file"
        raise InputError(f"{source} is {problem}" if file.exists() else f"no such file: {source}", position)
    hint = did_you_mean(source, shipped) or f" (shipped suites: {', '.join(shipped)})"
    raise InputError(f"no file and no shipped suite is called {source!r}{hint}", position)


def _read(file: Path, chain: tuple[Path, ...]) -> tuple[Node, tuple[Path, ...]]:
    """The merged tree of ``file``, and all files that it came from. ``chain``: the files that led here."""
    root = parse(read_text(file), file)
    if not isinstance(root.value, dict):
        raise InputError("a suite is a mapping of keys: it needs at least 'suite' and 'cells'", root.position)
    root = _shorthand_everywhere(root)
    chain = (*chain, file)
    extends = root.child("extends")
    root = _without(root, "extends")
    if extends is None or extends.value is None:
        return root, (file,)
    if not isinstance(extends.value, str):
        raise InputError("extends: give the name of a shipped suite or a path", extends.position)
    parent = _find(extends.value, file.parent, extends.position)
    if parent.resolve() in [above.resolve() for above in chain]:
        names = " -> ".join(str(above) for above in (*chain, parent))
        raise InputError(f"extends runs in a circle: {names}", extends.position)
    base, inherited = _read(parent, chain)
    # A child that kept its parent's name could not be told from it in reports.
    return merge(_without(base, "suite"), root), (file, *inherited)


def _without(node: Node, name: str) -> Node:
    assert isinstance(node.value, dict)
    return replace(node, value={key: child for key, child in node.value.items() if key != name})


def _shorthand_everywhere(root: Node) -> Node:
    defaults, cells = root.child("defaults"), root.child("cells")
    if defaults is not None and isinstance(defaults.value, dict):
        root = root.with_child("defaults", expand_shorthand(defaults))
    if cells is not None and isinstance(cells.value, list):
        expanded = [expand_shorthand(cell) if isinstance(cell.value, dict) else cell for cell in cells.value]
        root = root.with_child("cells", replace(cells, value=expanded))
    return root


def _absolute_weights(root: Node) -> Node:
    """Weights paths are relative to the file that names them; the flattened suite may lie elsewhere."""

    def fields(node: Node) -> Node:
        weights, decoder, matrix = (node.child(name) for name in ("weights", "decoder", "matrix"))
        if weights is not None:
            node = node.with_child("weights", _absolute(weights))
        if decoder is not None and (weights := decoder.child("weights")) is not None:
            node = node.with_child("decoder", decoder.with_child("weights", _absolute(weights)))
        for key in ("weights", "decoder", "decoder.weights"):
            swept = matrix.child(key) if matrix is not None else None
            if matrix is not None and swept is not None and isinstance(swept.value, list):
                swept = replace(swept, value=[_absolute(item) for item in swept.value])
                matrix = matrix.with_child(key, swept)
                node = node.with_child("matrix", matrix)
        return node

    defaults, cells = root.child("defaults"), root.child("cells")
    if defaults is not None and isinstance(defaults.value, dict):
        root = root.with_child("defaults", fields(defaults))
    if cells is not None and isinstance(cells.value, list):
        absolute = [fields(cell) if isinstance(cell.value, dict) else cell for cell in cells.value]
        root = root.with_child("cells", replace(cells, value=absolute))
    return root


def _absolute(weights: Node) -> Node:
    if not isinstance(weights.value, str) or weights.value.startswith(("zoo:", "asset:")) or not weights.value:
        return weights
    path = weights.position.file.parent / Path(weights.value).expanduser()
    return replace(weights, value=str(path.absolute()))


class _Dumper(yaml.SafeDumper):
    """Writes text so that ``parse`` reads the same text again."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML would leave '1e-3' bare, and reading it back is refused as a likely slip.
    style = "'" if respelled_number(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dump(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
