"""What the hook costs a job: from slurmctld's decision to start it to the first instruction of its batch script."""

import datetime as dt
import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.delivery import stand_in
from benchmarks.measure import Row, ms, wait_until, within
from benchmarks.slurm_lab import Lab, real_slurm
from benchmarks.stubs import agent
from cvagent.hook.site import Installation, SlurmConf, plan_install
from cvagent.sources.notes import FULL

_JOBS = 30
_MORE_S = 0.005
_BARE = "/bin/true"
_SCRIPT = "#!/bin/bash\necho $EPOCHREALTIME >{told}.new; mv {told}.new {told}\n"


def measure() -> Iterator[Row]:
    """See the module."""
    with ExitStack() as stack:
        lab = stack.enter_context(real_slurm())
        hooks = dict(stack.enter_context(_hooks(lab)))
        delays: dict[str, list[float]] = {name: [] for name in hooks}
        # In turn, so that what else the machine does meets each of them.
        for _ in range(_JOBS):
            for name, hook in hooks.items():
                delays[name].append(_delay_s(lab, hook))
    bare, *others = ((name, statistics.median(found)) for name, found in delays.items())
    reference = ms(bare[1], f"with {_BARE}")
    for name, delay in others:
        yield within(f"from the start of a job to its first instruction, {name}", ms(delay), reference, ms(_MORE_S))


@contextmanager
def _hooks(lab: Lab) -> Iterator[Iterator[tuple[str, Path]]]:
    """What stands in slurm.conf, by what is going on beside it."""
    with ExitStack() as stack:

        def copy(name: str) -> tuple[Path, Path]:
            """A hook as `cvagent hook install` makes it, and its spool."""
            place = lab.folder / f"bench-{name}"
            spool, conf = place / "spool", place / "slurm.conf"
            spool.mkdir(parents=True)
            conf.touch()
            for change in plan_install(SlurmConf(conf), Installation(place / "hook", spool)):
                change.path.write_text(change.after)
                change.path.chmod(0o755)
            return place / "hook", spool

        def watched(name: str, *options: str) -> Path:
            hook, spool = copy(name)
            server = stack.enter_context(stand_in(*options))
            given = {"hook_spool": str(spool), "job_interval_s": "30", "node_facts": "off", "http_listen": "off"}
            _, log = stack.enter_context(agent(sys.executable, server.url, server.ca_file, lab.bin_dir, **given))
            wait_until(lambda: "cluster" in log.read_text(), 30, "agent")
            return hook

        def full() -> Path:
            hook, spool = copy("full")
            (spool / FULL).touch()
            return hook

        def absent() -> Path:
            hook, spool = copy("absent")
            spool.rmdir()
            return hook

        yield iter(
            {
                _BARE: Path(_BARE),
                "with the hook": watched("agent"),
                "agent stopped": copy("alone")[0],
                "spool full": full(),
                "no spool": absent(),
                "CloudVision hanging": watched("hanging", "--fault", "hang*100000"),
            }.items()
        )


def _delay_s(lab: Lab, hook: Path) -> float:
    """Seconds from the decision to start a job, by slurmctld's log, to its first instruction."""
    lab.set_hook("prologslurmctld", hook)
    lab.set_hook("epilogslurmctld", hook)
    told = lab.home / "told"
    told.unlink(missing_ok=True)
    job = lab.submit(_SCRIPT.format(told=told))
    wait_until(told.exists, 60, "first instruction", every_s=0.1)
    wait_until(lambda: not lab.say("squeue", "-h", "-j", job, "-t", "PD,CF,R,CG"), 60, "end of the job", every_s=0.1)
    begins = re.compile(rf"^\[(.{{23}})\] .*(?:Allocate|Started) JobId={job} ", re.MULTILINE)
    began = begins.search((lab.folder / "log" / "slurmctld.log").read_text())
    assert began
    return float(told.read_text()) - dt.datetime.fromisoformat(began[1]).timestamp()
