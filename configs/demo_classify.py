"""Fine-tuning in `make demo`: which part of the standard library a docstring comes from.

    make demo

Hardware: 2 CPU cores, about a minute. No published score; the demo starts it once from its own
pretrained model and once at random, and prints both accuracies.
"""

from ml_collections import ConfigDict

from configs import classify


def get_config() -> ConfigDict:
    """A classifier of docstrings, eight passes over the training data."""
    config = classify.get_config()
    config.model.dtype = "float32"
    config.model.init_std = 0.06  # as in pretraining: a narrow network starts slowly from 0.02
    config.model.scan_layers = False  # few layers: one straight program is quicker on CPU
    config.data.form = "jsonl"
    config.data.text_a = "text"
    config.data.max_seq_length = 64
    config.data.pad_to_multiple = 32
    config.data.summary_type = "mean"  # words tell the area; <cls> means nothing yet
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.train.epochs = 8.0
    config.train.batch_size = 32
    config.train.eval_every = 76  # twice in the 152 steps
    config.train.eval_batch_size = 64
    config.report.log_every = 20
    return config
