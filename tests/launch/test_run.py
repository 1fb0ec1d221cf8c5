"""A run on all workers: its words arrive, it lives once, and its end is told."""

import os
import signal

import pytest

RUN = ("--run=large", "--", "train")

HARD_WORDS = [
    "two words",
    "it's",
    'say "hi"',
    "$HOME `date` $(date)",
    "back\\slash",
    "(1,2)",
    "a  b",
    "*",
    "",
    "line\nline",
    "größe 語",
    "--config.data.train=gs://b/a b/*.gz",
    "~",
    "-",
    "#no comment",
    "!x",
    "&& false; |",
]


def test_every_word_arrives_as_it_was_on_every_worker(slice_of_two):
    slice_of_two.do("run", *RUN, *HARD_WORDS)
    slice_of_two.wait_for_start()
    for worker in (0, 1):
        assert slice_of_two.arguments(worker) == ["train", *HARD_WORDS]
        home = slice_of_two.world / f"workers/{worker}"
        assert (home / "folder").read_text() == f"{home}/xlnet-jax\n"


def test_every_command_on_workers_goes_to_all_of_them(slice_of_two):
    slice_of_two.do("run", *RUN)
    slice_of_two.do("status", "--run=large")
    slice_of_two.do("logs", "--run=large")
    slice_of_two.do("stop", "--run=large")
    sent = [call for call in slice_of_two.calls() if call[3] == "ssh"]
    assert len(sent) == 5
    assert all("--worker=all" in call for call in sent)


def test_a_run_lives_once(slice_of_two):
    slice_of_two.do("run", *RUN)
    refused = slice_of_two.do("run", *RUN, status=1)
    hosts = "t1v-n-0a1b2c-w-0 (alive), t1v-n-0a1b2c-w-1 (alive)"
    assert f"run 'large' is alive on {hosts}, wanted none of that name" in refused.stderr
    slice_of_two.do("run", "--run=other", "--", "evaluate")
    slice_of_two.do("stop", "--run=large")
    slice_of_two.do("run", *RUN)
    slice_of_two.do("stop", "--run=other")


def test_a_worker_refuses_a_second_start_by_itself(slice_of_two):
    slice_of_two.do("run", *RUN)
    slice_of_two.wait_for_start()
    home = slice_of_two.world / "workers/1"
    first = (home / "xlnet-jax-runs/large/process").read_text()
    # The caller looked before the first run was there.
    worker = home / "xlnet-jax/launch/worker.sh"
    worker.write_text(worker.read_text().replace("report alive", "report absent"))
    other = slice_of_two.world / "workers/0/xlnet-jax/launch/worker.sh"
    other.write_text(worker.read_text().replace("--wait 5", "--wait 0"))
    worker.write_text(other.read_text())
    refused = slice_of_two.do("run", *RUN, status=1)
    assert "t1v-n-0a1b2c-w-1: error: run 'large' is alive" in refused.stderr
    assert (home / "xlnet-jax-runs/large/process").read_text() == first


def test_status_names_the_failing_worker_and_its_exit_status(slice_of_two):
    slice_of_two.act(0, "exit 0")
    slice_of_two.act(1, "exit 17")
    slice_of_two.do("run", *RUN)
    slice_of_two.wait_for("workers/*/xlnet-jax-runs/large/end", 2)
    done = slice_of_two.do("status", "--run=large", status=1)
    assert "t1v-n-0a1b2c-w-0 finished 0\nt1v-n-0a1b2c-w-1 failed 17\n" in done.stdout
    assert "run 'large' failed on t1v-n-0a1b2c-w-1 (failed 17)" in done.stderr


def test_status_names_a_worker_that_gives_no_answer(slice_of_two):
    slice_of_two.plan(silent=[1])
    done = slice_of_two.do("status", status=1)
    assert "t1v-n-0a1b2c-w-0 absent" in done.stdout
    assert "no answer from worker 1 (of 2)" in done.stderr


def test_logs_stand_behind_the_names_of_their_hosts(slice_of_two):
    slice_of_two.act(0, "exit 0")
    slice_of_two.act(1, "exit 3")
    slice_of_two.do("run", *RUN, "two words")
    slice_of_two.wait_for("workers/*/xlnet-jax-runs/large/end", 2)
    lines = slice_of_two.do("logs", "--run=large").stdout.splitlines()
    assert "t1v-n-0a1b2c-w-0: step 1 of train" in lines
    assert "t1v-n-0a1b2c-w-1: step 1 of train" in lines
    assert any(line.endswith(" xlnet-jax train two\\ words ") for line in lines)
    one = slice_of_two.do("logs", "--run=large", "--worker=1", "--lines-each=1").stdout
    assert one.startswith("t1v-n-0a1b2c-w-1: ")
    assert one.endswith(" failed 3\n")
    assert one.count("\n") == 1


def test_stop_lets_the_run_save_and_kills_what_does_not_listen(slice_of_two):
    slice_of_two.act(1, "stubborn")
    slice_of_two.do("run", *RUN)
    slice_of_two.wait_for_start()
    done = slice_of_two.do("stop", "--run=large", "--stop-seconds=1")
    lines = sorted(done.stdout.splitlines())
    assert lines[0].endswith("w-0 stopped 0")
    assert lines[1].endswith("w-1 stopped 137")


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGTERM, "terminated 0"), (signal.SIGKILL, "lost")]
)
def test_a_signal_to_the_machine_is_told_from_an_end_of_the_run(slice_of_two, number, state):
    slice_of_two.do("run", *RUN)
    slice_of_two.wait_for_start()
    home = slice_of_two.world / "workers/0/xlnet-jax-runs/large"
    os.killpg(int((home / "process").read_text().split()[1]), number)
    if number == signal.SIGTERM:
        slice_of_two.wait_for("workers/0/xlnet-jax-runs/large/end", 1)
    lines = slice_of_two.do("status", "--run=large", status=int(state == "lost")).stdout
    assert f"w-0 {state}\n" in lines
    assert "w-1 alive\n" in lines


def test_setup_leaves_a_live_run_alone(slice_of_two):
    slice_of_two.do("run", *RUN)
    done = slice_of_two.do("setup", status=1)
    assert "w-0: error: run 'large' is alive, wanted none: launch/stop.sh" in done.stderr
    assert "w-1 alive" in slice_of_two.do("status", "--run=large").stdout


def test_run_asks_for_setup_first(cloud):
    cloud.do("create")
    assert "run launch/setup.sh first" in cloud.do("run", *RUN, status=1).stderr
