"""A work directory on gs://, with a stand-in for the bucket."""

import os

import jax
import numpy as np
import pytest
from etils import epath

from tests.convert import examples
from tests.training import bucket, toy_processes
from xlnet_jax.convert import conversion, writing
from xlnet_jax.data import storage
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer


@pytest.fixture
def requests(tmp_path, monkeypatch):
    folder = tmp_path / "bucket"
    folder.mkdir()
    with bucket.serve(folder, monkeypatch) as asked:
        yield asked


def test_a_run_in_a_bucket_stops_and_goes_on(requests, tmp_path, capsys):
    workdir = f"{bucket.BUCKET}/run"
    toy_processes.run(workdir, 7)
    uploads = [path for kind, path in requests if kind == "POST" and path.startswith("/upload/")]
    assert uploads  # the arrays went over HTTP
    checkpoints = tmp_path / "bucket" / "run" / "checkpoints"
    assert sorted(os.listdir(checkpoints)) == ["5", "7"]

    # What a process that is killed leaves behind: no mark that says it is complete.
    half = checkpoints / "7"
    (half / "commit_success.txt").unlink()
    capsys.readouterr()
    went_on = toy_processes.run(workdir, 9)
    assert "begins at step 5\n" in capsys.readouterr().out
    whole = toy_processes.run(str(tmp_path / "whole"), 9)
    for a, b in zip(jax.tree.leaves(went_on), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = (tmp_path / "bucket" / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 9


def test_a_bucket_that_refuses_to_answer_is_no_damaged_checkpoint(requests, tmp_path, monkeypatch):
    workdir = f"{bucket.BUCKET}/run"
    toy_processes.run(workdir, 7)
    answer = bucket._Handler.do_GET

    def refuse(self):
        return self._answer(403) if "checkpoints%2F7%2F" in self.path else answer(self)

    with monkeypatch.context() as refusing:
        refusing.setattr(bucket._Handler, "do_GET", refuse)
        with pytest.raises(OSError, match=r"^checkpoint gs://bucket/run/checkpoints/7 cannot be "):
            toy_processes.run(workdir, 9)
    assert sorted(os.listdir(tmp_path / "bucket" / "run" / "checkpoints")) == ["5", "7"]
    assert int(toy_processes.run(workdir, 9).step) == 9


def test_the_package_that_buckets_need_is_named(requests, monkeypatch):
    def missing(name):
        raise ImportError("No module named 'google.cloud'")

    monkeypatch.setattr(bucket.gcs_utils, "get_bucket", missing)
    with pytest.raises(OSError, match=r"--workdir=gs://bucket/run: .* pip install google-cloud-"):
        Checkpointer(f"{bucket.BUCKET}/run", CheckpointConfig())


def test_a_file_whose_writing_fails_is_not_there(requests, tmp_path):
    def chunks():
        yield b"the beginning"
        raise ValueError("no more")

    path = epath.Path(f"{bucket.BUCKET}/file")
    with pytest.raises(ValueError, match="no more"):
        storage.write_atomic(path, chunks())
    assert os.listdir(tmp_path / "bucket") == []
    storage.write_atomic(path, [b"all ", b"of it"])
    assert (tmp_path / "bucket" / "file").read_bytes() == b"all of it"


@pytest.mark.parametrize("output", ["model", "model/"])
def test_a_conversion_in_a_bucket_does_not_delete_what_it_is_to_read(requests, tmp_path, output):
    model = tmp_path / "bucket" / "model"
    writing.write(epath.Path(model), examples.pretrained(), "hf")
    before = sorted(os.listdir(model))
    source = f"{bucket.BUCKET}/model"
    job = conversion.Conversion(source, f"{bucket.BUCKET}/{output}", "hf", "hf", overwrite=True)
    with pytest.raises(ValueError, match=r"OUT is or holds .*gs://bucket/model.* give another OUT"):
        conversion.convert(job, print)
    assert sorted(os.listdir(model)) == before
