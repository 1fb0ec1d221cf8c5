"""Pretraining in `make demo`: a small network on the documentation that ships inside Python.

    make demo

Hardware: 2 CPU cores, under six minutes in all. No published score; the held-out loss must end
clearly below the unigram entropy of the same targets, and the demo prints both.
"""

from ml_collections import ConfigDict

from configs import pretrain


def get_config() -> ConfigDict:
    """The `tiny` pretraining config, for a run that is short enough to watch."""
    config = pretrain.get_config("tiny")
    config.model.n_layer = 2
    config.model.mem_len = 32
    config.model.scan_layers = False  # few layers: one straight program is quicker on CPU
    config.model.dropout = 0.0  # the run is too short to learn the text by heart
    config.model.activation_dropout = 0.0
    config.model.attention_dropout = 0.0
    config.model.init_std = 0.06  # 0.02 is for a width of 1024; narrow networks hardly move from it
    config.data.seq_len = 64
    config.data.reuse_len = 32
    config.data.perm_size = 32
    config.data.bi_data = False  # half the rows backwards would be half of so few steps
    config.data.mask_beta = 2  # a third of the tokens are predicted: more to learn from each step
    config.data.num_predict = 21
    config.optimizer.learning_rate = 2e-3
    config.train.batch_size = 16
    config.train.steps = 1_600
    config.train.eval_every = 800
    config.train.eval_batch_size = 16
    config.train.eval_steps = 0
    config.checkpoint.save_every = 800
    config.report.log_every = 50
    return config
