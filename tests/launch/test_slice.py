"""The slice: requested, waited for, set up alike on all hosts, deleted; and all on a dry run."""

import subprocess

import pytest

SCRIPTS = ("create", "setup", "run", "status", "logs", "stop", "delete", "watch")
COMMAND = ("--", "train", "--config.note=it's a test")


def without_repeats(calls):
    return [call for number, call in enumerate(calls) if call not in calls[:number]]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("create", ("--spot", "--network=my-net", "--service-account=a@b.c", "--internal-ips")),
        ("setup", ("--internal-ips",)),
        ("run", COMMAND),
        ("status", ()),
        ("stop", ()),
        ("delete", ("--yes",)),
    ],
)
def test_a_dry_run_shows_the_commands_of_the_real_run_and_makes_none(
    cloud, slice_of_two, name, arguments
):
    if name == "create":
        cloud.plan(lives=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
        (cloud.world / "state.json").unlink()
    shown = cloud.do(name, "--dry-run", *arguments).stdout
    assert cloud.calls() == []
    assert list(cloud.world.glob("*.tar.gz")) == []
    cloud.do(name, *arguments)
    assert without_repeats(cloud.calls_of(shown)) == without_repeats(cloud.calls())


def test_create_waits_until_active(cloud):
    cloud.plan(lives=[["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    done = cloud.do("create", "--spot", "--wait-minutes=90")
    for state in ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"):
        assert f"slice (v3-16 in europe-west4-a) is {state}" in done.stderr
    (create,) = (call for call in cloud.calls() if call[3] == "create")
    assert create[4:] == [
        "slice",
        "--node-id=slice",
        "--accelerator-type=v3-16",
        "--runtime-version=tpu-ubuntu2204-base",
        "--valid-until-duration=90m",
        "--spot",
        "--project=my-project",
        "--zone=europe-west4-a",
        "--quiet",
    ]
    cloud.do("create")
    assert cloud.verbs().count("queued-resources create") == 1


def test_create_ends_when_the_request_fails(cloud):
    cloud.plan(lives=[["WAITING_FOR_RESOURCES", "FAILED"]])
    assert "slice became FAILED, wanted ACTIVE" in cloud.do("create", status=1).stderr
    assert "slice is FAILED, wanted none or a waiting one" in cloud.do("create", status=1).stderr


def test_create_ends_when_it_waited_long_enough(cloud):
    cloud.plan(lives=[["WAITING_FOR_RESOURCES"]])
    done = cloud.do("create", "--wait-minutes=0", status=1)
    assert "slice is WAITING_FOR_RESOURCES after 0 minutes, wanted ACTIVE" in done.stderr


def test_create_does_not_take_a_slice_of_another_type(slice_of_two):
    done = slice_of_two.do("create", "--accelerator=v3-128", status=2)
    assert "queued resource slice is a v3-16, wanted v3-128" in done.stderr


def test_delete_asks_first(slice_of_two):
    assert "not deleted: answered ''" in slice_of_two.do("delete", status=2).stderr
    assert "queued-resources delete" not in slice_of_two.verbs()
    slice_of_two.do("delete", "--yes")
    assert "--force" in slice_of_two.calls()[-1]
    assert "nothing to delete" in slice_of_two.do("delete", "--yes").stderr


def test_nothing_is_done_on_a_slice_that_is_not_there(cloud):
    cloud.plan(lives=[["SUSPENDED"]])
    for name, arguments in (("setup", ()), ("run", COMMAND)):
        done = cloud.do(name, *arguments, status=1)
        assert "node slice in europe-west4-a is 'absent', wanted READY" in done.stderr
    assert "is ABSENT, wanted ACTIVE" in cloud.do("status", status=1).stderr


def test_setup_brings_the_commit_to_all_workers_and_compares_versions(cloud):
    cloud.do("create")
    done = cloud.do("setup")
    assert "all 2 workers have commit " in done.stderr
    assert " jax 1.2.3 jaxlib 1.2.3 libtpu 1.2.3 flax 1.2.3" in done.stderr
    for worker in (0, 1):
        assert (cloud.world / f"workers/{worker}/xlnet-jax/launch/worker.sh").exists()
    assert all("--worker=all" in call for call in cloud.calls() if call[3] in ("ssh", "scp"))


def test_setup_names_the_host_with_other_versions(slice_of_two):
    slice_of_two.plan(workers=3)
    slice_of_two.versions(1, jax="1.2.2")
    (slice_of_two.world / "workers/2").mkdir()
    done = slice_of_two.do("setup", status=1)
    assert "versions differ between hosts: t1v-n-0a1b2c-w-1 has commit" in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "versions differ" in line)
    assert line.count(" has ") == 1
    assert line.index(" jax 1.2.2 ") < line.index("wanted commit") < line.index(" jax 1.2.3 ")


def test_setup_names_the_worker_where_installing_failed(slice_of_two):
    (slice_of_two.world / "broken-1").touch()
    done = slice_of_two.do("setup", status=1)
    assert "t1v-n-0a1b2c-w-1: no space left on device" in done.stderr
    assert "t1v-n-0a1b2c-w-1: error: setup failed" in done.stderr
    assert "w-0: error" not in done.stderr
    done = slice_of_two.do("run", *COMMAND, status=1)
    assert "t1v-n-0a1b2c-w-1: error: not set up" in done.stderr


def test_setup_says_what_stays_behind(cloud, checkout):
    cloud.do("create")
    readme = checkout / "README.md"
    readme.write_text("changed")
    try:
        assert "not committed stay behind" in cloud.do("setup").stderr
    finally:
        readme.write_text("")
    assert (cloud.world / "workers/1/xlnet-jax/README.md").read_text() == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"PROJECT": ""}, "PROJECT is '', wanted the id of a Google Cloud project"),
        ({"ZONE": ""}, "ZONE is '', wanted a zone such as europe-west4-a: set ZONE in "),
        ({"ACCELERATOR": "v3 8"}, "ACCELERATOR is 'v3 8', wanted a type such as v3-8"),
        ({"NAME": "My_Slice"}, "NAME is 'My_Slice', wanted letters a-z"),
        ({"SPOT": "maybe"}, "SPOT is 'maybe', wanted true or false"),
        ({"PYTHON": "3.10"}, "PYTHON is '3.10', wanted 3.11, 3.12 or 3.13"),
        ({"POLL_SECONDS": "-1"}, "POLL_SECONDS is '-1', wanted a number of seconds"),
        ({"WAIT_MINUTES": "1h"}, "WAIT_MINUTES is '1h', wanted a whole number"),
        ({"ZONES": "a"}, "line 8 sets 'ZONES', wanted one of: ACCELERATOR "),
    ],
)
def test_a_wrong_setting_is_one_line(cloud, changed, message):
    cloud.settings(**changed)
    error = cloud.do("create", status=2).stderr
    assert error.startswith("launch/create.sh: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--zones=a", "--zones=a sets 'ZONES', wanted one of:"),
        ("--spot=1", "SPOT is '1', wanted true or false: set SPOT in --spot=1 or --spot="),
        ("large", "received 'large', wanted --FLAG=VALUE (see launch/watch.sh --help)"),
        ("--settings=nowhere.env", "--settings is 'nowhere.env', which is not there"),
        ("--dry-run", "no command, wanted one behind --"),
    ],
)
def test_a_wrong_flag_is_one_line(cloud, argument, message):
    error = cloud.do("watch", argument, status=2).stderr
    assert message in error
    assert error.count("\n") == 1


