"""What the recipes of classification share: every key of section `data`, and names of variants."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs import _finetuning


def text_config(name: str) -> ConfigDict:
    """A classification config of a published data set, or of own files where `name` is ""."""
    config = _finetuning.base_config("classification")
    data = config.data
    data.name = name
    data.folder = ""
    data.train = ""
    data.dev = ""
    data.test = ""
    data.form = "auto"
    data.encoding = "utf-8"
    data.header = True
    data.text_a = "text"
    data.text_b = ""
    data.label = "label"
    data.id = ""
    data.kind = "auto"
    data.labels = ()
    data.label_separator = ","
    data.tfds_data_dir = ""
    data.spiece_model = ""
    data.max_seq_length = 128
    data.pad_to_multiple = 16
    data.threshold = 0.0
    data.summary_type = "last"
    data.use_projection = True
    data.count_padding = False
    config.checkpoint.best_metric = "dev_accuracy"
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
    config.train.eval_every = max(1, steps // 10)
    config.checkpoint.save_every = max(1, steps // 10)


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
