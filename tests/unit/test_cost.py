import pytest

from cvagent.api.bill import Bill, Metered, Served
from cvagent.cli.cost import told
from cvagent.clients.sdiag import read
from cvagent.errors import CommandFailed, Unreadable
from cvagent.scheduler import Pace

SDIAG = """\
sdiag output at Fri Nov 20 08:33:19 2026 (1795163599)
Data since      Fri Nov 20 08:31:48 2026 (1795163508)

Remote Procedure Call statistics by message type
\tREQUEST_JOB_INFO                        ( 2003) count:10     ave_time:225    total_time:2259

Remote Procedure Call statistics by user
\troot            (       0) count:108    ave_time:557    total_time:60235
\talice           (   20001) count:31     ave_time:1562   total_time:48433

Pending RPC statistics
\tNo pending RPCs
"""
NOW = 1_800_000_000.0


class TestSdiag:
    def test_numbers_by_user_and_by_type(self):
        diagnosis = read(SDIAG)
        assert diagnosis.since == 1795163508
        assert diagnosis.by_user == {0: (108, 60235), 20001: (31, 48433)}
        assert diagnosis.of("root") == diagnosis.of("0") == (108, 60235)
        assert diagnosis.of("nobody-else") == diagnosis.of("4711") == (0, 0)
        assert diagnosis.by_type == {"REQUEST_JOB_INFO": (10, 2259)}

    @pytest.mark.parametrize("text", ["", "garbage", SDIAG.replace("by user", "")])
    def test_what_says_nothing_is_an_error(self, text):
        with pytest.raises(Unreadable):
            read(text)


class TestBill:
    def test_only_the_last_hour_counts(self):
        bill = Bill("slurm", NOW - 7200)
        bill.command_done("squeue", 9.0, True, NOW - 3700)
        bill.command_done("squeue", 0.25, True, NOW - 60)
        bill.command_done("sacct", 0.5, False, NOW)
        cost = bill.cost(NOW)
        assert cost.span_s == 3600
        assert {name: (entry.count, entry.failed, entry.seconds) for name, entry in cost.commands.items()} == {
            "squeue": (1, 0, 0.25),
            "sacct": (1, 1, 0.5),
        }

    def test_shares_are_of_what_grew(self):
        bill = Bill("slurm", NOW)
        bill.served(Served(NOW, 1, (100, 1_000_000), (1000, 9_000_000)))
        bill.served(Served(NOW + 300, 1, (110, 1_500_000), (1100, 11_000_000)))
        assert bill.cost(NOW + 300).shares == (0.1, 0.25)

    def test_counters_that_began_anew_are_not_subtracted(self):
        bill = Bill("slurm", NOW)
        bill.served(Served(NOW, 1, (100, 1), (1000, 9)))
        bill.served(Served(NOW + 300, 2, (5, 1), (50, 2)))
        assert bill.cost(NOW + 300).rpcs == (0, 0)

    def test_in_plain_words(self):
        bill = Bill("slurm", NOW)
        bill.command_done("squeue", 0.04, True, NOW)
        bill.served(Served(NOW, 1, (0, 0), (0, 0)))
        bill.served(Served(NOW + 600, 1, (20, 1_000_000), (2000, 50_000_000)))
        lines = told(bill.cost(NOW + 600))
        assert lines[0] == "In the last 10 minutes the agent ran 1 Slurm command, 0.0 s in all:"
        assert "2,000 requests in 10 minutes; 20 of them (1.0%) were user slurm's and took 2.0%" in lines[2]
        assert lines[-1] == "Intervals are as set."

    def test_a_stretched_interval_is_said(self):
        bill = Bill("slurm", NOW)
        bill.stretch["jobs"] = 4.0
        assert told(bill.cost(NOW))[-1] == "slurmctld answers slowly: intervals are stretched (jobs 4 times)."


class TestMetered:
    class Failing:
        def run(self, command, *, timeout_s, env=None):
            del env
            raise CommandFailed(command[0], f"no answer within {timeout_s} s")

        def stop(self):
            pass

    def test_a_failure_is_counted_and_passed_on(self):
        heard = []
        metered = Metered(self.Failing(), lambda *what: heard.append(what))
        with pytest.raises(CommandFailed):
            metered.run(["squeue", "-h"], timeout_s=1)
        assert [(name, done) for name, _, done in heard] == [("squeue", False)]
        assert metered.slowest_s() > 0
        assert metered.slowest_s() == 0


class TestPace:
    def test_steady_answers_keep_the_interval(self):
        pace = Pace()
        assert {pace.judge(0.05) for _ in range(20)} == {1.0}

    def test_it_stretches_to_ten_times_and_shrinks_back(self):
        pace = Pace()
        for _ in range(5):
            pace.judge(0.3)
        assert [pace.judge(1.5) for _ in range(5)] == [2.0, 4.0, 8.0, 10.0, 10.0]
        assert [pace.judge(0.3) for _ in range(5)] == [5.0, 2.5, 1.25, 1.0, 1.0]

    def test_over_five_seconds_is_slow_whatever_is_usual(self):
        pace = Pace()
        assert [pace.judge(6.0) for _ in range(3)] == [2.0, 4.0, 8.0]

    def test_three_times_next_to_nothing_is_noise(self):
        pace = Pace()
        for _ in range(5):
            pace.judge(0.02)
        assert pace.judge(0.4) == 1.0
