"""What the recipes of classification share: every key of section `data`."""

from ml_collections import ConfigDict

from configs import _finetuning


def text_config(name: str) -> ConfigDict:
    """A classification config of a published data set, or of own files where `name` is ""."""
    config = _finetuning.base_config("classification", summary=True)
    data = config.data
    data.name = name
    data.folder = ""
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
    data.threshold = 0.0
    config.checkpoint.best_metric = "dev_accuracy"
    return config
