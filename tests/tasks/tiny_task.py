"""A small network and vocabulary for tests of fine-tuning tasks, and runs over their batches."""

from pathlib import Path

import jax
import numpy as np

from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.tasks.task import Context

ENGLISH = Tokenizer(
    Path(__file__).parents[1] / "goldens/tokenization/en/spiece.model", Normalization("reference")
)
RATES = ("dropout", "activation_dropout", "attention_dropout")


def sizes(vocab_size):
    return XLNetConfig(vocab_size, 8, 1, 2, 4, 16, "gelu", True)


def make(module, tokenizer=ENGLISH, eval_steps=0, **data):
    """A task of a module, batches of 4 to train and of 3 to evaluate, without dropout."""
    config = module.DataConfig(**data)
    config.validate()
    run = RunConfig(**dict.fromkeys(RATES, 0.0), dtype="float32", init_std=0.5, scan_layers=False)
    context = Context(sizes, None, run, tokenizer, 0, 4, 3, "train.batch_size", eval_steps)
    return module.make_task(config, context)


def fresh(task):
    """Parameters, and a compiled function: losses of the examples, predictions, and their sum."""

    @jax.jit
    def outputs(params, batch):
        found = task.example_losses(params, batch, None), task.predict(params, batch)
        return *found, task.loss(params, batch, None, None)

    return jax.jit(task.init_params)(jax.random.key(0)), outputs


def numbers(batch):
    """A batch as the compiled functions take it."""
    return {name: np.asarray(array) for name, array in batch.items()}


def quick(config, folder, tokenizer=ENGLISH):
    """A recipe's config made to run in seconds: the tiny network, no dropout, few short steps."""
    (folder / "net.json").write_text(sizes(tokenizer.vocab_size).to_json())
    config.model.network = str(folder / "net.json")
    config.model.dtype = "float32"
    config.model.scan_layers = False
    for rate in RATES:
        config.model[rate] = 0.0
    config.data.spiece_model = str(tokenizer.model_path)
    config.data.max_seq_length = config.data.pad_to_multiple = 16
    config.train.epochs = 0.0
    config.train.steps = config.train.eval_every = config.checkpoint.save_every = 40
    config.train.batch_size = config.train.eval_batch_size = 8
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 2e-2, 5
    config.report.tensorboard = False
    return config
