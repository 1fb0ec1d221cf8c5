"""Recipes of classification, multiple choice and tagging: whole, and with the published numbers."""

import pytest

from configs import chnsenticorp, classify, glue, ner, race, xnli
from xlnet_jax.training.settings import parse

VARIANTS = [
    *((glue, name) for name in glue.SIZES),
    *((classify, name) for name in classify.NAMES),
    *((race, name) for name in race.BATCHES),
    (glue, "mnli,behaviour=reference"),
    (classify, "yelp5,behaviour=reference"),
    (race, "paper,behaviour=reference"),
    (xnli, "zh"),
    (xnli, "en"),
    (ner, None),
    (chnsenticorp, None),
]


def config_of(module, arg):
    config = module.get_config(arg) if arg else module.get_config()
    if "folder" in config.data:
        config.data.folder = "somewhere"
    return config


@pytest.mark.parametrize(("module", "arg"), VARIANTS, ids=lambda value: str(value)[:40])
def test_every_key_is_read_and_fits(module, arg):
    settings = parse(config_of(module, arg).to_dict())
    assert bool(settings.train.steps) != bool(settings.train.epochs)
    name = settings.data.name if hasattr(settings.data, "name") else ""
    assert settings.optimizer.warmup_steps or not name


def numbers(module, arg):
    config = config_of(module, arg)
    data, train, optimizer = config.data, config.train, config.optimizer
    amount = train.steps or f"{train.epochs:g} epochs"
    return (
        data.max_seq_length, train.batch_size, optimizer.learning_rate, amount,
        optimizer.warmup_steps, optimizer.weight_decay, optimizer.epsilon,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "arg", "wanted"),
    [
        (glue, "mnli", (128, 128, 2e-5, 10_000, 1_000, 0.01, 1e-6)),
        (glue, "sts-b", (128, 32, 5e-5, 1_200, 120, 0.0, 1e-8)),
        (classify, "imdb", (512, 32, 2e-5, 4_000, 500, 0.0, 1e-8)),
        (classify, "yelp5", (512, 128, 1e-5, 10_000, 1_000, 0.01, 1e-6)),
        (race, "script", (512, 32, 2e-5, 12_000, 1_000, 0.0, 1e-6)),
        (race, "batch8", (512, 8, 2e-5, 12_000, 1_000, 0.0, 1e-6)),
        (race, "paper", (512, 32, 2e-5, 12_000, 1_000, 0.01, 1e-6)),
        (chnsenticorp, None, (256, 48, 2e-5, "3 epochs", 60, 0.0, 1e-8)),
        (ner, None, (128, 16, 2e-5, 4_000, 100, 0.0, 1e-6)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_published_numbers(module, arg, wanted):
    assert numbers(module, arg) == wanted


def test_a_tenth_of_the_run_is_warmup_where_none_is_published():
    config = glue.get_config("rte")
    assert config.train.epochs == 10
    assert config.optimizer.warmup_steps == round(2_490 * 10 / 32 / 10)


@pytest.mark.parametrize(
    ("module", "arg", "message"),
    [
        (glue, "mnlli", "got 'mnlli', wanted NAME.*with NAME one of mnli, qnli"),
        (glue, "mnli,behavior=fixed", r"wanted NAME\[,behaviour=fixed\|reference\]"),
        (classify, "imdb,behaviour=odd", "got 'imdb,behaviour=odd', wanted NAME"),
        (race, "base", "with NAME one of script, batch8, paper"),
        (xnli, "xx", "got 'xx', wanted one of ar, bg"),
    ],
)
def test_unknown_variants_are_told_what_there_is(module, arg, message):
    with pytest.raises(ValueError, match=message):
        module.get_config(arg)


def test_metrics_that_pick_the_best_checkpoint():
    best = {name: glue.get_config(name).checkpoint.best_metric for name in glue.SIZES}
    assert best.pop("cola") == "dev_matthews_correlation"
    assert best.pop("sts-b") == "dev_pearson"
    assert set(best.values()) == {"dev_accuracy"}
    assert race.get_config().checkpoint.best_metric == "dev_accuracy"
    assert ner.get_config().checkpoint.best_metric == "dev_f1"
