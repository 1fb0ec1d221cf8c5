"""DRCD, traditional Chinese, fine-tuned from Chinese-XLNet.

    xlnet-jax train --config=configs/drcd.py --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.train=DRCD_training.json --config.data.dev=DRCD_dev.json
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax evaluate --workdir=DIR --checkpoint=best --config.data.dev=DRCD_test.json

Variants as in configs/cmrc2018.py. Hardware: the authors used a Cloud TPU v2-8; length 512, batch
16, 3,600 steps. Their best (mean) of ten runs, EM/F1: XLNet-mid dev 85.3 (84.9)/93.5 (93.3), test
85.5 (84.8)/93.6 (93.2); XLNet-base dev 83.8 (83.2)/92.3 (92.0), test 83.5 (82.8)/92.2 (91.8). None
is ours. Ten runs: `--seeds=10`.
"""

from ml_collections import ConfigDict

from configs import _finetuning, cmrc2018


def get_config(arg: str = "behaviour=fixed") -> ConfigDict:
    """The published recipe; see the top of this file."""
    config = cmrc2018.chinese_config(arg)
    config.data.max_answer_length = 30
    config.train.steps = 3_600
    config.optimizer.warmup_steps = 360
    _finetuning.set_interval(config, 600)
    return config
