"""The original's numbers that lie in tests/goldens, and the program that compares them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity import __main__ as program
from tests.parity import case as comparison
from tests.parity.case import Case, Result

GOLDENS = Path(__file__).parent / "goldens"
# Run by the tests of the modules they are about: tests/data/test_{tokenizer,original_records}.py.
ELSEWHERE = ("tokenization/", "data_utils/")
CASES = [case for case in program.all_cases(GOLDENS) if not case.name.startswith(ELSEWHERE)]
# Passes that differ in more than a number; `python -m tests.parity` runs them all.
QUICK = (
    "/cls_leftpad_all_layers",
    "/qa_rightpad_all_layers",
    "/perm_and_input_mask",
    "/mems_long",
    "/bi_data_mems_clamp",
    "/noseg_mems",
    "/uni_same_length_mems",
    "/uni_mask_perm_mems",
    "/uni_bi_data",
    "/classify_last_proj",
    "/classify_attn_proj",
    "/classify_first_noproj",
    "/regress_mean_proj",
    "/untied_gelu/train",
    "/untied_gelu/predict_3x4",
    "/untied_gelu/predict_few_valid",
    "/tied_relu_wide/last_proj",
    "/tied_relu_wide/attn_proj",
)


def chosen(case):
    single_stream = case.name.startswith(("finetune_forward/", "qa/", "race/"))
    return case.run is not None and (not single_stream or case.name.endswith(QUICK))


@pytest.mark.parametrize(
    "case", [case for case in CASES if chosen(case)], ids=lambda case: case.name
)
def test_it_is_as_in_the_original(case):
    result = case.run()
    assert result.passed, result


def test_nothing_is_left_out():
    assert [case for case in CASES if case.run is None] == []
    parts = [case.name.split("/")[0] for case in program.all_cases(GOLDENS)]
    assert set(parts) <= {*program.PARTS, "checkpoints"}
    counts = {"pretrain_forward": 17, "pretrain_train": 13, "qa": 5, "race": 5}
    assert {part: parts.count(part) for part in counts} == counts
    for end in QUICK:
        assert any(case.name.endswith(end) for case in CASES), end


def goldens_of(tmp_path, *parts):
    for part in parts:
        shutil.copytree(GOLDENS / part, tmp_path / part)
    return tmp_path


def run_program(monkeypatch, capsys, folder, *more):
    monkeypatch.setattr("sys.argv", ["parity", str(folder), *more])
    return program.main(), capsys.readouterr().out


def change(path, key, amount):
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[key] = arrays[key].copy()
    arrays[key].flat[-1] += amount
    np.savez(path, **arrays)


def test_every_case_has_its_line(tmp_path, monkeypatch, capsys):
    folder = goldens_of(tmp_path, "pretrain_train/lr_schedules")
    (folder / "race").mkdir()
    (folder / "something_new").mkdir()
    code, out = run_program(monkeypatch, capsys, folder)
    names = json.loads((folder / "pretrain_train/lr_schedules/meta.json").read_text())["cases"]
    *lines, summary = out.splitlines()
    assert code == 0
    assert summary == f"{len(names)} ok, 0 FAIL, 2 not run"
    for line, name in zip(lines, names, strict=False):
        assert line.startswith(f"ok      pretrain_train/lr_schedules/{name} ")
        assert "tolerance 1.0e-06" in line
    assert [line.split()[:3] for line in lines[len(names) :]] == [
        ["not", "run", "race"],
        ["not", "run", "something_new"],
    ]


def test_one_wrong_learning_rate_fails(tmp_path, monkeypatch, capsys):
    folder = goldens_of(tmp_path, "pretrain_train/lr_schedules")
    change(folder / "pretrain_train/lr_schedules/outputs.npz", "poly_w5_t20_r0/lr", 1e-8)
    code, out = run_program(monkeypatch, capsys, folder)
    assert code == 1
    assert [line.split()[1] for line in out.splitlines() if line.startswith("FAIL")] == [
        "pretrain_train/lr_schedules/poly_w5_t20_r0"
    ]


@pytest.mark.parametrize("key", ["sequence_output", "new_mems"])
def test_one_wrong_number_of_the_network_fails(tmp_path, monkeypatch, capsys, key):
    part = "finetune_forward/tied_gelu_wide"
    folder = goldens_of(tmp_path, part)
    change(folder / part / "outputs.npz", f"noseg_mems/{key}", 1e-3)
    code, out = run_program(monkeypatch, capsys, folder, "--only", "/noseg")
    assert code == 1
    assert "1 ok, 1 FAIL, 0 not run" in out
    assert f"worst {key}" in out


def test_an_error_is_a_failure_and_hides_no_other_case(tmp_path, monkeypatch, capsys):
    part = "pretrain_train/lr_schedules"
    folder = goldens_of(tmp_path, part)
    meta = json.loads((folder / part / "meta.json").read_text())
    meta["cases"]["poly_w0_t20_r0"]["decay_method"] = "zigzag"
    (folder / part / "meta.json").write_text(json.dumps(meta))
    code, out = run_program(monkeypatch, capsys, folder)
    assert code == 1
    assert "KeyError: 'zigzag'" in out
    assert f"{len(meta['cases']) - 1} ok, 1 FAIL" in out


def test_nothing_to_compare_is_no_success(tmp_path, monkeypatch, capsys):
    (tmp_path / "race").mkdir()
    assert run_program(monkeypatch, capsys, tmp_path)[0] == 1
    with pytest.raises(SystemExit) as caught:
        run_program(monkeypatch, capsys, tmp_path / "missing")
    assert caught.value.code == 2
    assert "DIR must be a folder of goldens, got" in capsys.readouterr().err


def test_comparisons():
    relative_error = comparison.relative_error
    assert relative_error([1.0, -3.9], [1.0, -4.0]) == pytest.approx(0.025)
    assert relative_error([1.0, 2.0], [1.0, 2.0, 3.0]) == np.inf
    assert relative_error([np.nan], [1.0]) == np.inf
    assert relative_error([], []) == 0
    assert not Result(np.nan, 1.0).passed
    assert not comparison.worst({}).passed
    found = comparison.worst({"a": (1e-6, 1e-5), "b": (1e-3, 1e-4), "c": (0.0, 0.0)})
    assert (found.passed, found.note) == (False, "3 arrays, worst b")
    assert not comparison.worst({"a": (1e-6, 1e-5), "count": (1.0, 0.0)}).passed
    assert program.run(Case("x", None, "why")) == ("not run", "why")
