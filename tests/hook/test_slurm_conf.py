"""slurm.conf in many shapes: the hook goes in, Slurm would read it so, and out again nothing is left of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvagent.errors import HookError
from cvagent.hook.site import KEYS, Installation, SlurmConf, plan_install, plan_uninstall, spool_of

SPOOL = Path("/var/spool/cvagent")


@pytest.fixture
def wanted(tmp_path):
    return Installation(tmp_path / "libexec" / "cvagent-hook", SPOOL)


@pytest.fixture
def conf_file(tmp_path):
    def make(text, name="slurm.conf"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return path

    return make


def carry_out(changes):
    for change in changes:
        change.path.parent.mkdir(exist_ok=True)
        change.path.write_bytes(change.after.encode("utf-8", "surrogateescape"))


def install(path, wanted):
    carry_out(plan_install(SlurmConf(path), wanted))
    return {key: SlurmConf(path).value(key) for key in KEYS}


def uninstall(path, wanted):
    carry_out(plan_uninstall(SlurmConf(path), wanted))


NO_HOOKS = {
    "empty": "",
    "plain": "ClusterName=a\nSlurmUser=slurm\n",
    "no newline at the end": "ClusterName=a\nPartitionName=p Nodes=ALL",
    "one line without newline": "ClusterName=a",
    "blank lines at the end": "ClusterName=a\n\n\n",
    "continued at the end": "ClusterName=a\nNodeName=n1 \\\n",
    "continued, no newline": "ClusterName=a\nNodeName=n1 \\",
    "carriage returns": "ClusterName=a\r\nSlurmUser=slurm\r\n",
    "commented out": "#PrologSlurmctld=/old\n  # epilogslurmctld=/old\nClusterName=a # EpilogSlurmctld=/x\n",
    "part of another value": 'Comment="PrologSlurmctld=/x y" XPrologSlurmctld=/z\n',
    "a comment is not continued": "# all of this \\\nClusterName=a\n",
    "not utf-8": "# caf\udce9\nClusterName=a\n",
}
HOOKS = {
    "plain": ("PrologSlurmctld=/old\n", "/old"),
    "another case": ("prologSLURMCTLD=/old\n", "/old"),
    "spaces": ("  PrologSlurmctld \t=  /old  \t\n", "/old"),
    "quoted": ('PrologSlurmctld="/old/with space"\n', "/old/with space"),
    "comment": ("PrologSlurmctld=/old# why\n", "/old"),
    "with others on its line": ("SlurmctldPort=1 PrologSlurmctld=/old SlurmdPort=2\n", "/old"),
    "in a continued line": ("SlurmctldPort=1 \\\n PrologSlurmctld=/old \\\n SlurmdPort=2\n", "/old"),
    "no newline": ("ClusterName=a\nPrologSlurmctld=/old", "/old"),
    "the last of two counts": ("PrologSlurmctld=/older\nPrologSlurmctld=/old\n", "/old"),
    "carriage return": ("PrologSlurmctld=/old\r\n", "/old"),
}


@pytest.mark.parametrize("text", NO_HOOKS.values(), ids=NO_HOOKS)
def test_without_a_hook_of_the_site_two_lines_come_and_go(conf_file, wanted, text):
    path = conf_file(text)
    assert install(path, wanted) == dict.fromkeys(KEYS, str(wanted.script))
    assert spool_of(wanted.script) == SPOOL
    assert plan_install(SlurmConf(path), wanted) == []
    uninstall(path, wanted)
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(("text", "old"), HOOKS.values(), ids=HOOKS)
def test_a_hook_of_the_site_is_run_by_ours(conf_file, wanted, text, old):
    path = conf_file(text)
    found = install(path, wanted)
    wrapper = wanted.wrapper("PrologSlurmctld")
    assert found == {"PrologSlurmctld": str(wrapper), "EpilogSlurmctld": str(wanted.script)}
    assert f"site_hook={old}\n" in wrapper.read_text().replace("'", "")
    assert plan_install(SlurmConf(path), wanted) == []
    uninstall(path, wanted)
    assert path.read_bytes() == text.encode()


def test_both_hooks_of_a_site_stay_apart(conf_file, wanted):
    path = conf_file("PrologSlurmctld=/p EpilogSlurmctld=/e\n")
    install(path, wanted)
    said = [wanted.wrapper(key).read_text() for key in KEYS]
    assert ["site_hook=/p" in said[0], "site_hook=/e" in said[1]] == [True, True]
    uninstall(path, wanted)
    assert path.read_text() == "PrologSlurmctld=/p EpilogSlurmctld=/e\n"


def test_where_slurm_takes_several_lines_the_site_keeps_its_own(conf_file, wanted):
    path = conf_file("PrologSlurmctld=/old\n")
    wanted = wanted._replace(several=True)
    install(path, wanted)
    values = [found.entry.value for found in SlurmConf(path).found("PrologSlurmctld")]
    assert values == ["/old", str(wanted.script)]
    uninstall(path, wanted)
    assert path.read_text() == "PrologSlurmctld=/old\n"


def test_a_hook_in_an_included_file_is_changed_there(conf_file, wanted):
    text = "ClusterName=hpc\nInclude hooks-%c.conf\n"
    path, hooks = conf_file(text), conf_file("PrologSlurmctld=/old\n", "hooks-hpc.conf")
    install(path, wanted)
    assert hooks.read_text() == f"PrologSlurmctld={wanted.wrapper('PrologSlurmctld')}\n"
    assert path.read_text() == f"{text}EpilogSlurmctld={wanted.script}\n"
    uninstall(path, wanted)
    assert (path.read_text(), hooks.read_text()) == (text, "PrologSlurmctld=/old\n")


def test_what_others_changed_meanwhile_stays(conf_file, wanted):
    path = conf_file("ClusterName=a\nPrologSlurmctld=/old # ours\n")
    install(path, wanted)
    path.write_text(path.read_text().replace("# ours", "# theirs") + "NodeName=n2\n")
    uninstall(path, wanted)
    assert path.read_text() == "ClusterName=a\nPrologSlurmctld=/old # theirs\nNodeName=n2\n"


def test_a_comment_behind_our_line_stays(conf_file, wanted):
    path = conf_file("ClusterName=a\n")
    install(path, wanted)
    path.write_text(path.read_text().replace(f"PrologSlurmctld={wanted.script}", f"PrologSlurmctld={wanted.script} #x"))
    uninstall(path, wanted)
    assert path.read_text() == "ClusterName=a\n #x\n"


def test_a_second_install_brings_the_copies_up_to_date(conf_file, wanted):
    path = conf_file("PrologSlurmctld=/old\n")
    install(path, wanted)
    moved = wanted._replace(spool=Path("/srv/spool"))
    changes = plan_install(SlurmConf(path), moved)
    assert {change.path for change in changes} == {wanted.script, wanted.wrapper("PrologSlurmctld")}
    carry_out(changes)
    assert "site_hook=/old" in wanted.wrapper("PrologSlurmctld").read_text()
    assert spool_of(wanted.wrapper("PrologSlurmctld")) == Path("/srv/spool")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("PrologSlurmctld=/ol\\\nd\n", "write it on one"),
        ("PrologSlurmctld=old\n", "no absolute path"),
        ("PrologSlurmctld=/old\nInclude more.conf\n", "keep the one that is meant"),
        ("Include gone.conf\n", "gone.conf: cannot be read"),
    ],
)
def test_what_cannot_be_kept_is_refused(conf_file, wanted, text, says):
    conf_file("PrologSlurmctld=/other\n", "more.conf")
    with pytest.raises(HookError, match=says):
        plan_install(SlurmConf(conf_file(text)), wanted)


def test_without_the_copy_that_knows_it_the_old_value_is_not_guessed(conf_file, wanted):
    path = conf_file("PrologSlurmctld=/old\n")
    install(path, wanted)
    wanted.wrapper("PrologSlurmctld").unlink()
    with pytest.raises(HookError, match="See the backup"):
        plan_uninstall(SlurmConf(path), wanted)


KEY_TEXT = st.sampled_from(["PrologSlurmctld", "EPILOGSLURMCTLD", "prologslurmctld", "ClusterName", "NodeName", "Xy"])
PAIR = st.tuples(KEY_TEXT, st.sampled_from(["=", " = ", "=\t"]), st.sampled_from(["/old", '"/a b"', "/x#y", "/x\\#y"]))
LINE = st.one_of(
    st.lists(PAIR.map("".join), max_size=3).map(" ".join),
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20).map(lambda text: "#" + text),
    st.sampled_from(["", "  ", "\t# x \\", "\r"]),
)
TEXT = st.lists(st.tuples(LINE, st.sampled_from(["\n", " \\\n", "\r\n"])).map("".join), max_size=6).map("".join)


@given(text=TEXT, end=LINE, several=st.booleans())
def test_install_and_uninstall_leave_nothing(tmp_path_factory, text, end, several):
    folder = tmp_path_factory.mktemp("conf")
    path = folder / "slurm.conf"
    path.write_bytes((text + end).encode())
    wanted = Installation(folder / "cvagent-hook", SPOOL, several)
    if install_or_refuse(path, wanted):
        conf = SlurmConf(path)
        assert all(any(wanted.owns(found.entry.value) for found in conf.found(key)) for key in KEYS)
        uninstall(path, wanted)
    assert path.read_bytes() == (text + end).encode()


def install_or_refuse(path, wanted):
    try:
        return install(path, wanted)
    except HookError:
        return None
