"""Reports that cannot be written, or read back."""

import errno
import os

import pytest

from xlnet_jax.training.reporting import ReportConfig, Reporter


def make_reporter(folder, start_step=0, **changes):
    config = ReportConfig(**{"tensorboard": False, **changes})
    return Reporter(str(folder), config, train_steps=10, start_step=start_step)


def test_a_full_disk_is_said_with_the_file_and_hides_no_earlier_error(
    tmp_path, monkeypatch, capsys
):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reporter = make_reporter(tmp_path)
    reporter.write(1, {"loss": 2.0})
    before = (tmp_path / "metrics.csv").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write \(No space left on device\).*metrics\.csv"):
        reporter.write(2, {"loss": 1.0})
    reporter.close()
    assert "no picture of the curves: " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_tensorboard_log_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    reporter = make_reporter(tmp_path, tensorboard=True)
    with pytest.raises(OSError, match=r"/tensorboard: cannot write .* \(Not a dir") as caught:
        reporter.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["step;loss\n1;2,5\n", "step,loss\n1,2,5\n", "loss\n2.5\n", "step\nx\n"]
)
def test_metrics_that_were_changed_meanwhile_are_named(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv is no longer as training wrote it .*mend"):
        make_reporter(tmp_path, start_step=4)


def test_metrics_up_to_the_step_that_a_run_goes_on_from_are_kept(tmp_path):
    reporter = make_reporter(tmp_path)
    for step in (2, 4, 6):
        reporter.write(step, {"loss": 8.0 - step})
    make_reporter(tmp_path, start_step=4).write(5, {"loss": 0.5})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["2", "", "6.0"], ["4", "", "4.0"], ["5", "", "0.5"],
    ]  # fmt: skip
