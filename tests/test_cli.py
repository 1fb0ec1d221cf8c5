"""The command line: help, what is loaded when, how errors end."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from tests.parsers import verb_parsers
from xlnet_jax import cli, config_files
from xlnet_jax.verbs import doctor, processes

CONFIG = """
from ml_collections import ConfigDict, config_dict

def get_config(size="tiny"):
    if size not in ("tiny", "base"):
        raise ValueError(f"unknown size {size!r}, wanted tiny or base")
    return ConfigDict({
        "size": size,
        "data": {
            "seq_len": 512,
            "bi_data": True,
            "gaps": (1, 2),
            "num_predict": config_dict.placeholder(int),
        },
        "heldout": {"seq_len": 64},
        "train": {"eval_steps": 50},
        "optimizer": {"learning_rate": 1e-4, "name": "adamw"},
        "note": None,
    })
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def calls(monkeypatch):
    """Stands in for the engine, and records what the verbs hand to it."""
    recorded = []
    engine = types.ModuleType("xlnet_jax.training.run")
    engine.train = lambda config, workdir: recorded.append((config, workdir))

    def evaluate(config, workdir, checkpoint):
        recorded.append((config, workdir, checkpoint))
        return [{"step": 70, "loss": 0.5}]

    engine.evaluate = evaluate
    package = types.ModuleType("xlnet_jax.training")
    package.run = engine
    monkeypatch.setattr(processes, "run_together", lambda args, config, job: job())
    monkeypatch.setitem(sys.modules, "xlnet_jax.training", package)
    monkeypatch.setitem(sys.modules, "xlnet_jax.training.run", engine)
    return recorded


def run_and_read(capsys, *argv):
    """Exit status and the lines on standard error."""
    try:
        status = cli.main([str(arg) for arg in argv])
    except SystemExit as leaving:
        status = leaving.code
    return status, capsys.readouterr().err.splitlines()


