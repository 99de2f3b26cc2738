"""Months that were computed by hand, from what sacct prints to what the portal is told."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slurmdbd import Job, Slurmdbd, utc

from cvagent.clients.slurm_usage import SlurmUsage
from cvagent.errors import CommandFailed, Unreadable
from cvagent.model import Known
from cvagent.model.components import Accounting, Component
from cvagent.model.usage import Allotted, Month, UsageSeen
from cvagent.push.usage import UsageRules, in_units, plan_usage

RESOURCE = "a" * 32


def component(tres, factor):
    return Component(tres, tres, "unit", Accounting.USAGE, unit_factor=Decimal(factor))


HOURS = UsageRules(
    {"cpu": component("cpu", 60), "gres/gpu": component("gres/gpu", 60), "mem": component("mem", 61440)}, 7
)
KILO = UsageRules({"cpu": component("cpu", 60_000)}, 7)


def month(text, *jobs, rules=HOURS, known=(), decimals=2):
    """What is told of a month: amounts by component, and of each user."""
    of = Month(*map(int, text.split("-")))
    used = SlurmUsage(Slurmdbd(*jobs), 20).used(["hpc_a"], of.start, of.end)
    seen = UsageSeen(of.end, (Allotted(RESOURCE, "hpc_a"),), {of: used}, decimals)
    known = {report.key: Known(report) for report in known}
    changes = plan_usage(seen, known, rules).changes
    return changes[0].after if changes else None


def amounts(report):
    return {tres: str(amount) for tres, amount in report.total}


def users(report):
    return {user: {tres: str(amount) for tres, amount in told} for user, told in report.users}


FEBRUARY = (
    # Over the month's boundary: two of its four hours.
    Job("hpc_a", "alice", utc("2026-01-31 22:00"), utc("2026-02-01 02:00"), "billing=4,cpu=4,mem=0,node=1"),
    # Put back after an hour: both runs count.
    Job("hpc_a", "bob", utc("2026-02-03 10:00"), utc("2026-02-03 11:00"), "cpu=2,mem=0,node=1", "REQUEUED"),
    Job("hpc_a", "bob", utc("2026-02-03 12:00"), utc("2026-02-03 14:00"), "cpu=2,mem=0,node=1"),
    # An exclusive node of 64 cores, asked for with one.
    Job("hpc_a", "alice", utc("2026-02-05 10:00"), utc("2026-02-05 10:30"), "cpu=64,mem=1T,node=1"),
    # Ten hours, four of them suspended; typed GPUs.
    Job(
        "hpc_a",
        "bob",
        utc("2026-02-10 00:00"),
        utc("2026-02-10 10:00"),
        "billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=1.50G,node=1,energy=123456789",
        pauses=((utc("2026-02-10 02:00"), utc("2026-02-10 06:00")),),
    ),
    # Begins in the last hour of the last day.
    Job("hpc_a", "carol", utc("2026-02-28 23:00"), utc("2026-03-01 01:00"), "cpu=1,mem=512M,node=1"),
    # Of another account.
    Job("hpc_b", "alice", utc("2026-02-05 10:00"), utc("2026-02-06 10:00"), "cpu=64"),
)


def test_february():
    report = month("2026-02", *FEBRUARY)
    assert amounts(report) == {"cpu": "95.00", "gres/gpu": "20.00", "mem": "527.50"}
    assert users(report) == {
        "alice": {"cpu": "40.00", "gres/gpu": "0.00", "mem": "512.00"},
        "bob": {"cpu": "54.00", "gres/gpu": "20.00", "mem": "15.00"},
        "carol": {"cpu": "1.00", "gres/gpu": "0.00", "mem": "0.50"},
    }
    assert (report.key, report.account, report.month) == (f"{RESOURCE}/2026-02", "hpc_a", "2026-02")
    assert report.ended_at == utc("2026-03-08 00:00")


def test_the_months_beside_it():
    assert amounts(month("2026-01", *FEBRUARY)) == {"cpu": "8.00", "gres/gpu": "0.00", "mem": "0.00"}
    assert amounts(month("2026-03", *FEBRUARY)) == {"cpu": "1.00", "gres/gpu": "0.00", "mem": "0.50"}


def test_the_largest_remainder_is_rounded_up():
    report = month("2026-02", *FEBRUARY, rules=KILO)
    assert amounts(report) == {"cpu": "0.10"}
    assert users(report) == {"alice": {"cpu": "0.04"}, "bob": {"cpu": "0.06"}}


def test_integers_for_a_portal_that_takes_no_fractions():
    report = month("2026-02", *FEBRUARY, decimals=0)
    assert amounts(report) == {"cpu": "95", "gres/gpu": "20", "mem": "528"}
    assert [user["mem"] for user in users(report).values()] == ["512", "15", "1"]


def test_a_suspension_over_the_boundary():
    pause = (utc("2026-01-31 22:00"), utc("2026-02-02 00:00"))
    job = Job("hpc_a", "alice", utc("2026-01-31 20:00"), utc("2026-02-02 10:00"), "cpu=1,gres/gpu=1", pauses=(pause,))
    assert amounts(month("2026-01", job)) == {"cpu": "2.00", "gres/gpu": "4.00", "mem": "0.00"}
    assert amounts(month("2026-02", job)) == {"cpu": "10.00", "gres/gpu": "34.00", "mem": "0.00"}


@pytest.mark.parametrize(("tres", "gpu_hours"), [
    ("gres/gpu=2,gres/gpu:a100=2", "2.00"),
    ("gres/gpu:a100=1,gres/gpu:h100=1", "2.00"),
    ("gres/gpu=2", "2.00"),
    ("gres/nic=2", "0.00"),
])  # fmt: skip
def test_gpus_with_and_without_a_type(tres, gpu_hours):
    job = Job("hpc_a", "alice", utc("2026-02-05 10:00"), utc("2026-02-05 11:00"), tres)
    assert amounts(month("2026-02", job))["gres/gpu"] == gpu_hours


@pytest.mark.parametrize(
    ("memory", "gib_hours"),
    [("512M", "0.50"), ("1.50G", "1.50"), ("1536", "1.50"), ("2T", "2048.00"), ("524288K", "0.50")],
)
def test_memory_in_any_unit(memory, gib_hours):
    job = Job("hpc_a", "alice", utc("2026-02-05 10:00"), utc("2026-02-05 11:00"), f"mem={memory}")
    assert amounts(month("2026-02", job))["mem"] == gib_hours


@pytest.fixture
def _tallinn(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Tallinn")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_tallinn")
@pytest.mark.parametrize(
    ("text", "hours"),
    [("2026-03", 744), ("2026-10", 744), ("2026-02", 672), ("2024-02", 696), ("2025-12", 744), ("2026-01", 744)],
)
def test_a_month_has_its_hours_whatever_the_clocks_do(text, hours):
    job = Job("hpc_a", "alice", utc("2020-01-01 00:00"), None, "cpu=1")
    assert amounts(month(text, job))["cpu"] == f"{hours}.00"


@pytest.mark.usefixtures("_tallinn")
def test_december_and_january():
    job = Job("hpc_a", "alice", utc("2025-12-31 23:30"), utc("2026-01-01 01:00"), "cpu=2")
    assert amounts(month("2025-12", job))["cpu"] == "1.00"
    assert amounts(month("2026-01", job))["cpu"] == "2.00"
    assert Month(2026, 1).before == Month(2025, 12)


def test_nothing_used_is_told_as_zero():
    report = month("2026-02")
    assert amounts(report) == {"cpu": "0.00", "gres/gpu": "0.00", "mem": "0.00"}
    assert report.users == ()


def test_what_is_known_is_not_told_again():
    report = month("2026-02", *FEBRUARY)
    assert month("2026-02", *FEBRUARY, known=[report]) is None


def test_a_total_may_fall_and_its_user_is_told_of_again():
    report = month("2026-02", *FEBRUARY)
    fallen = month("2026-02", *(job for job in FEBRUARY if job.user != "bob"), known=[report])
    assert amounts(fallen) == {"cpu": "41.00", "gres/gpu": "0.00", "mem": "512.50"}
    assert users(fallen)["bob"] == {"cpu": "0.00", "gres/gpu": "0.00", "mem": "0.00"}


FEB = Month(2026, 2)


def plan(used, known, **rules):
    """What is decided when these accounts used so many hours of a CPU each in February."""
    allotted = tuple(Allotted(f"{number:032x}", account) for number, account in enumerate(used))
    seconds = {account: {"alice": {"cpu": 3600 * hours}} for account, hours in used.items() if hours}
    seen = UsageSeen(FEB.end, allotted, {FEB: seconds}, 2)
    return plan_usage(seen, known, UsageRules({"cpu": component("cpu", 60)}, 7, **rules))


def told(used):
    return {change.after.key: Known(change.after) for change in plan(used, {}).changes}


def after(changes):
    return {change.after.account: str(dict(change.after.total)["cpu"]) for change in changes}


ACCOUNTS = [f"hpc_{number}" for number in range(20)]
ALL = dict.fromkeys(ACCOUNTS, 10)
GONE_FROM_SEVEN = ALL | dict.fromkeys(ACCOUNTS[:7], 0)
REASON = "whose usage of 2026-02 was told used nothing in it"


@pytest.mark.parametrize(
    ("before", "now", "refusal"),
    [
        (ALL, GONE_FROM_SEVEN, f"7 of 20 accounts {REASON}, more than the share of 30% (CVAGENT_REMOVAL_SHARE): what"),
        ({"hpc_0": 1, "hpc_1": 2}, {"hpc_0": 0, "hpc_1": 0}, f"all 2 accounts {REASON}: what fell is withheld until "),
    ],
)
def test_usage_that_vanishes_as_a_whole_is_not_believed(before, now, refusal):
    known = told(before)
    held = plan(now, known)
    assert held.refusal.startswith(refusal)
    assert "'cvagent run --once --force'" in held.refusal
    assert (held.changes, held.unchanged) == ([], len(now) - len(held.refused))
    assert set(after(held.refused).values()) == {"0.00"}
    forced = plan(now, known, force=True)
    assert (after(forced.changes), forced.refused, forced.refusal) == (after(held.refused), [], None)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (ALL, ALL | dict.fromkeys(ACCOUNTS[:6], 0)),
        (ALL, dict.fromkeys(ALL, 1)),
        ({"hpc_0": 1}, {"hpc_0": 0}),
        ({"hpc_0": 1, "hpc_1": 2}, {"hpc_0": 0, "hpc_1": 2}),
        ({"hpc_0": 0, "hpc_1": 0}, {"hpc_0": 0, "hpc_1": 0}),
    ],
)
def test_totals_may_fall_singly_and_in_part(before, now):
    told_now = plan(now, told(before))
    assert (told_now.refusal, told_now.refused) == (None, [])
    assert len(told_now.changes) == sum(before[account] != now[account] for account in now)


def test_beside_what_vanished_what_fell_in_part_waits_and_what_rose_goes_on():
    held = plan(GONE_FROM_SEVEN | {"hpc_18": 3, "hpc_19": 12}, told(ALL))
    assert after(held.changes) == {"hpc_19": "12.00"}
    assert len(held.refused) == 8


def test_what_slurm_names_no_user_for_is_in_the_total_alone():
    report = month("2026-02", Job("hpc_a", "", utc("2026-02-05 10:00"), utc("2026-02-05 11:00"), "cpu=3"))
    assert (amounts(report)["cpu"], report.users) == ("3.00", ())


def test_a_job_that_never_ran():
    job = Job("hpc_a", "alice", utc("2026-02-05 10:00"), utc("2026-02-05 10:00"), "", "CANCELLED")
    assert amounts(month("2026-02", job))["cpu"] == "0.00"


@pytest.mark.parametrize("broken", [{"tres": "cpu=many"}, {"tres": "mem=G"}, {"tres": "mem=xM"}])
def test_what_cannot_be_read_is_never_zero(broken):
    job = Job("hpc_a", "alice", utc("2026-02-05 10:00"), utc("2026-02-05 11:00"), **broken)
    with pytest.raises(Unreadable, match="of job 1: elapsed 3600, suspended 00:00:00"):
        month("2026-02", job)


def test_many_accounts_are_asked_for_in_few_calls():
    slurm = Slurmdbd(Job("hpc_0", "a", 1000, 4600, "cpu=1"), Job("hpc_9999", "b", 1000, 4600, "cpu=2"))
    used = SlurmUsage(slurm, 20).used([f"hpc_{number}" for number in range(10_000)], 0, 10_000)
    assert used == {"hpc_0": {"a": {"cpu": 3600}}, "hpc_9999": {"b": {"cpu": 7200}}}
    assert len(slurm.asked) == 1


def test_when_one_of_many_calls_fails_nothing_is_known():
    slurm = Slurmdbd()
    slurm.failure = lambda number: CommandFailed("sacct", "no") if number > 1 else None
    with pytest.raises(CommandFailed):
        SlurmUsage(slurm, 20).used([f"hpc_{number:030d}" for number in range(10_000)], 0, 10_000)
    assert len(slurm.asked) == 2


@given(
    seconds=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 10**12), max_size=20),
    factor=st.sampled_from(["1", "60", "60000", "61440", "0.7", "33.333"]),
    decimals=st.sampled_from([0, 2]),
)
def test_shares_always_add_up(seconds, factor, decimals):
    shares = in_units(seconds, component("cpu", factor), decimals)
    step = Decimal(1).scaleb(-decimals)
    exact = Decimal(sum(seconds.values())) / (60 * Decimal(factor))
    assert abs(sum(shares.values()) - exact) <= step / 2 + Decimal("1e-12")
    for user, amount in seconds.items():
        assert abs(shares[user] - Decimal(amount) / (60 * Decimal(factor))) < step + Decimal("1e-12")
