"""The structure of the code: who may import whom, and what must stay cheap to import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ditbench.methods.registry import methods

ROOT = Path(__file__).parent.parent
PARTS = {"methods", "harness", "report", "suites"}
FORBIDDEN = {
    "methods": {"ditbench.harness", "ditbench.report", "ditbench.cli"},
    "harness": {"ditbench.report", "ditbench.cli"},
    "report": {"ditbench.methods", "ditbench.cli", "torch"},
}
TARGET = re.compile(r"(\w+(?:\.\w+)+):\w+|(ditbench(?:\.\w+)+)")


def imported_by(source: str, package: str) -> set[str]:
    """Dotted names that a module of ``package`` may import; names in whole strings too, such as a registry's."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (name := TARGET.fullmatch(node.value)):
            found.add(name[1] or name[2])
    return found


def among(names: set[str], forbidden: set[str]) -> list[str]:
    return sorted(name for name in names for each in forbidden if name == each or name.startswith(f"{each}."))


def imports_of(folder: str) -> dict[str, set[str]]:
    """File -> what it imports, of every module under a folder of the repository."""
    files = list((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} has no modules: the test would hold of anything"
    above = "ditbench." if folder in PARTS else ""
    return {
        str(file.relative_to(ROOT)): imported_by(
            file.read_text(), above + ".".join(file.relative_to(ROOT).parent.parts)
        )
        for file in files
    }


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_run_from_report_to_harness_to_methods(folder):
    wrong = {file: among(names, FORBIDDEN[folder]) for file, names in imports_of(folder).items()}
    assert not {file: names for file, names in wrong.items() if names}


def test_training_adapters_conversion_and_weights_know_no_method():
    """So that those of other distributions are served as ours; only the registry names methods."""
    methods_own = {f"ditbench.methods.{name}" for name in ("backbones", "dydit", "flexidit")}
    apart = tuple(f"methods/{name}" for name in ("backbones/", "dydit/", "flexidit/", "registry.py"))
    shared = {file: names for file, names in imports_of("methods").items() if not file.startswith(apart)}
    assert len(shared) > 30 and among(imports_of("methods")["methods/registry.py"], {"ditbench.methods.entries"})
    wrong = {file: among(names, methods_own) for file, names in shared.items()}
    assert not {file: names for file, names in wrong.items() if names}


@pytest.mark.parametrize("folder", [*sorted(PARTS), "ditbench/cli", "ditbench", "studies", "tests"])
def test_parts_of_the_package_are_imported_by_their_full_names(folder):
    wrong = {file: sorted({name.split(".")[0] for name in names} & PARTS) for file, names in imports_of(folder).items()}
    assert not {file: names for file, names in wrong.items() if names}


@pytest.mark.parametrize(
    "source",
    [
        "import ditbench.harness",
        "import ditbench.harness.run.job as job",
        "from ditbench import harness",
        "from ditbench.harness import run",
        "def late():\n    from ditbench.harness.run.job import Job",
        "from ..harness.run import job",
        "from .. import harness",
        "TARGET = 'ditbench.harness.run.job:Job'",
    ],
)
def test_every_way_to_import_is_seen(source):
    assert among(imported_by(source, "ditbench.methods"), FORBIDDEN["methods"])
    assert not among(imported_by(source.replace("harness", "harnesses"), "ditbench.methods"), FORBIDDEN["methods"])


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["list", "suites"], ["list", "samplers"]])
def test_help_and_lists_never_import_torch(arguments):
    code = (
        f"import sys; sys.argv = ['ditbench', *{arguments!r}]\n"
        "from ditbench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_models_of_a_flow_are_their_siblings_own_classes_and_nothing_is_written_twice():
    registry = methods()
    siblings = [(entry, registry[entry.name.replace("sit", "dit")]) for entry in registry if "sit" in entry.name]
    assert len(siblings) == sum("dit" in entry.name for entry in registry) > 20, "each has one"
    for flow, noise in siblings:
        assert (flow.target, flow.converter) == (noise.target, noise.converter), flow.name
        change = {name: value for name, value in flow.preset.items() if noise.preset.get(name) != value}
        assert change.pop("flow") == "linear" and change in ({}, {"learn_sigma": False}), flow.name
        assert noise.preset == {name: flow.preset[name] for name in noise.preset}, flow.name
    classes = {
        node.name.lower()
        for file in (ROOT / "methods").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert classes >= {"dit", "dydit", "flexidit"}
    assert not classes & {"sit", "dysit", "flexisit"}


# Words of single methods: their names, config keys, and fields of their plans. ``_`` parts words as a space does.
OF_METHODS = re.compile(
    r"(?<![a-z])(?:"
    r"dydit|dysit|dyflux|flexi|flexidit|flexisit|(?:td.)?lora|sdt|tdw|"
    r"activity|activities|schedules?|adapters?|experts?|layouts?|patch|patches|"
    r"(?<=[.\"'])(?:heads|groups)(?=[\"']|\b)"
    r")(?![a-z])",
    re.IGNORECASE,
)
# What else such words mean: matplotlib's layout and patches, how pictures or folders are laid out, a profiler's
# activities, the noise schedule of a diffusion process, the hook of a modifier that is called schedule; and places that
# hold published figures, networks with patches of their own, or checks of noise schedules.
OTHERWISE = re.compile(
    r"layout=\"constrained\"|set_layout_engine|matplotlib\.patches|\bPatch\b|noise schedules?|"
    r"ProfilerActivity|activities=|match\.groups|check_layout|(?:ADM's|memory|another) layout|"
    r"[Tt]he layout is|^Layout::|"
    r"\(\"schedule\",\)"
)
EXEMPT = ("harness/published/", "harness/quality/extractors/", "harness/selfcheck/")


@pytest.mark.parametrize("package", ["harness", "report"])
def test_no_method_is_named_outside_methods(package):
    found = [
        f"{name}:{number}: {line.strip()}"
        for file in sorted((ROOT / package).rglob("*"))
        if file.suffix in (".py", ".typ", ".yaml") and not (name := str(file.relative_to(ROOT))).startswith(EXEMPT)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if OF_METHODS.search(OTHERWISE.sub("", line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line", ["spec.config['activity']", "plan.heads", "schedule_of(row)", '"TD-LoRA r=2"', "patch 4"]
)
def test_words_of_methods_are_found_in_code_and_sentences(line):
    assert OF_METHODS.search(OTHERWISE.sub("", line))


@pytest.mark.parametrize("line", ['plt.figure(layout="constrained")', "groups_of(view)", "a noise schedule", "th.head"])
def test_words_that_mean_something_else_are_not(line):
    assert not OF_METHODS.search(OTHERWISE.sub("", line))


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    roots = [(ROOT / part, f"ditbench.{part}") for part in sorted(PARTS)] + [(ROOT / "ditbench/cli", "ditbench.cli")]
    found = {}
    for root, name in roots:
        for file in root.rglob("*.py"):
            dotted = ".".join([name, *file.relative_to(root).with_suffix("").parts])
            found[dotted.removesuffix(".__init__")] = file
    return found


def statements_of(node: ast.AST):
    """All import statements, those inside functions too; not those that only a type checker runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from statements_of(ast.Module(child.orelse, []))
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from statements_of(child)


def imports_between(known: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports somewhere."""
    edges = {}
    for name, file in known.items():
        named = set()
        for statement in statements_of(ast.parse(file.read_text())):
            if isinstance(statement, ast.Import):
                named |= {alias.name for alias in statement.names}
            else:
                full = {f"{statement.module}.{alias.name}" for alias in statement.names}
                named |= (full & known.keys()) | ({str(statement.module)} if full - known.keys() else set())
        edges[name] = (named & known.keys()) - {name}
    return edges


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one node."""

    def reachable(start: str) -> set[str]:
        seen, front = set(), [start]
        while front:
            for each in edges.get(front.pop(), ()):
                if each not in seen:
                    seen.add(each)
                    front.append(each)
        return seen

    beyond = {name: reachable(name) for name in edges}
    found = {frozenset(other for other in beyond[name] if name in beyond.get(other, ())) for name in edges}
    return [set(each) for each in found if len(each) > 1]


@pytest.mark.parametrize("part", ["methods", "harness", "cli", "report"])
def test_no_import_runs_in_a_circle_not_even_inside_functions(part):
    known = modules()
    assert not [each for each in circles(imports_between(known)) if any(f"ditbench.{part}" in name for name in each)]


def test_the_rooms_of_the_harness_import_each_other_in_one_direction():
    rooms: dict[str, set[str]] = {}
    for name, imported in imports_between(modules()).items():
        for other in imported:
            if all(each.startswith("ditbench.harness.") for each in (name, other)):
                here, there = (".".join(each.split(".")[:3]) for each in (name, other))
                rooms.setdefault(here, set()).update({there} - {here})
    assert not circles(rooms) and len(rooms) > 10


def test_a_circle_is_seen_wherever_its_imports_stand():
    circle = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(circle) == [{"a", "b", "c"}] and circles({**circle, "c": set()}) == []
    late = "def f():\n    import b\nif TYPE_CHECKING:\n    import c\nelse:\n    from d import e\n"
    assert [ast.unparse(each) for each in statements_of(ast.parse(late))] == ["import b", "from d import e"]
