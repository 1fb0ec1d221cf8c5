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


def test_a_key_that_one_of_them_lacks_is_shown():
    _, forbidden = workdir.compare_configs({"data": {}}, {"data": {"spans": "words"}})
    assert forbidden == ["config.data.spans: '(missing)' in the checkpoint, 'words' now"]
