"""The watch: a run comes back after every preemption, and a real failure ends it by name."""

import os
import signal

import pytest

COMMAND = ("--run=large", "--", "train", "two words", "it's")


@pytest.fixture(autouse=True)
def without_versions(cloud):
    (cloud.world / "quick").touch()


def test_a_preempted_run_is_brought_back_with_the_same_words(cloud):
    first = ["WAITING_FOR_RESOURCES", "ACTIVE", "ACTIVE", "SUSPENDED"]
    second = ["WAITING_FOR_RESOURCES", "FAILED"]
    cloud.plan(lives=[first, second, ["ACTIVE"]], actions=["wait", "wait", "exit 0"])
    shown = cloud.do("watch", "--spot", "--dry-run", *COMMAND).stdout
    assert cloud.calls() == []
    done = cloud.do("watch", "--spot", "--delete-at-end", *COMMAND)
    assert "run 'large' is gone: recreation 1 of at most 100 in 0 s" in done.stderr
    assert "run 'large' is not up again: recreation 2 of at most 100" in done.stderr
    assert "run 'large' finished" in done.stderr
    verbs = [verb for verb in cloud.verbs() if verb.split()[1] in ("create", "delete", "scp")]
    create, copy, delete = "queued-resources create", "tpu-vm scp", "queued-resources delete"
    assert verbs == [create, copy, delete, create, delete, create, copy, delete]
    assert cloud.arguments(0) == cloud.arguments(1) == ["train", "two words", "it's"]
    creates = [call for call in cloud.calls() if call[3] == "create"]
    assert creates[0] == creates[1] == creates[2]
    assert "--spot" in creates[0]
    expected = cloud.calls_of(shown)
    assert all(call in expected for call in cloud.calls())


def test_a_preempted_node_is_enough(cloud):
    cloud.plan(lives=[["ACTIVE", "ACTIVE", "ACTIVE without its node"], ["ACTIVE"]])
    (cloud.world / "action-1").write_text("exit 0")
    assert "run 'large' is gone: recreation 1" in cloud.do("watch", *COMMAND).stderr
    assert cloud.verbs().count("queued-resources delete") == 1
    assert cloud.verbs().count("queued-resources create") == 2


def test_recreations_are_counted(cloud):
    cloud.plan(lives=[["ACTIVE", "ACTIVE", "SUSPENDED"]])
    done = cloud.do("watch", "--max-recreations=0", *COMMAND, status=1)
    assert "run 'large' is gone after 0 recreations, wanted finished" in done.stderr
    assert cloud.verbs().count("queued-resources create") == 1


def test_a_first_request_that_fails_ends_the_watch(cloud):
    cloud.plan(lives=[["FAILED"]])
    done = cloud.do("watch", *COMMAND, status=1)
    assert "the run could not be started" in done.stderr
    assert cloud.verbs().count("queued-resources create") == 1


def test_a_failing_worker_ends_the_watch_and_is_named(cloud):
    cloud.act(1, "exit 9")
    done = cloud.do("watch", *COMMAND, status=1)
    assert "run 'large' failed on t1v-n-0a1b2c-w-1 (failed 9) while the slice was up" in done.stderr
    assert "t1v-n-0a1b2c-w-1: step 1 of train" in done.stdout
    # The healthy worker does not run on alone.
    assert "t1v-n-0a1b2c-w-0 stopped 0" in done.stdout
    assert cloud.verbs().count("queued-resources create") == 1


def test_a_crash_that_a_preemption_explains_is_no_failure(cloud):
    # The look after that which waited for the end of the run finds the slice up, the next one gone.
    lives = [["ACTIVE", "ACTIVE", "ACTIVE until the end", "ACTIVE", "SUSPENDED"], ["ACTIVE"]]
    cloud.plan(lives=lives, actions=["exit 1", "exit 0"])
    done = cloud.do("watch", "--grace-seconds=600", *COMMAND)
    assert "failed on" in done.stderr
    assert "run 'large' is gone: recreation 1" in done.stderr
    assert "run 'large' finished" in done.stderr


def test_a_machine_that_restarts_does_not_cost_the_slice(slice_of_two):
    watch = slice_of_two.start("watch", *COMMAND)
    slice_of_two.wait_for_start()
    process = slice_of_two.world / "workers/1/xlnet-jax-runs/large/process"
    slice_of_two.act(0, "exit 0")
    slice_of_two.act(1, "exit 0")
    os.killpg(int(process.read_text().split()[1]), signal.SIGKILL)
    _, errors = watch.communicate(timeout=300)
    assert watch.returncode == 0, errors
    assert "interrupted on t1v-n-0a1b2c-w-1 (lost): recreation 1" in errors
    assert "run 'large' finished" in errors
    assert "queued-resources delete" not in slice_of_two.verbs()


def test_stop_ends_a_watch_and_a_live_run_is_only_watched(slice_of_two):
    slice_of_two.do("run", *COMMAND)
    slice_of_two.wait_for_start()
    (slice_of_two.world / "calls.jsonl").unlink()
    watch = slice_of_two.start("watch", *COMMAND)
    slice_of_two.wait_until(lambda: slice_of_two.verbs().count("queued-resources list") > 1)
    slice_of_two.do("stop", "--run=large")
    _, errors = watch.communicate(timeout=300)
    assert watch.returncode == 0, errors
    assert "run 'large' was stopped" in errors
    assert "tpu-vm scp" not in slice_of_two.verbs()
