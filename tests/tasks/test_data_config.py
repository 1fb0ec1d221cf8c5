import pytest

from xlnet_jax.tasks.data_config import PretrainingDataConfig


def wrong(**values) -> str:
    """The message for a config that does not fit."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        PretrainingDataConfig(**values).validate()
    return str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"seq_len": 128, "reuse_len": 30, "perm_size": 30, "num_predict": 21},
        {"seq_len": 6, "reuse_len": 1, "perm_size": 1, "num_predict": 2},
        {"num_predict": None, "spans": "pieces", "bi_data": False, "reset_memory": "document"},
        {"seq_len": 64, "reuse_len": 32, "perm_size": 32, "num_predict": 59},  # 30 + 29
        {"seq_len": 64, "reuse_len": 32, "perm_size": 32, "num_predict": 64, "spans": "pieces"},
    ],
)
def test_what_fits_is_accepted(values):
    config = PretrainingDataConfig(**values)
    config.validate()
    first, second = config.goals
    if config.num_predict is None:
        assert (first, second) == (None, None)
    else:
        assert first + second == config.num_predict
        assert first <= config.reuse_len


@pytest.mark.parametrize("reuse_len", [508, 512, 600])
def test_reuse_len_must_leave_room_for_a_pair(reuse_len):
    assert wrong(reuse_len=reuse_len).startswith(
        f"config.data.reuse_len is {reuse_len}; with config.data.seq_len 512 it must be at most 507"
    )


def test_perm_size_must_fit_the_shorter_part():
    message = wrong(reuse_len=200, perm_size=201)
    assert message.startswith(
        "config.data.perm_size is 201; it must be at most 200, the shorter part"
    )
    assert "config.data.perm_size is 201; it must be at most 112" in wrong(
        reuse_len=400, perm_size=201
    )


def test_num_predict_must_fit_both_parts():
    message = wrong(seq_len=64, reuse_len=32, perm_size=32, num_predict=60)
    assert message == (
        "config.data.num_predict is 60; it must be at most 59, for it puts 30 in the first part "
        "and 30 in the second, which have 32 and 29 tokens to choose from"
    )
    message = wrong(seq_len=64, reuse_len=10, perm_size=8, num_predict=21)
    assert message.startswith("config.data.num_predict is 21; it must be at most 20,")


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("seq_len", 5, 6), ("reuse_len", 0, 1), ("perm_size", 0, 1), ("num_predict", 0, 1),
        ("mask_alpha", "6", 1), ("mask_beta", 0.5, 1), ("max_gram", True, 1), ("seed", -1, 0),
    ],
)  # fmt: skip
def test_values_that_are_no_such_numbers_are_named(key, value, least):
    message = f"config.data.{key} is {value!r}; it must be a whole number of at least {least}"
    assert wrong(**{key: value}) == message


@pytest.mark.parametrize(
    ("key", "value", "choices"),
    [
        ("spans", "word", "'words' or 'pieces'"),
        ("reset_memory", True, "'never' or 'document'"),
        ("bi_data", 1, "True or False"),
    ],
)
def test_unknown_choices_are_named(key, value, choices):
    assert wrong(**{key: value}) == f"config.data.{key} is {value!r}; it must be {choices}"


def test_mask_alpha_below_mask_beta_gives_no_context():
    assert "config.data.mask_alpha is 1; it must be at least config.data.mask_beta, 2" in wrong(
        mask_alpha=1, mask_beta=2
    )


def test_all_misfits_are_named_at_once():
    message = wrong(perm_size=300, num_predict=600)
    assert "config.data.perm_size" in message
    assert "config.data.num_predict" in message
