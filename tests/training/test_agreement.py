"""What processes decide alike; here with one process, which plays the other's part."""

import numpy as np
import pytest

from xlnet_jax.training import agreement


@pytest.fixture
def second_of_two(monkeypatch):
    """Sets what process 0 says; this process is number 1."""
    said = {}
    monkeypatch.setattr(agreement.jax, "process_count", lambda: 2)
    monkeypatch.setattr(agreement.jax, "process_index", lambda: 1)
    utils = agreement.multihost_utils
    monkeypatch.setattr(utils, "broadcast_one_to_all", lambda own: said["numbers"])
    monkeypatch.setattr(utils, "process_allgather", lambda own: np.stack([said["line"], own]))
    monkeypatch.setattr(utils, "sync_global_devices", lambda name: None)
    return said


def line(text):
    padded = np.zeros(agreement._MOST_BYTES, np.uint8)
    padded[: len(text)] = np.frombuffer(text.encode(), np.uint8)
    return padded


def test_alone():
    assert agreement.of_process_0([3, 1]) == [3, 1]
    assert agreement.first_problem("bad") == "bad"
    assert agreement.first_problem({"good": 1}) == ""
    agreement.check_shared("nowhere")


def test_process_0_decides(second_of_two):
    numbers = np.full(agreement._MOST_NUMBERS, -1, np.int32)
    numbers[:2] = [30, 20]
    second_of_two["numbers"] = numbers
    assert agreement.of_process_0([40, 30, 20]) == [30, 20]


def test_a_problem_of_one_is_one_of_all(second_of_two):
    second_of_two["line"] = line("")
    assert agreement.first_problem({}) == ""
    assert agreement.first_problem("bad é" * 500).endswith(" (on process 1)")
    second_of_two["line"] = line("worse")
    assert agreement.first_problem("bad") == "worse (on process 0)"
    assert agreement.first_problem({}) == "worse (on process 0)"


def test_a_workdir_of_ones_own_is_named(second_of_two, monkeypatch, tmp_path):
    second_of_two["numbers"] = np.int32(77)
    monkeypatch.setattr(agreement, "_PATIENCE", 0.1)
    (tmp_path / ".seen_by_all").write_text("77")
    agreement.check_shared(str(tmp_path))
    for text in ("76", None):
        (tmp_path / ".seen_by_all").unlink()
        if text:
            (tmp_path / ".seen_by_all").write_text(text)
        else:
            (tmp_path / ".other").touch()
        with pytest.raises(ValueError, match="is not the folder that process 0 sees under that"):
            agreement.check_shared(str(tmp_path))
