"""The notebooks run from their first cell to their last, with settings of a test's size."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.training.tiny_run import only_one
from xlnet_jax import cli, config_files, demo, notebooks
from xlnet_jax.training.settings import parse

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
TEXT_SIZE = 100_000
# Settings that a notebook leaves to its config.
TINY = """
from configs import {0}

def get_config():
    config = {0}.get_config()
    config.model.scan_layers = True
    config.optimizer.warmup_steps = 1
    config.report.tensorboard = False
{1}
    return config
"""
TINY_NETWORK = """
    config.model.update(n_layer=2, d_model=16, n_head=2, d_head=8, d_inner=32, mem_len=16)
    config.data.update(seq_len=64, reuse_len=32, num_predict=8, perm_size=32)
    config.train.eval_steps = 2
"""


def test_a_small_model_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    done, interrupted_at = [], ["corpus", "train"]

    def command(verb, *flags):
        done.append(verb)
        if verb in interrupted_at:
            interrupted_at.remove(verb)
            raise KeyboardInterrupt
        made = {"vocab": "spiece.model", "corpus": "shards/manifest.json"}.get(verb, "model")
        (tmp_path / made).touch()

    (tmp_path / "shards").mkdir()  # as an interrupted corpus leaves it
    monkeypatch.setattr(notebooks, "command", command)
    monkeypatch.setattr(notebooks, "python_text", lambda folder: done.append("text"))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            notebooks.small_model(tmp_path, 3)
    assert notebooks.small_model(tmp_path, 3) == tmp_path / "model"
    assert done == ["text", "vocab", "corpus", "corpus", "train", "train"]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


class Shown:
    """What a notebook's cells have shown."""

    def __init__(self, notebook):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        self.text = "".join(output.get("text", "") for output in outputs)
        self.pictures = sum("image/png" in output.get("data", {}) for output in outputs)
        lines = [line for line in self.text.splitlines() if line.startswith('{"step"')]
        self.results = [json.loads(line) for line in lines]


def execute(name, folder, environment, **settings):
    """Runs a notebook in a folder; a cell behind its settings gives some of them other values."""
    notebook = read(name)
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    place = tags.index(["parameters"])
    for key in settings:
        assert f"{key} = " in notebook.cells[place].source
    folder.mkdir(exist_ok=True)
    if "CONFIG" in settings:
        (folder / "tiny.py").write_text(settings["CONFIG"])
        settings["CONFIG"] = "tiny.py"
    text = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(text))
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    return Shown(notebook)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, worker_id):
    """One folder for the whole test session, whichever worker process asks."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "notebooks"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def environment(shared):
    """Of kernels: nothing of this machine's Jupyter, every program compiled only once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(name, str(shared / "jupyter"))
        yield {
            **os.environ,
            "IPYTHONDIR": str(shared / "ipython"),
            "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as a kernel would have it
        }


@pytest.fixture(scope="module")
def pretrained(shared, environment):
    """What pretrain_your_own shows, and the work directory that it leaves."""
    folder = shared / "pretraining"
    shown, workdir = folder / "shown.json", folder / "pretrain_your_own" / "model"
    with only_one(shared):
        if not shown.exists():
            text = shared / "text.txt"
            demo.write_text(text, shared / "docstrings")
            text.write_text(text.read_text()[:TEXT_SIZE])
            config = TINY.format("demo", TINY_NETWORK)
            settings = {"TEXT": str(text), "CONFIG": config, "VOCAB_SIZE": 300, "STEPS": 2}
            found = execute("pretrain_your_own", folder, environment, **settings)
            shown.write_text(json.dumps([found.pictures, found.results]))
    return *json.loads(shown.read_text()), workdir


def test_pretrain_your_own(pretrained):
    pictures, results, _ = pretrained
    assert pictures == 3
    assert [result["step"] for result in results] == [2]
    assert 5 < results[0]["heldout_loss"] < 10


def test_finetune_classification(pretrained, tmp_path, environment):
    dev = tmp_path / "few.jsonl"
    labelled = [("Read bytes from a file.", "files"), ("Send an email.", "network")]
    lines = [json.dumps({"text": text, "label": label}) for text, label in labelled]
    dev.write_text("\n".join(lines))
    shown = execute(
        "finetune_classification",
        tmp_path,
        environment,
        CHECKPOINT=str(pretrained[2]),
        DEV=str(dev),
        CONFIG=TINY.format("demo_classify", ""),
        EPOCHS=0.1,
    )
    assert shown.pictures == 2
    assert len(shown.results) == 2
    assert all(result["dev_accuracy"] in (0, 0.5, 1) for result in shown.results)
    assert len(shown.text.split("prediction")[-1].splitlines()) == 4


