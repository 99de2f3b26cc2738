import os
import threading
from pathlib import Path

import pytest

from cvagent.clients.runner import NativeRunner
from cvagent.errors import CommandFailed

LONG = 30.0


class RunnerContract:
    """What every runner must hold to; `make(**options)` builds the one under test."""

    def test_stdout_comes_back_as_it_is(self, make):
        assert make().run(["printf", r"a\0b\377\n"], timeout_s=LONG) == b"a\0b\xff\n"

    def test_nothing_printed_is_nothing(self, make):
        assert make().run(["true"], timeout_s=LONG) == b""

    def test_large_output_on_both_streams_is_read_apart(self, make):
        script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; printf end"
        assert make().run(["sh", "-c", script], timeout_s=LONG) == bytes(3_000_000) + b"end"

    def test_arguments_reach_the_command_unread_by_a_shell(self, make):
        words = ["$HOME", "a b", "; false", "*", "'", '"', "", "ü\n"]
        out = make().run(["printf", r"%s\n--\n", *words], timeout_s=LONG)
        assert out.decode() == "".join(f"{word}\n--\n" for word in words)

    def test_environment_makes_slurm_print_the_same_everywhere(self, make):
        out = make(slurm_conf=Path("/etc/x/slurm.conf")).run(["env"], timeout_s=LONG, env={"MORE": "1"}).decode()
        wanted = {"TZ=UTC", "LC_ALL=C", "SLURM_TIME_FORMAT=%s", "SLURM_CONF=/etc/x/slurm.conf", "MORE=1"}
        assert wanted <= set(out.splitlines())

    def test_stdin_is_empty(self, make):
        assert make().run(["cat"], timeout_s=LONG) == b""

    def test_exit_code_and_last_words(self, make):
        script = "echo data; echo first >&2; echo 'sh: error: no\033 contact' >&2; echo \"Try 'x --help'\" >&2; exit 3"
        with pytest.raises(CommandFailed) as failed:
            make().run(["sh", "-c", script], timeout_s=LONG)
        assert (failed.value.command, failed.value.exit_code) == ("sh", 3)
        assert str(failed.value) == "sh: error: no contact"

    def test_failure_without_a_word(self, make):
        with pytest.raises(CommandFailed, match="false: exit code 1, no message"):
            make().run(["false"], timeout_s=LONG)

    def test_time_limit_ends_the_command_and_its_children(self, make, tmp_path):
        left = tmp_path / "left"
        script = f"(sleep 1.2; touch {left}) & sleep 60"
        with pytest.raises(CommandFailed, match=r"within 0\.3 s \(CVAGENT_SLURM_TIMEOUT_S\)"):
            make().run(["sh", "-c", script], timeout_s=0.3)
        threading.Event().wait(1.3)
        assert not left.exists()

    def test_missing_command(self, make):
        with pytest.raises(CommandFailed, match=r"no-such-command: not found .*CVAGENT_SLURM_BIN_DIR"):
            make().run(["no-such-command"], timeout_s=LONG)

    def test_missing_command_in_the_given_folder(self, make, tmp_path):
        with pytest.raises(CommandFailed, match=rf"squeue: not found in {tmp_path}.*CVAGENT_SLURM_BIN_DIR"):
            make(bin_dir=tmp_path).run(["squeue"], timeout_s=LONG)

    def test_command_in_the_given_folder(self, make, tmp_path):
        write_script(tmp_path / "squeue", "#!/bin/sh\necho $PATH $1")
        out = make(bin_dir=tmp_path).run(["squeue", "-h"], timeout_s=LONG).decode()
        assert out.startswith(f"{tmp_path}:")
        assert out.endswith(" -h\n")

    def test_command_that_may_not_be_run(self, make, tmp_path):
        write_script(tmp_path / "squeue", "#!/bin/sh", mode=0o644)
        with pytest.raises(CommandFailed, match=r"may not .*check its rights"):
            make(bin_dir=tmp_path).run(["squeue"], timeout_s=LONG)

    def test_too_much_output(self, make):
        with pytest.raises(CommandFailed, match="yes: printed more than 1 MiB"):
            make(max_stdout=1024**2).run(["yes"], timeout_s=LONG)

    def test_several_at_once(self, make):
        runner, answers = make(), {}

        def ask(number):
            answers[number] = runner.run(["echo", str(number)], timeout_s=LONG)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {number: f"{number}\n".encode() for number in range(6)}

    def test_stop_ends_what_runs_and_refuses_more(self, make, tmp_path):
        runner, began = make(), tmp_path / "began"
        os.mkfifo(began)
        stopping = threading.Thread(target=lambda: (began.read_bytes(), runner.stop()))
        stopping.start()
        with pytest.raises(CommandFailed, match="ended because the agent stops"):
            runner.run(["sh", "-c", f"echo > {began}; exec sleep 60"], timeout_s=LONG)
        stopping.join()
        with pytest.raises(CommandFailed, match="agent stops"):
            runner.run(["true"], timeout_s=LONG)


def write_script(path, text, mode=0o755):
    path.write_text(text)
    path.chmod(mode)


class TestNativeRunner(RunnerContract):
    @pytest.fixture
    def make(self):
        return NativeRunner

    def test_nothing_else_is_in_the_environment(self, make, monkeypatch):
        monkeypatch.setenv("SECRET", "x")
        monkeypatch.setenv("SLURM_CONF", "/from/the/agent")
        names = {line.partition("=")[0] for line in make().run(["env"], timeout_s=LONG).decode().splitlines()}
        assert names == {"PATH", "TZ", "LC_ALL", "SLURM_TIME_FORMAT", "SLURM_CONF"}

    def test_child_that_keeps_stdout_open_is_ended_by_the_limit(self, make, tmp_path):
        left = tmp_path / "left"
        with pytest.raises(CommandFailed, match="did not end"):
            make().run(["sh", "-c", f"(sleep 1; touch {left}) & exit 0"], timeout_s=0.3)
        threading.Event().wait(1.0)
        assert not left.exists()

    def test_ended_by_a_signal(self, make):
        with pytest.raises(CommandFailed, match="was ended by signal 15") as failed:
            make().run(["sh", "-c", "kill -TERM $$"], timeout_s=LONG)
        assert failed.value.exit_code == 143

    def test_closed_streams_do_not_end_the_wait(self, make):
        with pytest.raises(CommandFailed, match="did not end within"):
            make().run(["sh", "-c", "exec >&- 2>&-; exec sleep 60"], timeout_s=0.3)

    def test_no_program(self, make, tmp_path):
        (tmp_path / "squeue").write_bytes(b"\0\1")
        (tmp_path / "squeue").chmod(0o755)
        with pytest.raises(CommandFailed, match="cannot be started: Exec format error"):
            make(bin_dir=tmp_path).run(["squeue"], timeout_s=LONG)
