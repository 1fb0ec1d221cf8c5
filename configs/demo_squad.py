"""Span question answering on questions about Python's standard library.

    notebooks/question_answering.ipynb

Hardware: 2 CPU cores, minutes. No published score.
"""

from ml_collections import ConfigDict

from configs import squad


def get_config() -> ConfigDict:
    """The SQuAD 2.0 task at the size of a look around."""
    config = squad.get_config("2.0")
    config.model.dtype = "float32"
    config.model.scan_layers = False  # few layers: one straight program is quicker on CPU
    config.data.max_seq_length = 128
    config.data.pad_to_multiple = 32
    config.data.doc_stride = 64
    config.data.max_query_length = 24
    config.data.max_answer_length = 32
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 50
    config.optimizer.layer_decay = 1.0
    config.train.batch_size = 32
    config.train.steps = 600
    config.train.eval_every = 200
    config.train.eval_batch_size = 64
    config.checkpoint.save_every = 200
    config.report.log_every = 20
    return config