def test_question_answering(pretrained, tmp_path, environment):
    dev = tmp_path / "few.json"
    context = "The function move is in the module shutil. It takes src and dst."
    qas = [
        {"id": "a", "question": "Where is it defined?", "answers": [(35, "shutil")]},
        {"id": "b", "question": "What does it do?", "answers": []},
    ]
    for question in qas:
        question["answers"] = [{"answer_start": n, "text": t} for n, t in question["answers"]]
    dev.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}))
    shown = execute(
        "question_answering",
        tmp_path,
        environment,
        CHECKPOINT=str(pretrained[2]),
        TRAIN=str(dev),
        DEV=str(dev),
        CONFIG=TINY.format("demo_squad", ""),
        STEPS=2,
    )
    assert shown.pictures == 2
    (result,) = shown.results
    assert 0 <= result["dev_best_f1"] <= 100
    assert "null_odds.json" in shown.text


def test_convert_checkpoints(pretrained, tmp_path, environment):
    shown = execute("convert_checkpoints", tmp_path, environment, CHECKPOINT=str(pretrained[2]))
    assert shown.pictures == 1
    assert "same weights after all conversions: True" in shown.text
    assert (tmp_path / "convert_checkpoints" / "hf" / "model.safetensors").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_thin_and_holds_no_outputs(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code[1:]:
        logic = ast.FunctionDef | ast.Lambda | ast.ClassDef | ast.While | ast.Try
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, logic)]
        assert len(cell.source.splitlines()) <= 30
    done = subprocess.run(
        [sys.executable, "-m", "nbstripout", "--verify", FOLDER / f"{name}.ipynb"], check=False
    )
    assert done.returncode == 0


def first_cell(name):
    return next(cell.source for cell in read(name).cells if cell.cell_type == "code")


def test_all_notebooks_start_alike():
    assert len({first_cell(name) for name in NAMES}) == 1


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Runs the first cell in a folder where the package does not import; what pip is given."""
    monkeypatch.setitem(sys.modules, "xlnet_jax.pictures", None)
    given = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: given.append((words, check)))

    def run(folder):
        monkeypatch.chdir(folder)
        exec(compile(first_cell(NAMES[0]), "cell", "exec"), {})
        ((words, check),) = given
        assert words[:4] == [sys.executable, "-m", "pip", "install"]
        assert check
        return words[-1]

    return run


def test_the_first_cell_installs_a_clone_around_the_notebook(install, tmp_path):
    (tmp_path / "clone" / "xlnet_jax").mkdir(parents=True)
    (tmp_path / "clone" / "notebooks").mkdir()
    assert install(tmp_path / "clone" / "notebooks") == str(tmp_path / "clone")


def test_the_first_cell_installs_an_uploaded_wheel(install, tmp_path):
    (tmp_path / "xlnet_jax").mkdir()
    wheel = tmp_path / "xlnet_jax-0.1.0-py3-none-any.whl"
    wheel.touch()
    assert install(tmp_path) == str(wheel)


def test_the_first_cell_says_what_it_looked_for(install, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no xlnet_jax-\*\.whl in .*; upload the wheel"):
        install(tmp_path)


def test_the_first_cell_installs_nothing_where_the_package_imports(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: pytest.fail("installs"))
    space = {}
    exec(compile(first_cell(NAMES[0]), "cell", "exec"), space)
    assert "sources" not in space


def test_a_command_that_fails_stops_the_notebook(capsys):
    with pytest.raises(RuntimeError, match="xlnet-jax vocab ended with exit status 2, see above"):
        notebooks.command("vocab", "--input=none.txt", "--output_prefix=x", "--vocab_size=many")
    assert "--vocab_size" in capsys.readouterr().err


def test_the_small_model_is_made_of_commands_that_fit(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(notebooks, "command", lambda *words: given.append(words))
    assert notebooks.small_model(tmp_path, 40) == tmp_path / "model"
    assert (tmp_path / "python.txt").stat().st_size > 500_000
    assert [words[0] for words in given] == ["vocab", "corpus", "train"]
    parser = cli.make_parser()
    parsed = [parser.parse_known_args(words) for words in given]
    assert [rest for _, rest in parsed[:2]] == [[], []]
    args, overrides = parsed[2]
    config = config_files.load(args.config, overrides)
    assert parse(config.to_dict()).train.steps == 40
    (tmp_path / "shards").mkdir()
    for made in ("spiece.model", "shards/manifest.json"):
        (tmp_path / made).touch()
    notebooks.small_model(tmp_path, 40)
    assert [words[0] for words in given[3:]] == ["train"]