def test_a_line_of_settings_that_is_none(cloud):
    cloud.file.write_text("# fine\n\n export PROJECT=x\n")
    error = cloud.do("create", status=2).stderr
    assert "line 3 is ' export PROJECT=x', wanted KEY=VALUE" in error


def test_settings_are_never_run(cloud):
    cloud.settings(NETWORK="'$(touch ran)'", SUBNETWORK='"my net"')
    shown = cloud.do("create", "--dry-run").stdout
    assert "'--network=$(touch ran)' '--subnetwork=my net'" in shown


def test_gcloud_is_missing(cloud):
    (cloud.bin / "gcloud").unlink()
    lean = cloud.world / "lean"
    lean.mkdir()
    for tool in ("bash", "basename", "dirname", "awk", "tr", "sort", "sed", "git"):
        (lean / tool).symlink_to(f"/usr/bin/{tool}")
    error = cloud.do("create", status=2, PATH=str(lean)).stderr
    assert "gcloud is not on PATH, wanted the Google Cloud CLI" in error
    assert "queued-resources create" in cloud.do("create", "--dry-run", PATH=str(lean)).stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_tells_use_and_flags(cloud, name):
    done = cloud.do(name, "--help")
    assert f"launch/{name}.sh" in done.stdout
    assert "--dry-run" in done.stdout
    assert "  --wait-minutes=360\n" in done.stdout
    assert done.stderr == ""


def test_the_stand_in_knows_documented_flags_only(cloud):
    zone = ["--zone=z", "--project=p"]
    for arguments in (
        ["compute", "tpus", "tpu-vm", "ssh", "slice", *zone, "--workers=all"],
        ["compute", "tpus", "tpu-vm", "ssh", "slice", *zone, "--batch-size=2"],
        ["compute", "tpus", "queued-resources", "delete", "slice", "--zone=z", "--force"],
        ["compute", "tpus", "queued-resources", "stop", "slice", *zone],
    ):
        done = subprocess.run(
            ["gcloud", *arguments], env=cloud.environment(), capture_output=True, check=False
        )
        assert done.returncode == 1
        assert b"ERROR" in done.stderr
