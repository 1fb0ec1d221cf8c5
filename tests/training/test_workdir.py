import errno
import os

import pytest

from xlnet_jax.training import workdir


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("data", "folder"),  # moved: what is in it is compared by checksum
        ("data", "spiece_model"),
        ("data", "null_threshold"),
        ("optimizer", "learning_rate"),
        ("train", "eval_every"),
    ],
)
def test_what_the_state_does_not_depend_on_may_change(section, key):
    old, new = ({section: {key: value}} for value in ("old", "new"))
    line = f"config.{section}.{key}: 'old' in the checkpoint, 'new' now"
    assert workdir.compare_configs(old, new) == ([line], [])


@pytest.mark.parametrize(
    ("section", "key"),
    [("data", "spans"), ("data", "train_more"), ("train", "batch_size"), ("model", "n_layer")],
)
def test_what_it_depends_on_may_not(section, key):
    old, new = ({section: {key: value}} for value in (1, 2))
    line = f"config.{section}.{key}: 1 in the checkpoint, 2 now"
    assert workdir.compare_configs(old, new) == ([], [line])


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("clip", 1.0, 0.0),
        ("weight_decay", 0.01, 0.0),
        ("layer_decay", 1.0, 0.75),
        ("layer_decay_on", "gradient", "learning_rate"),
    ],
)
def test_a_part_of_the_optimizer_may_neither_come_nor_go(key, old, new):
    said = {"clip": 1.0, "weight_decay": 0.01, "layer_decay": 0.75, "layer_decay_on": "gradient"}
    one, other = ({"optimizer": {**said, key: value}} for value in (old, new))
    line = f"config.optimizer.{key}: {old!r} in the checkpoint, {new!r} now"
    assert workdir.compare_configs(one, other) == ([], [line])


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [("clip", 1.0, 0.5), ("weight_decay", 0.01, 0.1), ("layer_decay", 0.75, 0.8)],
)
def test_the_numbers_of_its_parts_may_change(key, old, new):
    one, other = ({"optimizer": {key: value}} for value in (old, new))
    line = f"config.optimizer.{key}: {old!r} in the checkpoint, {new!r} now"
    assert workdir.compare_configs(one, other) == ([line], [])


def test_a_checkpoint_from_before_a_key_of_the_optimizer_is_not_refused_for_it():
    allowed, forbidden = workdir.compare_configs({"optimizer": {}}, {"optimizer": {"clip": 1.0}})
    assert (len(allowed), forbidden) == (1, [])


def test_a_key_that_one_of_them_lacks_is_shown():
    _, forbidden = workdir.compare_configs({"data": {}}, {"data": {"spans": "words"}})
    assert forbidden == ["config.data.spans: '(missing)' in the checkpoint, 'words' now"]


def test_an_empty_name_is_no_folder(tmp_path, monkeypatch):
    """An unset variable of a shell, say, would fill the folder that one happens to be in."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--workdir is empty, wanted a folder"), workdir.claim(""):
        pass
    assert not [*tmp_path.iterdir()]


def test_a_disk_too_full_for_the_lock_is_said(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    place = str(tmp_path)
    with pytest.raises(OSError, match=f"--workdir={place}: .*No space left"), workdir.claim(place):
        pass


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path):
    (tmp_path / ".unfinished-metrics.csv.1-2").write_text("half")
    with workdir.claim(str(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
