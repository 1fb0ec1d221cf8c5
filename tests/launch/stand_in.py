"""A stand-in for gcloud: knows the documented flags of the commands that launch/ uses, records
each call, and plays a TPU slice whose workers are folders of this machine.

The flags are those of `gcloud compute tpus` of the Google Cloud CLI 528 (GA track). The folder of
the world is in $WORLD: plan.json says what will happen, calls.jsonl receives the calls.
"""

import contextlib
import glob
import json
import os
import re
import signal
import sys
from typing import Any

WIDE = {"--project=", "--format=", "--quiet", "--verbosity=", "--account=", "--configuration="}
LIST = {"--zone=", "--filter=", "--limit=", "--page-size=", "--sort-by=", "--uri"}
SSH = {
    "--zone=", "--worker=", "--internal-ip", "--plain", "--dry-run", "--force-key-file-overwrite",
    "--ssh-key-file=", "--strict-host-key-checking=", "--ssh-key-expiration=",
    "--ssh-key-expire-after=",
}  # fmt: skip
# Command -> its flags ("=" where one takes a value), how many positionals, the flags it needs.
COMMANDS = {
    "queued-resources create": (
        {
            "--zone=", "--runtime-version=", "--accelerator-type=", "--topology=", "--type=",
            "--node-id=", "--node-count=", "--node-prefix=", "--async", "--data-disk=",
            "--description=", "--guaranteed", "--internal-ips", "--labels=", "--metadata=",
            "--metadata-from-file=", "--network=", "--range=", "--reserved", "--scopes=",
            "--service-account=", "--shielded-secure-boot", "--spot", "--subnetwork=", "--tags=",
            "--valid-after-duration=", "--valid-after-time=", "--valid-until-duration=",
            "--valid-until-time=",
        },
        1,
        {"--zone", "--project", "--runtime-version", "--accelerator-type", "--node-id"},
    ),
    "queued-resources delete": ({"--zone=", "--async", "--force"}, 1, {"--zone", "--project"}),
    "queued-resources describe": ({"--zone="}, 1, {"--zone", "--project"}),
    "queued-resources list": (LIST, 0, {"--zone", "--project"}),
    "tpu-vm list": (LIST, 0, {"--zone", "--project"}),
    "tpu-vm ssh": (
        SSH | {"--command=", "--output-directory=", "--ssh-flag="},
        1,
        {"--zone", "--project"},
    ),
    "tpu-vm scp": (SSH | {"--compress", "--recurse", "--scp-flag="}, 2, {"--zone", "--project"}),
}  # fmt: skip


def parse(arguments: list[str]) -> tuple[str, list[str], dict[str, str]]:
    """Command, positionals and flags; ends the program as gcloud does on anything unknown."""
    if arguments[:2] != ["compute", "tpus"]:
        sys.exit(f"ERROR: (gcloud) Invalid choice: {arguments[:2]}")
    command = " ".join(arguments[2:4])
    if command not in COMMANDS:
        sys.exit(f"ERROR: (gcloud.compute.tpus) Invalid choice: {command!r}")
    known, count, needed = COMMANDS[command]
    flags, positionals = {}, []
    for argument in arguments[4:]:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            positionals.append(argument)
        elif name + equals in known | WIDE:
            flags[name] = value
        else:
            sys.exit(f"ERROR: (gcloud.compute.tpus) unrecognized arguments: {argument}")
    if len(positionals) != count or not needed <= set(flags):
        sys.exit(f"ERROR: (gcloud.compute.tpus) {command}: got {positionals} {sorted(flags)}")
    return command, positionals, flags


