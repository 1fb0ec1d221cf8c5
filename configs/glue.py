"""The tasks of GLUE, each fine-tuned by itself from a released or converted checkpoint.

    xlnet-jax train --config=configs/glue.py:TASK --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.folder=GLUE/FOLDER
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax predict --workdir=DIR --checkpoint=best --split=test --output=FOLDER

The last line writes the table that GLUE's server takes (MNLI also wants --split=test_mismatched).
`TASK,behaviour=reference` trains as the original's code does (Adam without bias correction where
weights decay; padding counts in summaries).

TASK is one of the following, with the published scores on the development set: XLNet-Large of the
paper (v2) / the released XLNet-Large / the released XLNet-Base.

    mnli    90.8/90.8   89.8   86.8   accuracy, matched and mismatched
    qnli    94.9        93.9   91.7   accuracy
    qqp     92.3        91.8   91.4   accuracy
    rte     85.9        83.8   74.0   accuracy
    sst-2   97.0        95.6   94.7   accuracy
    mrpc    90.8        89.2   88.2   accuracy
    cola    69.0        63.6   60.2   Matthews' correlation
    sts-b   92.5        91.8   89.5   Pearson's correlation; the authors' command says 91.6 or more
    wnli    -           -      -      accuracy (92.5 on the test set, with an ensemble)

None is ours. Published recipes: mnli (the paper's table 8: length 128, batch 128, rate 2e-5, 10,000
steps, weight decay 0.01, epsilon 1e-6) and sts-b (the authors' command: batch 32, rate 5e-5, 1,200
steps, 120 of warmup). For the others none is; they have our choice of batch 32, rate 2e-5 and three
epochs (ten on the small sets), so try several seeds and rates: --seeds=5.
Hardware: the authors used TPU v3-8 for mnli and four V100 with 16 GiB for sts-b. One such GPU holds
8 sequences of the large model, 56 of the base model; raise train.accumulation_steps accordingly.
"""

from ml_collections import ConfigDict

from configs import _finetuning, _text

# Training examples, for warmup over a tenth of the run.
SIZES = {
    "mnli": 392_702, "qnli": 104_743, "qqp": 363_846, "rte": 2_490, "sst-2": 67_349,
    "mrpc": 3_668, "cola": 8_551, "sts-b": 5_749, "wnli": 635,
}  # fmt: skip
# Columns of the published files, by which files for `predict --input` may be read too.
COLUMNS = {
    "qnli": ("question", "sentence"), "qqp": ("question1", "question2"), "cola": ("sentence", ""),
    "sst-2": ("sentence", ""), "mrpc": ("#1 String", "#2 String"),
}  # fmt: skip
_BATCH = 32


def get_config(arg: str = "sst-2") -> ConfigDict:
    """The config of a task; see the top of this file."""
    task, options = _finetuning.parse_variant(arg, SIZES, {"behaviour": _finetuning.BEHAVIOURS})
    config = _text.text_config(task)
    config.data.text_a, config.data.text_b = COLUMNS.get(task, ("sentence1", "sentence2"))
    metrics = {"cola": "matthews_correlation", "sts-b": "pearson"}
    config.checkpoint.best_metric = f"dev_{metrics.get(task, 'accuracy')}"
    if options["behaviour"] == "reference":
        _finetuning.train_as_reference(config)
    if task == "mnli":
        # The paper prints no warmup; this is that of the authors' scripts for SQuAD and RACE.
        _finetuning.set_schedule(
            config, rate=2e-5, batch_size=128, steps=10_000, warmup_steps=1_000
        )
        config.optimizer.weight_decay = 0.01
    elif task == "sts-b":
        _finetuning.set_schedule(config, rate=5e-5, batch_size=32, steps=1_200, warmup_steps=120)
        config.optimizer.epsilon = 1e-8  # the code's default, which the command leaves
    else:
        config.train.batch_size = _BATCH
        config.train.epochs = 10.0 if SIZES[task] < 10_000 else 3.0
        steps = SIZES[task] * config.train.epochs / _BATCH
        config.optimizer.warmup_steps = round(steps / 10)
    return config
