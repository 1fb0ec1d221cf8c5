"""The keys that every config has, with the values that most of them keep."""

from ml_collections import ConfigDict


def base_config(task: str) -> ConfigDict:
    """A config of a task whose section `data` is empty; the caller fills it and sets the rest."""
    config = ConfigDict()
    config.task = task
    config.init_from = ""
    config.init_optimizer = False
    config.seed = 0

    config.model = ConfigDict()
    config.model.dropout = 0.1
    config.model.activation_dropout = 0.1
    config.model.attention_dropout = 0.1
    config.model.causal = False
    config.model.same_length = False
    config.model.clamp_len = -1
    config.model.mem_len = 0
    config.model.dtype = "bfloat16"
    config.model.scan_layers = True
    config.model.remat = "none"
    config.model.init = "normal"
    config.model.init_std = 0.02
    config.model.init_range = 0.1

    config.data = ConfigDict()

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 2e-5
    config.optimizer.warmup_steps = 0
    config.optimizer.schedule = "polynomial"
    config.optimizer.min_lr_ratio = 0.0
    config.optimizer.weight_decay = 0.0
    config.optimizer.beta_1 = 0.9
    config.optimizer.beta_2 = 0.999
    config.optimizer.epsilon = 1e-6
    config.optimizer.bias_correction = "always"
    config.optimizer.clip = 1.0
    config.optimizer.layer_decay = 1.0
    config.optimizer.layer_decay_on = "learning_rate"

    config.train = ConfigDict()
    config.train.steps = 0
    config.train.epochs = 0.0
    config.train.batch_size = 32
    config.train.accumulation_steps = 1
    config.train.eval_every = 0
    config.train.eval_steps = 0
    config.train.eval_batch_size = 0

    config.checkpoint = ConfigDict()
    config.checkpoint.save_every = 1_000
    config.checkpoint.keep = 1
    config.checkpoint.keep_every = 0
    config.checkpoint.asynchronous = True
    config.checkpoint.best_metric = ""

    config.report = ConfigDict()
    config.report.log_every = 50
    config.report.tensorboard = True
    config.report.profile_start = -1
    config.report.profile_steps = 5

    config.mesh = ConfigDict()
    config.mesh.data = -1  # the rest of the devices
    config.mesh.fsdp = 1
    config.mesh.model = 1
    config.mesh.processes = 0
    return config
