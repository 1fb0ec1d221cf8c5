"""What the fine-tuning recipes share; each sets its task, its data and what it was published with.

The network is that of `init_from` (or of `model.network`: a name such as base, or the path of an
xlnet_config.json, to start at random).
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs import _shared

BEHAVIOURS = ("fixed", "reference")


def base_config(task: str, *, summary: bool = False) -> ConfigDict:
    """A config of a task with the keys of section `data` that all tasks have.

    Args:
        task: a name of `xlnet_jax.tasks`.
        summary: whether the task makes one vector of a sequence; adds the keys that say how.
    """
    config = _shared.base_config(task)
    config.model.network = ""
    config.data.train = ""
    config.data.dev = ""
    config.data.test = ""
    config.data.spiece_model = ""
    config.data.max_seq_length = 128
    config.data.pad_to_multiple = 16
    if summary:
        config.data.summary_type = "last"
        config.data.use_projection = True
        config.data.count_padding = False
    config.train.epochs = 3.0
    config.train.eval_every = -1
    return config


def set_schedule(
    config: ConfigDict, *, rate: float, batch_size: int, steps: int, warmup_steps: int
) -> None:
    """A run of so many steps, evaluated ten times."""
    config.optimizer.learning_rate = rate
    config.optimizer.warmup_steps = warmup_steps
    config.train.batch_size = batch_size
    config.train.epochs = 0.0
    config.train.steps = steps
    set_interval(config, max(1, steps // 10))


def set_interval(config: ConfigDict, steps: int) -> None:
    """Evaluates and saves every so many steps."""
    config.train.eval_every = steps
    config.checkpoint.save_every = steps


def train_as_reference(config: ConfigDict) -> None:
    """Adam and summaries as the original's code has them."""
    config.optimizer.bias_correction = "reference"
    config.data.count_padding = True


def parse_variant(
    arg: str, names: Mapping[str, object], options: Mapping[str, tuple[str, ...]]
) -> tuple[str, dict[str, str]]:
    """Cuts "NAME,OPTION=VALUE" apart; an option that is not given has its first value.

    Raises ValueError with what there is.
    """
    name, *rest = arg.split(",")
    given = dict(option.partition("=")[::2] for option in rest)
    known = all(value in options.get(key, ()) for key, value in given.items())
    if name not in names or not known:
        wanted = "".join(f"[,{key}={'|'.join(values)}]" for key, values in options.items())
        raise ValueError(f"got {arg!r}, wanted NAME{wanted} with NAME one of {', '.join(names)}")
    return name, {key: given.get(key, values[0]) for key, values in options.items()}
