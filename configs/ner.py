"""Named entities, or any tag a word, from CoNLL-style files.

    xlnet-jax train --config=configs/ner.py --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.train=eng.train --config.data.dev=eng.testa --config.data.test=eng.testb
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax evaluate --workdir=DIR --checkpoint=best --config.data.dev=eng.testb
    xlnet-jax predict --workdir=DIR --checkpoint=best --split=test --output=tags.tsv

A file has a word a line, its tag in the last column (data.tag_column), and a blank line behind a
sentence. Tags are O, B-X and I-X; IOB1, as in CoNLL-2003's own files, is read too. For Chinese, a
character a line, set data.joined=true.

The authors publish nothing on tagging. The recipe is that of an independent rerun on CoNLL-2003
(stevezheng23/xlnet_extension_tf): length 128, batch 16, rate 2e-5, 4,000 steps, 100 of warmup;
F1 on the test set with XLNet-Large 92.15 (mean of five runs), best 92.67. None is ours.
Hardware: there one GPU; 16 GiB hold 8 sequences of the large model, so set
train.accumulation_steps=2.
"""

from ml_collections import ConfigDict

from configs import _finetuning


def get_config() -> ConfigDict:
    """The config; see the top of this file."""
    config = _finetuning.base_config("tagging")
    data = config.data
    data.word_column = 0
    data.tag_column = -1
    data.joined = False
    data.labels = ()
    data.encoding = "utf-8"
    _finetuning.set_schedule(config, rate=2e-5, batch_size=16, steps=4_000, warmup_steps=100)
    config.checkpoint.best_metric = "dev_f1"
    return config