def test_help_of_every_verb_loads_nothing_heavy():
    code = """
import contextlib, io, sys
from tests.parsers import verb_parsers
from xlnet_jax import cli
for argv in [["--help"], ["--version"], *([verb, "--help"] for verb in cli.VERBS)]:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            cli.main(argv)
        except SystemExit as leaving:
            assert leaving.code == 0, argv
    assert len(shown.getvalue()) > 10, argv
print(" ".join({name.partition(".")[0] for name in sys.modules}))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert "xlnet_jax" in loaded
    assert loaded & {
        "absl", "etils", "flax", "jax", "ml_collections", "numpy", "sentencepiece", "tensorflow",
    } == set()  # fmt: skip


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_is_complete(verb):
    parser = verb_parsers()[verb]
    for action in parser._actions:
        assert action.help, action.option_strings
        takes_value = action.nargs != 0
        assert not takes_value or action.metavar or action.choices, action.option_strings
        optional = takes_value and not action.required and action.default not in ("", [])
        shown = parser._get_formatter()._get_help_string(action)
        assert not optional or "default" in shown, action.option_strings
    text = parser.format_help()
    assert "examples:\n  xlnet-jax " in text
    assert "exit codes:" in text
    assert f"  xlnet-jax {verb}" in text


def test_installed_command_and_module_are_the_same():
    command = Path(sys.executable).with_name("xlnet-jax")
    outputs = {
        subprocess.run([*start, "--help"], capture_output=True, text=True, check=True).stdout
        for start in ([command], [sys.executable, "-m", "xlnet_jax"])
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], "xlnet-jax: error: the following arguments are required: VERB"),
        (["trian"], "xlnet-jax: error: argument VERB: invalid choice: 'trian'"),
        (["doctor", "--fix"], "xlnet-jax doctor: error: unrecognized arguments: --fix"),
        (
            ["vocab", "--output_prefix=v", "--input=a", "b"],
            "unrecognized arguments: b; several values follow a flag after a space: --input A B",
        ),
        (["train", "--config=c.py"], "arguments are required: --workdir"),
        (["train", "--workdir=w"], "arguments are required: --config"),
        (["train", "--conf=c.py", "--workdir=w"], "arguments are required: --config"),
        (["evaluate", "--workdir=w", "--checkpoint=worst"], "wanted a step number, latest, best"),
        (["evaluate", "--workdir=/nowhere"], "--workdir=/nowhere: no such folder"),
        (["train", "--config=no.py", "--workdir=w"], "--config=no.py: no file 'no.py'"),
        (["corpus", "--spiece_model=m"], "arguments are required: --output_dir"),
        (["corpus", "--spiece_model=m", "--output_dir=d"], "either --input (files) or --tfds"),
    ],
)
def test_wrong_command_line_ends_in_one_line(capsys, argv, wanted):
    status, lines = run_and_read(capsys, *argv)
    assert status == 2
    assert len(lines) == 1
    assert wanted in lines[0]


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("--config.optimizer.learning_rat=1", "nearest: --config.optimizer.learning_rate"),
        ("--config.learning_rate=1", "nearest: --config.optimizer.learning_rate"),
        ("--config.data.data_seq_len=1", "nearest: --config.data.seq_len"),
        ("--config.optimiser.nam=x", "nearest: --config.optimizer.name"),
        ("--config.zzz=1", "nothing near it; top keys: data, heldout, note, optimizer"),
        ("--config.seq_len=1", "nearest: --config.data.seq_len or --config.heldout.seq_len"),
        ("--config.data=1", "set one of its keys: bi_data, gaps, num_predict, seq_len"),
        ("--config.data.seq_len.x=1", "unknown config key --config.data.seq_len.x"),
        ("--config.data.seq_len=long", "--config.data.seq_len: wanted a whole number, got 'long'"),
        ("--config.data.seq_len=1.5", "wanted a whole number, got '1.5'"),
        ("--config.data.num_predict=x", "--config.data.num_predict: wanted a whole number"),
        ("--config.data.bi_data=maybe", "wanted true or false, got 'maybe'"),
        ("--config.optimizer.learning_rate=fast", "wanted a number, got 'fast'"),
        ("--config.data.gaps=x", "--config.data.gaps: wanted a tuple like (1, 2), got 'x'"),
        ("--confg.data.seq_len=1", "unrecognized argument '--confg.data.seq_len=1'"),
        ("stray", "unrecognized argument 'stray'"),
    ],
)
def test_wrong_override_ends_in_one_line(capsys, calls, config_file, override, wanted):
    status, lines = run_and_read(
        capsys, "train", f"--config={config_file}", "--workdir=w", override
    )
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("xlnet-jax train: error: ")
    assert wanted in lines[0]
    assert calls == []


@pytest.mark.parametrize(
    ("text", "arg", "wanted"),
    [
        (CONFIG, ":huge", "config.py:6: unknown size 'huge', wanted tiny or base"),
        ("x = 1", "", "the file defines no get_config()"),
        ("def get_config():\n    return 5", "", "get_config() gave int, wanted a ConfigDict"),
        ("def get_config():\n    return 5", ":a", "takes no argument, got 'a' after the colon"),
        ("def get_config(", "", "config.py:1: SyntaxError"),
        ("import not_there", "", "config.py:1: ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_wrong_config_file_ends_in_one_line(capsys, calls, config_file, text, arg, wanted):
    config_file.write_text(text)
    status, lines = run_and_read(capsys, "train", f"--config={config_file}{arg}", "--workdir=w")
    assert status == 2
    assert len(lines) == 1
    assert wanted in lines[0]
    assert calls == []


@pytest.mark.parametrize(
    "flags",
    [("--config.data.train", "--config.seed=3"), ("--noconfig.data.train",), ("--config.seed",)],
)
def test_a_flag_without_a_value_is_for_true_and_false(flags):
    with pytest.raises(ValueError, match=r"^--(no)?config\.\S+ is for true or false; wanted --c"):
        config_files.load("configs/pretrain.py:tiny", flags)


def test_train_gets_the_config_with_its_overrides(calls, config_file):
    status = cli.main(
        [
            "train",
            "--config.optimizer.learning_rate=3",
            f"--config={config_file}:base",
            "--workdir=somewhere",
            "--noconfig.data.bi_data",
            "--config.data.num_predict",
            "85",
            "--config.data.gaps=(3,4,5)",
            "--config.data.seq_len=128",
            "--config.data.seq_len=256",
            "--config.note=17",
        ]
    )
    assert status == 0
    ((config, workdir),) = calls
    assert workdir == "somewhere"
    assert config == {
        "size": "base",
        "data": {"seq_len": 256, "bi_data": False, "gaps": (3, 4, 5), "num_predict": 85},
        "heldout": {"seq_len": 64},
        "train": {"eval_steps": 50},
        "optimizer": {"learning_rate": 3.0, "name": "adamw"},
        "note": 17,
    }
    assert isinstance(config["optimizer"]["learning_rate"], float)


def test_a_config_may_build_on_another_beside_it(calls, tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "ground.py").write_text(CONFIG)
    (folder / "mine.py").write_text(
        "from recipes import ground\ndef get_config():\n    return ground.get_config('base')\n"
    )
    before = list(sys.path)
    assert cli.main(["train", f"--config={folder / 'mine.py'}", "--workdir=w"]) == 0
    assert calls[0][0]["size"] == "base"
    assert sys.path == before


STORED = {"data": {"gaps": [1, 2], "seq_len": 8}, "train": {"eval_steps": 50}}


def test_evaluate_uses_the_stored_config(calls, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(STORED))
    cli.main(["evaluate", f"--workdir={tmp_path}", "--config.data.seq_len=16", "--checkpoint=70"])
    ((config, workdir, checkpoint),) = calls
    assert (workdir, checkpoint) == (str(tmp_path), 70)
    assert config == {"data": {"gaps": (1, 2), "seq_len": 16}, "train": {"eval_steps": 0}}
    assert json.loads(capsys.readouterr().out) == {"step": 70, "loss": 0.5}


def test_evaluate_takes_a_given_config_and_the_newest_checkpoint(calls, tmp_path, config_file):
    cli.main(["evaluate", f"--workdir={tmp_path}", f"--config={config_file}:base"])
    ((config, _, checkpoint),) = calls
    assert (config["size"], checkpoint) == ("base", "latest")


def test_evaluate_takes_all_held_out_text_unless_told_otherwise(calls, tmp_path, config_file):
    (tmp_path / "config.json").write_text(json.dumps(STORED))
    for flag in (f"--config={config_file}", "--config.train.eval_steps=3"):
        assert cli.main(["evaluate", f"--workdir={tmp_path}", flag]) == 0
    assert [config["train"]["eval_steps"] for config, _, _ in calls] == [0, 3]


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [(None, "no stored config"), ("{", "is not JSON"), ("[1]", "wanted a JSON object, got list")],
)
def test_evaluate_without_a_readable_stored_config(capsys, calls, tmp_path, stored, wanted):
    if stored is not None:
        (tmp_path / "config.json").write_text(stored)
    status, lines = run_and_read(capsys, "evaluate", f"--workdir={tmp_path}")
    assert (status, len(lines), calls) == (2, 1, [])
    assert wanted in lines[0]


@pytest.mark.parametrize(
    ("error", "status", "wanted"),
    [
        (ValueError("too long"), 2, "xlnet-jax doctor: error: too long"),
        (OSError(28, "No space left", "a/b"), 2, "xlnet-jax doctor: error: a/b: No space left"),
        (FileNotFoundError("no shards in x"), 2, "xlnet-jax doctor: error: no shards in x"),
        (FloatingPointError("loss is nan"), 1, "xlnet-jax doctor: error: loss is nan"),
        (KeyboardInterrupt(), 130, "xlnet-jax doctor: error: interrupted"),
    ],
)
def test_what_a_verb_raises_becomes_a_line_and_a_status(capsys, monkeypatch, error, status, wanted):
    def fail(args):
        raise error

    monkeypatch.setattr(doctor, "run", fail)
    assert run_and_read(capsys, "doctor") == (status, [wanted])
    status_with_trace, lines = run_and_read(capsys, "doctor", "--debug")
    assert status_with_trace == status
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == wanted
    assert run_and_read(capsys, "--debug", "doctor")[1][0] == lines[0]


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(doctor, "run", lambda args: {}["missing"])
    with pytest.raises(KeyError):
        cli.main(["doctor"])


def test_sigterm_leaves_by_way_of_the_cleanup(monkeypatch):
    cleaned = []

    def wait(args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(doctor, "run", wait)
    with pytest.raises(SystemExit) as leaving:
        cli.main(["doctor"])
    assert leaving.value.code == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before
