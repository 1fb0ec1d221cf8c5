"""XNLI: natural language inference in fifteen languages, training text by machine translation.

    xlnet-jax train --config=configs/xnli.py:LANGUAGE --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.folder=FOLDER
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax evaluate --workdir=DIR --checkpoint=best --config.data.dev=FOLDER/xnli.test.tsv
    xlnet-jax predict --workdir=DIR --checkpoint=best --split=test --output=FOLDER

LANGUAGE is zh (as in the Chinese-XLNet project's code: blanks are taken out of the text) or one of
ar bg de el en es fr hi ru sw th tr ur vi. FOLDER holds multinli/multinli.train.LANGUAGE.tsv,
xnli.dev.tsv and xnli.test.tsv.

Neither project publishes a score or a recipe. Ours: length 128, batch 64, rate 2e-5, two epochs
with a tenth of warmup. Hardware: any; a 16 GiB GPU holds 56 sequences of a base model, so set
train.accumulation_steps=2 there.
"""

from ml_collections import ConfigDict

from configs import _text
from xlnet_jax.data import readers_published

_PREFIX = "xnli/"
_STEPS = 2 * 392_702 // 64


def get_config(language: str = "zh") -> ConfigDict:
    """The config of a language; see the top of this file."""
    names = [name for name in readers_published.DATA_SETS if name.startswith(_PREFIX)]
    if _PREFIX + language not in names:
        known = ", ".join(name.removeprefix(_PREFIX) for name in names)
        raise ValueError(f"got {language!r}, wanted one of {known}")
    config = _text.text_config(_PREFIX + language)
    config.data.text_a, config.data.text_b = "text_a", "text_b"  # in files for `predict --input`
    config.optimizer.warmup_steps = _STEPS // 10
    config.train.batch_size = 64
    config.train.epochs = 2.0
    return config
