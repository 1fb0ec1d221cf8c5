"""RACE: multiple choice questions about texts for middle and high school.

    xlnet-jax train --config=configs/race.py:RECIPE --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.folder=RACE
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax evaluate --workdir=DIR --checkpoint=best --config.data.dev=RACE/test
    xlnet-jax predict --workdir=DIR --checkpoint=best --split=test --output=FOLDER

RACE holds train, dev and test, each with middle and high; `--config.data.levels=middle` takes one
of them. RECIPE is one of these; an example is a question with its four options, so four sequences.

    script    the authors' script for XLNet-Large: length 512, question and option 128, batch 32,
              rate 2e-5, 12,000 steps, 1,000 of warmup, epsilon 1e-6, no weight decay. TPU v3-32.
              Published: 81.75 (test).
    batch8    the same with batch 8, for a TPU v3-8. Published: 80.3 (test).
    paper     script with the weight decay of 0.01 of the paper's table 8. Published: 85.4 (middle
              88.6, high 84.0; test).

None is ours. `RECIPE,behaviour=reference` trains as the original's code does (Adam without bias
correction where weights decay; padding counts in summaries). The original lets a text that needs
no cut grow by the options before; that is always mended here.
"""

from ml_collections import ConfigDict

from configs import _finetuning

BATCHES = {"script": 32, "batch8": 8, "paper": 32}


def get_config(arg: str = "script") -> ConfigDict:
    """The config of a recipe; see the top of this file."""
    recipe, options = _finetuning.parse_variant(arg, BATCHES, {"behaviour": _finetuning.BEHAVIOURS})
    config = _finetuning.base_config("multiple_choice", summary=True)
    data = config.data
    data.folder = ""
    data.levels = "both"
    data.encoding = "utf-8"
    data.max_seq_length = 512
    data.max_question_length = 128
    data.pad_to_multiple = 64
    batch_size = BATCHES[recipe]
    _finetuning.set_schedule(
        config, rate=2e-5, batch_size=batch_size, steps=12_000, warmup_steps=1_000
    )
    _finetuning.set_interval(config, 1_000)
    config.train.eval_batch_size = 32
    config.checkpoint.best_metric = "dev_accuracy"
    if options["behaviour"] == "reference":
        _finetuning.train_as_reference(config)
    if recipe == "paper":
        config.optimizer.weight_decay = 0.01
    return config
