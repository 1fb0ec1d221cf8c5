"""The doctor's report: every check, and what a problem looks like."""

import json

import pytest

from xlnet_jax import cli, doctor


def test_a_sound_machine_gets_a_whole_report(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    values = {finding["name"]: finding["value"] for finding in report["findings"]}
    assert values.keys() >= {
        "python", "xlnet_jax", "jax", "flax", "sentencepiece", "processors",
        "memory", "jax devices", "float32 product", "bfloat16 product", "tf.data",
        "SentencePiece", "temporary folder",
    }  # fmt: skip
    assert "cpu" in values["jax devices"]


@pytest.fixture
def only(monkeypatch):
    """Leaves one check, whose replacement is given, and makes the others say nothing."""

    def keep(name, check):
        for other in ("_python", "_packages", "_machine", "_devices", "_products"):
            monkeypatch.setattr(doctor, other, lambda: iter(()))
        for other in ("_tensorflow", "_sentencepiece", "_temporary_folder"):
            monkeypatch.setattr(doctor, other, lambda: iter(()))
        monkeypatch.setattr(doctor, name, check)

    return keep


def test_a_check_that_raises_is_a_problem_with_a_remedy(only, capsys):
    def _tensorflow():
        raise ImportError("libfoo is missing")

    only("_tensorflow", _tensorflow)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "!!  tensorflow  failed",
        "problem: tensorflow: ImportError: libfoo is missing; remedy: make the environment anew:"
        " make clean setup",
        "1 problem(s) found",
    ]


@pytest.mark.parametrize(
    ("installed", "problem", "note"),
    [
        ("0.4.30", "version 0.4.30, wanted >=0.9", ""),
        (None, "wanted >=0.9", ""),
        ("0.11.1", "", "tested with 0.10.2"),
        ("0.10.2", "", ""),
    ],
)
def test_versions_are_held_against_bound_and_lock(monkeypatch, installed, problem, note):
    def version(name):
        if installed is None:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    finding = doctor._package(doctor.Requirement("jax>=0.9"), tested="0.10.2")
    assert (finding.problem, finding.note) == (problem, note)
    assert bool(finding.remedy) == bool(problem)


def test_the_lock_is_read():
    versions = doctor._locked_versions()
    assert versions["ml-collections"] == "1.1.0"
    assert len(versions) > 50
