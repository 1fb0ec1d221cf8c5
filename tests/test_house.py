"""The rules of the house: who imports whom, sizes, and what no file may hold."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xlnet_jax"

# Imports only go down: the rooms that the files of a room may import from.
ALLOWED = {
    "model": {"model"},
    "data": {"data"},
    "convert": {"convert", "model", "data"},
    "encoding": {"encoding", "convert", "model", "data"},
    "tasks": {"tasks", "model", "data"},
    "training": {"training", "convert", "tasks", "model", "data"},
}
ROOMS = sorted(ALLOWED)

MOST_LINES = 400
MOST_FUNCTION_LINES = 60

# What each room does without: the model is pure, and below the door nobody knows a ConfigDict.
NOT_IN_MODEL = {
    "absl", "datetime", "etils", "logging", "ml_collections", "orbax", "os", "pathlib",
    "sentencepiece", "tensorflow", "time", "tqdm",
}  # fmt: skip
NOT_BELOW_THE_DOOR = {"absl", "argparse", "ml_collections"}


def sources(folder: Path = PACKAGE) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


def imported_names(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Full dotted names that a file imports anywhere, also inside functions."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    """The room of `xlnet_jax.ROOM…`; the upper floor (cli and its like) is ''."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else ""


def wrong_imports(package: Path) -> list[str]:
    """Imports that go up or sideways, one line each."""
    wrong = []
    for path in sources(package):
        room = path.relative_to(package).parts[0]
        for name in imported_names(path, package.parent) if room in ALLOWED else ():
            if name.split(".")[0] == "xlnet_jax" and room_of(name) not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(package.parent)} imports {name}")
    return wrong


def test_imports_only_go_down():
    assert wrong_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("model", "import xlnet_jax.data.tokenizer"),
        ("data", "from xlnet_jax.model import config"),
        ("data", "from ..tasks import pretraining"),
        ("convert", "from xlnet_jax import training"),
        ("tasks", "def f():\n    from xlnet_jax.training.loop import run"),
        ("training", "from xlnet_jax.cli import main"),
        ("training", "from .. import config_files"),
    ],
)
def test_the_import_rule_sees_every_way_to_write_an_import(tmp_path, room, line):
    folder = tmp_path / "xlnet_jax" / room
    folder.mkdir(parents=True)
    (folder / "guilty.py").write_text(line + "\n")
    (folder / "innocent.py").write_text(f"import jax\nfrom xlnet_jax.{room} import guilty\n")
    (wrong,) = wrong_imports(tmp_path / "xlnet_jax")
    assert wrong.startswith(f"xlnet_jax/{room}/guilty.py imports xlnet_jax.")


def task_modules() -> set[str]:
    """Names of the tasks, as a config may give them."""
    made = re.compile(r"^def make_task\(", re.MULTILINE)
    return {path.stem for path in sources(PACKAGE / "tasks") if made.search(path.read_text())}


def named_tasks(folder: Path) -> list[str]:
    """Places where a file of the engine knows a single task, or more of `tasks/` than `task.py`."""
    found = []
    for path in sources(folder):
        known = [
            name
            for name in imported_names(path, folder.parents[1])
            if name.startswith("xlnet_jax.tasks.") and not name.startswith("xlnet_jax.tasks.task.")
        ]
        for node in ast.walk(ast.parse(path.read_text())):
            words = (getattr(node, "value", None), getattr(node, "attr", None))
            known += [word for word in words if isinstance(word, str) and word in task_modules()]
        found += [f"{path.name}: {name}" for name in known]
    return found


def test_the_engine_knows_no_task_by_name():
    assert {"pretraining", "classification", "span_qa"} < task_modules()
    assert named_tasks(PACKAGE / "training") == []


@pytest.mark.parametrize(
    "line",
    [
        "from xlnet_jax.tasks.pretraining import PretrainingTask",
        "from xlnet_jax.tasks import tagging",
        "from ..tasks import flops",
        "def f(settings): return settings.task == 'span_qa'",
        "from xlnet_jax import tasks\nmake = tasks.classification.make_task",
    ],
)
def test_the_rule_sees_every_way_to_know_a_task(tmp_path, line):
    folder = tmp_path / "xlnet_jax" / "training"
    folder.mkdir(parents=True)
    (folder / "guilty.py").write_text(line + "\n")
    (folder / "innocent.py").write_text("from xlnet_jax.tasks.task import Task\n")
    (found,) = named_tasks(folder)
    assert found.startswith("guilty.py: ")


@pytest.mark.parametrize(
    ("rooms", "unwanted"),
    [(["model"], NOT_IN_MODEL), (["model", "data", "tasks", "convert"], NOT_BELOW_THE_DOOR)],
    ids=["model is pure", "config enters at the door"],
)
def test_rooms_do_without(rooms, unwanted):
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for room in rooms
        if (PACKAGE / room).is_dir()
        for path in sources(PACKAGE / room)
        for name in imported_names(path)
        if name.split(".")[0] in unwanted
    ]
    assert found == []


def test_importing_the_model_loads_neither_tensorflow_nor_orbax():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources(PACKAGE / "model")
    ]
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(shown.stdout.split())
    assert "flax" in loaded
    heavy = {"tensorflow", "tensorflow_datasets", "orbax", "ml_collections", "sentencepiece"}
    assert loaded & heavy == set()


def test_files_and_functions_stay_small():
    long = []
    for path in sources():
        text = path.read_text()
        if (lines := len(text.splitlines())) >= MOST_LINES:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines >= MOST_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []


def project_files() -> list[Path]:
    """Every text file under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def test_no_machine_paths_and_no_package_index_addresses():
    # Written in two halves, so that this file passes its own test.
    homes = "|".join(["home", "Users", "root", "work", "wheelhouse"])
    unwanted = re.compile(
        rf"(?<![\w.$}}/-])/({homes})/\w"  # a home or work folder from the root of a machine
        r"|(pypi|test\.pypi)\.org" "/simple"
        r"|--(extra-)?index" "-url[ =]|--find" "-links[ =]|fi" "le:///"
    )  # fmt: skip
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if unwanted.search(line)
    ]
    assert found == []


def test_every_package_folder_has_an_init_with_a_docstring():
    missing = []
    for folder in {path.parent for path in sources()}:
        init = folder / "__init__.py"
        if not init.is_file() or not ast.get_docstring(ast.parse(init.read_text())):
            missing.append(str(folder.relative_to(ROOT)))
    assert missing == []
