"""CMRC 2018, simplified Chinese, fine-tuned from Chinese-XLNet.

    xlnet-jax train --config=configs/cmrc2018.py --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.train=cmrc2018_train.json --config.data.dev=cmrc2018_dev.json
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax predict --workdir=DIR --split=dev --output=FOLDER

`configs/cmrc2018.py:behaviour=reference` aligns and picks out answers exactly as the project's code
does. `--config.data.boundaries=characters` lets answers begin and end inside a piece.

Hardware: the authors used a Cloud TPU v2-8; length 512, batch 16, 2,400 steps. Their best (mean) of
ten runs, EM/F1: XLNet-mid dev 66.8 (66.3)/88.4 (88.1), test 69.3 (68.5)/89.2 (88.8), challenge 29.1
(27.1)/55.8 (54.9); XLNet-base dev 65.2 (63.0)/86.9 (85.9), test 67.0 (65.8)/87.2 (86.8), challenge
25.0 (22.7)/51.3 (49.5). None is ours. Ten runs: `--seeds=10`.
"""

from ml_collections import ConfigDict

from configs import _finetuning, squad


def get_config(arg: str = "behaviour=fixed") -> ConfigDict:
    """The published recipe; see the top of this file."""
    config = chinese_config(arg)
    config.data.max_answer_length = 40
    config.train.steps = 2_400
    config.optimizer.warmup_steps = 240
    _finetuning.set_interval(config, 400)
    return config


def chinese_config(arg: str) -> ConfigDict:
    """What the recipes of CMRC 2018 and DRCD share."""
    name = arg.removeprefix("behaviour=")
    if name not in squad.BEHAVIOURS:
        raise ValueError(
            f"got {arg!r}, wanted behaviour=BEHAVIOUR with BEHAVIOUR one of"
            f" {', '.join(squad.BEHAVIOURS)}"
        )
    config = squad.span_qa_config(squad.BEHAVIOURS[name])
    config.data.answerability = False
    config.data.scoring = "chinese"
    config.train.batch_size = 16
    config.train.eval_batch_size = 16
    config.checkpoint.best_metric = "dev_average"
    return config
