"""The rooms of the library, and which may know which."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "gnnrl").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])

# the higher may import the lower, never the other way round; the same height: not each other
HEIGHTS = {
    "stages": 100,
    "compressing": 90,
    "report": 90,
    "params": 95,
    "measurement": 80,
    "scheduling": 70,
    "search": 70,
    "evaluation": 60,
    "pretrained": 55,
    "checkpoint": 50,  # rebuilds a network and applies its plans
    "agents": 40,
    "rl": 35,  # knows no network and no plan
    "pruning": 30,
    "training": 25,
    "graph": 20,
    "tracing": 18,
    "networks": 20,
    "tasks": 17,  # what outputs mean; training, pruning and evaluation ask it
    "data": 15,
    "progress": 5,
    "runtime": 5,
    "scratch": 4,
    "watch": 5,
    "outputs": 6,
    "files": 4,
    "sealed": 5,
    "registry": 4,
    "settings": 5,
    "shapes": 0,
    "errors": 0,
}
DOTTED = re.compile(r"gnnrl(\.\w+)+:\w+")
HEAVY = {"torch", "torchvision", "torch_geometric", "numpy", "pandas", "matplotlib", "ray"}
HEAVY |= {"sklearn", "scipy", "gymnasium", "safetensors", "jinja2", "onnx", "onnxruntime"}
HEAVY |= {"dvc", "cma", "tensorboard"}


def room(name: str) -> str:
    """Return the room of a module: gnnrl.search.env is in search, stages.prune in stages."""
    parts = name.split(".")
    return parts[0] if parts[0] == "stages" else [*parts, "gnnrl"][1]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def names(node: ast.AST) -> Iterator[str]:
    """Yield what an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield f"{node.module}.{alias.name}" if is_module(node.module, alias) else node.module


def is_module(package: str, alias: ast.alias) -> bool:
    return (ROOT / package.replace(".", "/") / f"{alias.name}.py").exists()


def imported(path: Path) -> set[str]:
    """Return everything a file imports, in functions and behind `TYPE_CHECKING` too."""
    return {name for node in ast.walk(tree(path)) for name in names(node)}


def in_tables(path: Path) -> set[str]:
    """Return the modules of ours that a file names as `package.module:name`.

    What `name_in` and `part` are given does not count: it is looked up to check a value, and
    results do not depend on it.
    """
    looked_up = {
        id(argument)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("name_in", "part")
        for argument in node.args
    }
    texts = (node for node in ast.walk(tree(path)) if isinstance(node, ast.Constant))
    return {
        str(node.value).partition(":")[0]
        for node in texts
        if id(node) not in looked_up and DOTTED.fullmatch(str(node.value))
    }


def imported_at_start(path: Path) -> set[str]:
    """Return what a file imports when it is imported: not what stands in its functions."""
    found: set[str] = set()
    for statement in tree(path).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found |= set(names(statement))
    return found


def ours(found: set[str]) -> set[str]:
    return {name for name in found if name.split(".")[0] in ("gnnrl", "stages")}


def test_every_room_has_a_height():
    rooms = {room(module_name(path)) for path in FILES} - {"gnnrl"}
    assert rooms <= set(HEIGHTS), f"say where {rooms - set(HEIGHTS)} stand in HEIGHTS"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    here = room(module_name(path))
    for name in ours(imported(path) | in_tables(path)) - {"gnnrl"}:
        there = room(name)
        assert there == here or HEIGHTS[there] < HEIGHTS[here], f"{here} imports {name}"


def test_imports_have_no_cycle():
    edges = {module_name(path): ours(imported(path)) for path in FILES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join([*above, name])}"
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_what_belongs_in_one_place_stays_there(path):
    roots = {name.split(".")[0] for name in imported(path)}
    here = room(module_name(path))
    assert "dvc" not in roots, "DVC calls the stages, nothing calls DVC"
    assert here == "stages" or "typer" not in roots, "Typer belongs to the stages"
    if here not in ("tracing", "graph", "pruning"):
        fx = {name for name in imported(path) if name.startswith("torch.fx")}
        assert not fx and "import fx" not in path.read_text(), "torch.fx belongs to the graph"


def test_ray_is_imported_in_one_file_at_most():
    users = [path for path in FILES if any(name.split(".")[0] == "ray" for name in imported(path))]
    assert len(users) <= 1, f"Ray is used in {users}"


def test_reinforcement_learning_knows_graphs_and_nothing_of_what_it_decides():
    allowed = {"rl": {"rl", "errors", "registry", "settings"}}
    allowed["agents"] = allowed["rl"] | {"agents", "sealed"}  # a saved agent is read
    for here, rooms in allowed.items():
        for path in (ROOT / "gnnrl" / here).rglob("*.py"):
            found = {room(name) for name in ours(imported(path) | in_tables(path)) - {"gnnrl"}}
            assert found <= rooms, f"{path} imports {found - rooms}"


def test_no_room_holds_more_than_a_sixth_of_the_library():
    size = Counter[str]()
    for path in (p for p in FILES if p.is_relative_to(ROOT / "gnnrl")):
        size[room(module_name(path))] += lines(path)
    name, most = size.most_common(1)[0]
    assert most <= size.total() / 6, f"{name} holds {most} of {size.total()} lines"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.is_relative_to(ROOT / "gnnrl")], ids=module_name
)
def test_no_function_has_more_than_ten_parameters(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([name for name in own if name.arg not in ("self", "cls")])
            assert count <= 10, f"{path}:{node.lineno}: {node.name} has {count} parameters"


@pytest.mark.parametrize(
    ("path", "most"),
    [
        *((path, 60) for path in sorted((ROOT / "stages").glob("[a-z]*.py"))),
        (ROOT / "README.md", 150),
        (ROOT / "params.yaml", 90),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else str(value),
)
def test_what_is_read_first_is_short(path, most):
    assert lines(path) <= most, f"{path} has {lines(path)} lines"


def test_a_preset_is_a_short_overlay():
    presets = [path for path in (ROOT / "experiments").glob("*.yaml") if path.stem != "base"]
    for path in presets:
        assert 5 <= lines(path) <= 30, f"{path} has {lines(path)} lines"
    published = [path for path in presets if path.stem.startswith("gnnrl-")]
    assert len(published) == 7
    assert sum(map(lines, published)) <= 120


@pytest.mark.parametrize(
    "path", [p for p in FILES if module_name(p).startswith("stages")], ids=module_name
)
def test_a_stage_imports_nothing_heavy_before_it_runs(path):
    """`python -m stages.NAME --help` answers at once."""
    seen: set[str] = set()
    waiting = [module_name(path)]
    while waiting:
        name = waiting.pop()
        file = ROOT / f"{name.replace('.', '/')}.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        found = imported_at_start(file)
        heavy = {name.split(".")[0] for name in found} & HEAVY
        assert not heavy, f"{name} imports {heavy}"
        waiting += ours(found)


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=module_name)
def test_packages_hold_no_logic(path):
    for statement in tree(path).body:
        plain = ast.Expr | ast.Assign | ast.ImportFrom
        lazy = isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__"
        assert isinstance(statement, plain) or (lazy and path.parent.name == "gnnrl"), (
            f"{path}: line {statement.lineno}"
        )


def test_nothing_is_left_undone():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for mark in ("TODO", "FIXME", "raise NotImplementedError"):
            assert mark not in text, f"{path}: {mark}"
