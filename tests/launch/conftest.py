"""A cloud in a folder: a stand-in for gcloud, workers with stand-ins for tools, a checkout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("xlnet-jax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint")

# What a worker finds on its PATH: its name, and the pip of the image's Python, which brings uv.
TOOLS = {
    "hostname": 'echo "t1v-n-0a1b2c-w-$WORKER"',
    "python3": """
[ "$*" = "-m pip install --user --quiet --require-hashes -r launch/requirements-uv.lock" ] || exit 2
[ -e launch/requirements-uv.lock ] || exit 2
mkdir -p "$HOME/.local/bin" && cp "$WORLD/uv" "$HOME/.local/bin/uv"
""",
}
UV = """
bin=$HOME/xlnet-jax-env/bin
case "$1 $2" in
  "python install") [ "$3" = 3.11 ] ;;
  "venv --clear") mkdir -p "$bin" && cp "$WORLD/python" "$bin" ;;
  "pip install")
    case "$*" in
      *--require-hashes*) [ -e requirements.lock ] && [ -e launch/requirements-tpu.lock ] ;;
      *--editable*) cp "$WORLD/xlnet-jax" "$bin" && [ -e pyproject.toml ] ;;
    esac
    [ ! -e "$WORLD/broken-$WORKER" ] || { echo "no space left on device"; exit 1; } ;;
  *) exit 2 ;;
esac
"""
# Waits for a signal, or ends as the plan says for this life of the slice and this worker.
XLNET_JAX = """
action=$(cat "$WORLD/action-$LIFE-$WORKER" 2>/dev/null || cat "$WORLD/action-$LIFE")
case $action in
  exit*) code=${action#exit } ;;
  stubborn) trap '' TERM ;;
  *) trap 'exit 0' TERM ;;
