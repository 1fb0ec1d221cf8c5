"""The loop on the toy task, as one of several processes; run as a program.

python -m tests.training.toy_processes WORKDIR STEPS PORT NUM_PROCESSES PROCESS_ID [BLIND]

A blind process cannot read the newest checkpoint.
"""

import contextlib
import functools
import sys
import time

import jax
import optax

from tests.training import tiny_xlnet
from tests.training.toy import ToyTask
from xlnet_jax.training import agreement, distributed, sharding, workdir
from xlnet_jax.training.best import BestKeeper
from xlnet_jax.training.checkpoint import CheckpointConfig, Checkpointer, abstract_state
from xlnet_jax.training.loop import Loop
from xlnet_jax.training.reporting import Reporter
from xlnet_jax.training.roll_call import Place
from xlnet_jax.training.state import make_state, state_shardings
from xlnet_jax.training.step import make_train_step


class SlowTask(ToyTask):
    """Slow enough to be disturbed."""

    steps_per_epoch = 10

    def __init__(self, pause):
        super().__init__(8)
        self.pause = pause

    def train_batches(self, start_step, rows):
        for batch in super().train_batches(start_step, rows):
            time.sleep(self.pause)
            yield batch


def fresh(task, optimizer, mesh):
    """What makes a state, and its shapes, types and places."""
    new_state = functools.partial(make_state, task, optimizer, 0)
    abstract = jax.eval_shape(new_state)
    return new_state, abstract_state(abstract, state_shardings(abstract, mesh))


def newest_state(folder):
    """What a run has saved last."""
    _, abstract = fresh(SlowTask(0), optax.adam(0.05), sharding.make_mesh())
    with contextlib.closing(Checkpointer(folder, CheckpointConfig(), read_only=True)) as saved:
        return saved.restore(abstract).tree


def run(folder, steps, pause=0.0):
    """Trains, or goes on; the final state."""
    config = tiny_xlnet.settings(batch_size=8, steps=steps, save_every=5, keep=2)
    task, mesh, optimizer = SlowTask(pause), sharding.make_mesh(), optax.adam(0.05)
    new_state, abstract = fresh(task, optimizer, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    step = jax.jit(make_train_step(task, optimizer, seed=0), out_shardings=places)
    with (
        workdir.claim(folder),
        contextlib.closing(Checkpointer(folder, config.checkpoint)) as saved,
    ):
        found = saved.restore(abstract)
        state = found.tree if found else jax.jit(new_state, out_shardings=places)()
        first = int(state.step)
        reporter = Reporter(folder, config.report, train_steps=steps, start_step=first)
        reporter.say(f"begins at step {first}")
        for line in found.skipped if found else ():
            reporter.say(line)
        best = BestKeeper(folder, config.checkpoint, first)
        loop = Loop(
            settings=config, task=task, mesh=mesh, train_step=step, evaluate=None,
            schedule=lambda step: 0.05, checkpointer=saved, best=best, reporter=reporter,
            stored={}, peak_flops=1e9,
        )  # fmt: skip
        with contextlib.closing(reporter):
            reporter.start()
            return loop.run(state)


def main():
    folder, *numbers = sys.argv[1:6]
    steps, port, num_processes, process_id = map(int, numbers)
    place = Place("127.0.0.1", port, num_processes, process_id)
    if sys.argv[6:]:
        Checkpointer._read = blind(Checkpointer._read)
    with distributed.session(place, {}, workdir=folder, timeout=200, exit_status=lambda error: 1):
        agreement.check_shared(folder)
        run(folder, steps, pause=0.1)


def blind(read):
    def read_all_but_the_newest(self, step, wanted, info):
        if step == self.steps()[-1]:
            raise FileNotFoundError("cannot see that")
        return read(self, step, wanted, info)

    return read_all_but_the_newest


if __name__ == "__main__":
    main()
