"""ChnSentiCorp: sentiment of Chinese reviews, as in the Chinese-XLNet project.

    xlnet-jax train --config=configs/chnsenticorp.py --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.folder=FOLDER
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax evaluate --workdir=DIR --checkpoint=best --config.data.dev=FOLDER/test.tsv
    xlnet-jax predict --workdir=DIR --checkpoint=best --input=new.tsv --output=answers.tsv

FOLDER holds train.tsv, dev.tsv and test.tsv with the columns label and text_a. Length 256, batch
48, rate 2e-5 (the project's English page prints 3e-5), three epochs, of which the first tenth is
warmup: 600 steps.

Hardware: the authors used a TPU v2-8. Published, accuracy of ten runs, best (mean), for
Chinese-XLNet-mid: dev 95.8 (95.2), test 95.4 (94.9); use --seeds=10. None is ours.
"""

from ml_collections import ConfigDict

from configs import _text


def get_config() -> ConfigDict:
    """The config; see the top of this file."""
    config = _text.text_config("chnsenticorp")
    config.data.text_a = "text_a"
    config.data.max_seq_length = 256
    config.optimizer.warmup_steps = 60
    config.optimizer.epsilon = 1e-8  # the code's default, which the command leaves
    config.train.batch_size = 48
    config.train.epochs = 3.0
    config.train.eval_batch_size = 48
    config.checkpoint.save_every = 200
    return config