esac
printf '%s\\0' "$@" >"$HOME/arguments"
pwd >"$HOME/folder"
echo "step 1 of $1"
[ -z "$code" ] || exit "$code"
while [ -e "$HOME/arguments" ]; do sleep 0.05; done
"""


def script(path, text, shell="/bin/bash"):
    path.write_text(f"#!{shell}\n{text}")
    path.chmod(0o755)


class Cloud:
    """Everything a test of launch/ needs; `world` is the stand-in's folder."""

    def __init__(self, folder, checkout):
        self.world = folder / "world"
        self.checkout = checkout
        self.bin = folder / "bin"
        for path in (self.world / "tools", self.bin):
            path.mkdir(parents=True)
        gcloud = ROOT / "tests/launch/stand_in.py"
        # Without site packages: the program is started dozens of times.
        script(self.bin / "gcloud", f'exec "{sys.executable}" -S -E "{gcloud}" "$@"\n', "/bin/sh")
        for name, text in TOOLS.items():
            script(self.world / "tools" / name, text)
        script(self.world / "uv", UV)
        script(self.world / "xlnet-jax", XLNET_JAX)
        # The file "quick" spares the versions, most of the time of a set-up.
        quick = (
            'if [ "$1$(ls "$WORLD/quick" 2>/dev/null)" = "-$WORLD/quick" ]; then exec echo same; fi'
        )
        python = f'PYTHONPATH="$WORLD/site-$WORKER" exec "{sys.executable}" -S "$@"'
        script(self.world / "python", f"{quick}\n{python}\n")
        self.plan()
        self.settings()

    def plan(self, workers=2, lives=(("ACTIVE",),), actions=("wait",), **more):
        """What happens: states of the slice by life and look, and what xlnet-jax does."""
        plan = {"workers": workers, "lives": lives, **more}
        (self.world / "plan.json").write_text(json.dumps(plan))
        for life, action in enumerate(actions):
            (self.world / f"action-{life}").write_text(action)
        for worker in range(workers):
            self.versions(worker)

    def act(self, worker, action, life=0):
        (self.world / f"action-{life}-{worker}").write_text(action)

    def versions(self, worker, **changed):
        for name in PACKAGES:
            version = changed.get(name, "1.2.3")
            folder = self.world / f"site-{worker}" / f"{name.replace('-', '_')}.dist-info"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")

    def settings(self, **changed):
        values = {
            "PROJECT": "my-project",
            "ZONE": "europe-west4-a",
            "NAME": "slice",
            "ACCELERATOR": "v3-16",
            "POLL_SECONDS": "0.02",
            "BACKOFF_SECONDS": "0",
            "GRACE_SECONDS": "0",
            **changed,
        }
        self.file = self.world / "the settings.env"
        self.file.write_text("".join(f"{key}={text}\n" for key, text in values.items()))

    def environment(self, **more):
        kept = {"HOME": str(self.world), "TMPDIR": str(self.world), "LC_ALL": "C.UTF-8"}
        path = f"{self.bin}:/usr/bin:/bin"
        return {**kept, "PATH": path, "WORLD": str(self.world), **more}

    def command(self, name, *arguments):
        path = self.checkout / "launch" / f"{name}.sh"
        return ["bash", str(path), f"--settings={self.file}", *arguments]

    def do(self, name, *arguments, status=0, **environment):
        """Runs a launch script; checks its exit status."""
        done = subprocess.run(
            self.command(name, *arguments),
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        assert done.returncode == status, done.stderr
        return done

    def start(self, name, *arguments):
        """Starts a launch script and leaves it running."""
        return subprocess.Popen(
            self.command(name, *arguments),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self):
        """Arguments of each call of gcloud so far."""
        file = self.world / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    def calls_of(self, lines):
        """What a shell makes of printed commands: the calls that gcloud would get."""
        record = self.world / "shown"
        record.mkdir()
        (record / "plan.json").write_text("{}")
        environment = self.environment(WORLD=str(record), ONLY_RECORD="1")
        subprocess.run(["bash", "-euc", lines], env=environment, check=True)
        return [json.loads(line) for line in (record / "calls.jsonl").read_text().splitlines()]

    def verbs(self):
        return [" ".join(call[2:4]) for call in self.calls()]

    def arguments(self, worker):
        """What xlnet-jax received on a worker."""
        text = (self.world / f"workers/{worker}/arguments").read_bytes().decode()
        return text.split("\0")[:-1]

    def wait_for(self, pattern, count):
        """Until so many files of the world match."""
        self.wait_until(lambda: len(list(self.world.glob(pattern))) >= count)

    def wait_until(self, condition):
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, "not within two minutes"
            time.sleep(0.01)

    def wait_for_start(self, workers=2):
        """Until xlnet-jax runs on all workers, and that is written down."""
        self.wait_for("workers/*/arguments", workers)
        self.wait_for("workers/*/xlnet-jax-runs/large/process", workers)

    def end_processes(self):
        """Ends the runs known by now; one that starts later ends where its home is gone."""
        for file in self.world.glob("workers/*/xlnet-jax-runs/*/process"):
            try:
                os.killpg(int(file.read_text().split()[1]), signal.SIGKILL)
            except (ProcessLookupError, IndexError):
                continue
        shutil.rmtree(self.world / "workers", ignore_errors=True)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A repository with the real launch/, and with little beside it."""
    folder = tmp_path_factory.mktemp("launch") / "a checkout"
    shutil.copytree(ROOT / "launch", folder / "launch", ignore=shutil.ignore_patterns("*.env"))
    for name in ("xlnet_jax/cli.py", "configs/pretrain.py"):
        (folder / name).parent.mkdir()
        (folder / name).touch()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        (folder / name).touch()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    return folder


@pytest.fixture
def cloud(tmp_path, checkout):
    """A cloud without a slice."""
    made = Cloud(tmp_path, checkout)
    yield made
    made.end_processes()


@pytest.fixture(scope="session")
def ready_world(tmp_path_factory, checkout):
    """The folder of a cloud with a slice of two workers, set up."""
    made = Cloud(tmp_path_factory.mktemp("ready"), checkout)
    made.do("create")
    made.do("setup")
    return made.world


@pytest.fixture
def slice_of_two(cloud, ready_world):
    """A slice of two workers, set up."""
    shutil.copytree(ready_world / "workers", cloud.world / "workers")
    shutil.copy(ready_world / "state.json", cloud.world)
    return cloud
