"""Answers as squeue, sacct or scontrol did at that moment of the recording. Started by the stubs of `install`.

    replay.py COMMAND BEGAN ARGUMENTS...

BEGAN is the epoch second at which the replay began. When the recording is over it begins anew, with higher job ids.
The recording is what sacct and squeue of a real Slurm 22.05 printed; its times count from its own beginning.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RECORDING = Path(__file__).with_name("recording.json")
IDS_PER_CYCLE = 1000
MIN_JOB_AGE_S = 300
LIMIT_S = 3600

Record = dict[str, Any]


def main(command: str, began: int, arguments: Sequence[str]) -> int:
    """Print the answer; the exit code."""
    recording = json.loads(RECORDING.read_text(encoding="utf-8"))
    if "--version" in arguments:
        return _say(f"slurm {recording['version']}\n")
    if command == "scontrol":
        return _scontrol(recording, arguments)
    now = int(time.time())
    runs = list(_runs(recording, began, now))
    answer = _squeue(runs, arguments, now) if command == "squeue" else _sacct(runs, arguments, now)
    return _say(answer)


def _say(text: str) -> int:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    return 0


def _scontrol(recording: Record, arguments: Sequence[str]) -> int:
    if arguments == ["show", "config"]:
        return _say(recording["config"])
    sys.stderr.write(f"scontrol: the recording holds no answer to: {' '.join(arguments)}\n")
    return 1


def _runs(recording: Record, began: int, now: int) -> Iterator[Record]:
    """Every run that began by now, of all cycles, in absolute times and with an id of its own."""
    cycles = (now - began) // recording["length_s"] + 1
    for cycle in range(max(0, cycles - 3), cycles):
        offset = began + cycle * recording["length_s"]
        for run in recording["runs"]:
            times = {name: run[name] + offset for name in ("submit", "start", "end")}
            if times["start"] <= now:
                yield {**run, **times, "job_id": run["job_id"] + cycle * IDS_PER_CYCLE}


def _squeue(runs: Sequence[Record], arguments: Sequence[str], now: int) -> str:
    fields = [field.partition(":") for field in arguments[arguments.index("-O") + 1].split(",")]
    newest = {}
    for run in sorted(runs, key=lambda run: run["submit"]):
        newest[run["job_id"]] = run
    shown = [run for run in newest.values() if _is_held(run, now)]
    return "".join("".join(_live(run, name, now) + end for name, _, end in fields) + "\n" for run in shown)


def _is_held(run: Record, now: int) -> bool:
    """Whether slurmctld holds it: it runs, or ended a short while ago. A requeued run has become another."""
    kept_s = 0 if run["state"] == "REQUEUED" else MIN_JOB_AGE_S
    return bool(now < run["end"] + kept_s)


def _live(run: Record, field: str, now: int) -> str:
    runs_on = now < run["end"]
    values: dict[str, str] = {
        "JobID": str(run["job_id"]),
        "State": "RUNNING" if runs_on else run["state"],
        "SubmitTime": str(run["submit"]),
        "StartTime": str(run["start"]),
        "EndTime": str(run["start"] + LIMIT_S if runs_on else run["end"]),
        "RestartCnt": str(run["restarts"]),
        # The recording holds nobody's GPUs, so there is nothing to be asked about.
        "OverSubscribe": "NO",
        "Partition": run["partition"],
        "NodeList": run["nodes"],
        "Name": run["name"],
    }
    return values[field]


def _sacct(runs: Sequence[Record], arguments: Sequence[str], now: int) -> str:
    fields = _value(arguments, "-o").split(",")
    mark = next(word.partition("=")[2] for word in arguments if word.startswith("--delimiter="))
    since = int(_value(arguments, "-S")[3:])
    until = int(_value(arguments, "-E", f"uts{now}")[3:])
    ids = {int(number) for number in _value(arguments, "-j").split(",") if number}
    states = set(_value(arguments, "-s").split(",")) - {""}
    shown = [run for run in runs if run["start"] <= until and (run["job_id"] in ids or not ids)]
    if states:
        shown = [run for run in shown if since <= run["end"] <= min(until, now) and run["state"] in states]
    return "".join("".join(_accounted(run, name, now) + mark for name in fields) + "\n" for run in shown)


def _accounted(run: Record, field: str, now: int) -> str:
    runs_on = now < run["end"]
    values: dict[str, str] = {
        "JobIDRaw": str(run["job_id"]),
        "State": "RUNNING" if runs_on else run["state"],
        "Submit": str(run["submit"]),
        "Start": str(run["start"]),
        "End": "Unknown" if runs_on else str(run["end"]),
        "Partition": run["partition"],
        "NodeList": run["nodes"],
        "JobName": run["name"],
    }
    return values[field]


def _value(arguments: Sequence[str], option: str, default: str = "") -> str:
    if option not in arguments:
        return default
    return arguments[arguments.index(option) + 1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