class World:
    """The slice and its workers, kept in $WORLD from call to call."""

    def __init__(self) -> None:
        self.folder = os.environ["WORLD"]
        with open(f"{self.folder}/plan.json") as file:
            self.plan = json.load(file)
        self.now: dict[str, Any] = {"life": -1, "step": -1, "there": False}
        if os.path.exists(f"{self.folder}/state.json"):
            with open(f"{self.folder}/state.json") as file:
                self.now = json.load(file)

    def save(self) -> None:
        with open(f"{self.folder}/state.json", "w") as file:
            json.dump(self.now, file)

    @property
    def look(self) -> str:
        states: list[str] = self.plan["lives"][self.now["life"]]
        return states[min(max(self.now["step"], 0), len(states) - 1)]

    @property
    def state(self) -> str:
        return self.look.split()[0]

    @property
    def node_state(self) -> str:
        """READY while the slice is, unless the plan says "ACTIVE without its node"."""
        return "READY" if self.state == "ACTIVE" and "without" not in self.look else "PREEMPTED"

    @property
    def holds(self) -> bool:
        """Whether "STATE until the end" still waits for the run to end on all workers."""
        states = self.plan["lives"][self.now["life"]] if self.now["there"] else []
        if not 0 <= self.now["step"] < len(states) or " until" not in states[self.now["step"]]:
            return False
        ends = glob.glob(f"{self.folder}/workers/*/xlnet-jax-runs/*/end")
        return len(ends) < self.plan["workers"]

    def home(self, worker: int) -> str:
        return f"{self.folder}/workers/{worker}"

    def end_processes(self) -> None:
        for name in glob.glob(f"{self.folder}/workers/*/xlnet-jax-runs/*/process"):
            with open(name) as file, contextlib.suppress(ProcessLookupError, IndexError):
                os.killpg(int(file.read().split()[1]), signal.SIGKILL)

    def step(self) -> None:
        """One look further in the life of the slice; the machines vanish when it is no more."""
        if not self.holds:
            self.now["step"] += 1
        self.save()
        if self.now["there"] and self.node_state != "READY":
            self.end_processes()

    def create(self, kind: str) -> None:
        if self.now["there"]:
            sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.create) ALREADY_EXISTS")
        import shutil  # where they are used: most calls need neither this nor subprocess

        self.end_processes()
        shutil.rmtree(f"{self.folder}/workers", ignore_errors=True)
        self.now = {"life": self.now["life"] + 1, "step": -1, "there": True, "kind": kind}
        for worker in range(self.plan["workers"]):
            os.makedirs(self.home(worker))
        self.save()

    def delete(self) -> None:
        if not self.now["there"]:
            sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.delete) NOT_FOUND")
        self.end_processes()
        self.now["there"] = False
        self.save()

    def run(self, workers: str, command: str) -> int:
        """Runs a command on workers as ssh does: in the home folder, by its shell."""
        if not self.now["there"] or self.node_state != "READY":
            sys.exit("ERROR: (gcloud.compute.tpus.tpu-vm.ssh) the TPU is in an unusable state")
        numbers = range(self.plan["workers"]) if workers == "all" else [int(workers)]
        # The real one splits at blanks and hands the parts to ssh, which joins them again.
        line = " ".join(command.split(" "))
        running = {n: self.shell(n, line) for n in numbers if n not in self.plan.get("silent", [])}
        codes = {n: running[n].wait() if n in running else 255 for n in numbers}
        for number, code in codes.items():
            if code:
                failed = (
                    f"##### Command execution on worker {number} failed with exit status {code}."
                )
                print(failed, "Continuing.", file=sys.stderr)
        return next((code for code in codes.values() if code), 0)

    def shell(self, worker: int, line: str):
        import subprocess

        environment = {
            "HOME": self.home(worker),
            "PATH": f"{self.folder}/tools:/usr/bin:/bin",
            "WORLD": self.folder,
            "WORKER": str(worker),
            "LIFE": str(self.now["life"]),
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.Popen(["bash", "-c", line], cwd=self.home(worker), env=environment)


def print_list(flags: dict[str, str], name: str, values: dict[str, str]) -> None:
    """Prints as --filter=name~REGEX and --format=value(KEY,KEY) ask for."""
    pattern = re.fullmatch("name~(.*)", flags["--filter"])
    wanted = re.fullmatch(r"value\((.*)\)", flags["--format"])
    assert pattern
    assert wanted
    if re.search(pattern[1], name):
        print("\t".join(values[key] for key in wanted[1].split(",")))


def main() -> int:
    world = World()
    with open(f"{world.folder}/calls.jsonl", "a") as calls:
        print(json.dumps(sys.argv[1:]), file=calls)
    command, positionals, flags = parse(sys.argv[1:])
    if os.environ.get("ONLY_RECORD"):
        return 0
    name = world.plan.get("name", "slice")
    if command == "queued-resources list":
        world.step()
        node_kind = "tpu.nodeSpec[0].node.acceleratorType.basename()"
        if world.now["there"]:
            values = {"state.state": world.state, node_kind: world.now["kind"]}
            print_list(flags, f"projects/p/locations/z/queuedResources/{name}", values)
        other = {"state.state": "SUSPENDED", node_kind: "v2-8"}
        print_list(flags, f"projects/p/locations/z/queuedResources/my-{name}", other)
    elif command == "tpu-vm list":
        if world.now["there"]:
            values = {
                "state": world.node_state,
                "networkEndpoints.len()": str(world.plan["workers"]),
            }
            print_list(flags, f"projects/p/locations/z/nodes/{name}", values)
    elif command == "queued-resources describe":
        print(f"name: {positionals[0]}\nstate:\n  state: {world.state}")
    elif command == "queued-resources create":
        world.create(flags["--accelerator-type"])
    elif command == "queued-resources delete":
        world.delete()
    elif command == "tpu-vm scp":
        import shutil

        source, target = positionals
        for worker in range(world.plan["workers"]):
            shutil.copy(source, f"{world.home(worker)}/{target.partition(':')[2]}")
    else:
        return world.run(flags.get("--worker", "0"), flags["--command"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
