import io
import json
import logging
import re

import pytest

from cvagent import logs

TOKEN = "distinctive-token-7f3a"


@pytest.fixture
def stream():
    root, ours = logging.getLogger(), logging.getLogger("cvagent")
    before = list(root.handlers), root.level, ours.level
    yield io.StringIO()
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


def our_handler():
    return next(handler for handler in logging.getLogger().handlers if handler.name == "cvagent")


def a_stack_trace(text):
    def fail():
        raise RuntimeError(text)

    try:
        fail()
    except RuntimeError:
        logging.getLogger("cvagent.loops").exception("round failed")


def test_a_text_line_has_time_level_and_logger(stream):
    logs.set_up("info", "text", stream=stream)
    logging.getLogger("cvagent.loops").info("sent %d jobs", 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO cvagent\.loops: sent 3 jobs\n", stream.getvalue())


def test_time_is_utc(stream):
    logs.set_up("info", "text", stream=stream)
    our_handler().handle(logging.makeLogRecord({"created": 0.0, "levelname": "INFO", "name": "cvagent", "msg": "x"}))
    assert stream.getvalue() == "1970-01-01T00:00:00Z INFO cvagent: x\n"


def test_a_json_line_is_one_object(stream):
    logs.set_up("info", "json", stream=stream)
    logging.getLogger("cvagent.loops").warning('a "quoted"\nname')
    fields = json.loads(stream.getvalue())
    assert (fields["level"], fields["logger"], fields["message"]) == ("WARNING", "cvagent.loops", 'a "quoted"\nname')
    assert list(fields) == ["time", "level", "logger", "message"]
    assert stream.getvalue().count("\n") == 1


def test_json_carries_the_stack_trace(stream):
    logs.set_up("info", "json", stream=stream)
    a_stack_trace("boom")
    assert json.loads(stream.getvalue())["exc"].endswith("RuntimeError: boom")


def test_text_carries_the_stack_trace_below_the_line(stream):
    logs.set_up("info", "text", stream=stream)
    a_stack_trace("boom")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("ERROR cvagent.loops: round failed")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "RuntimeError: boom"


def test_a_message_cannot_forge_a_second_line(stream):
    logs.set_up("info", "text", stream=stream)
    logging.getLogger("cvagent").info("job %s", "a\n2026-03-01T10:30:00Z ERROR cvagent: forged\x1b[31m")
    assert stream.getvalue().count("\n") == 1
    assert "\\n2026" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_blotted_out_wherever_they_stand(stream, form):
    logs.set_up("info", form, lambda: [TOKEN], stream)
    logging.getLogger("cvagent").info("literal %s", TOKEN)
    logging.getLogger("elsewhere").warning("Authorization: Bearer %s", TOKEN, stack_info=True)
    a_stack_trace(f"refused {TOKEN}")
    assert TOKEN not in stream.getvalue()
    assert stream.getvalue().count("***") >= 3


def test_a_secret_with_quotes_is_blotted_out_of_json(stream):
    logs.set_up("info", "json", lambda: ['pass"word\\1'], stream)
    logging.getLogger("cvagent").info("url %s", 'pass"word\\1')
    assert json.loads(stream.getvalue())["message"] == "url ***"


def test_secrets_are_those_of_the_moment(stream):
    known = ["first-token"]
    logs.set_up("info", "text", lambda: known, stream)
    known.append("second-token")
    logging.getLogger("cvagent").info("first-token second-token")
    assert stream.getvalue().endswith("cvagent: *** ***\n")


def test_a_secret_that_begins_like_another_leaves_no_rest(stream):
    logs.set_up("info", "text", lambda: ["abcd", "abcdefgh"], stream)
    logging.getLogger("cvagent").info("abcdefgh")
    assert stream.getvalue().endswith("cvagent: ***\n")


def test_a_very_short_secret_leaves_words_readable(stream):
    logs.set_up("info", "text", lambda: ["", "a"], stream)
    logging.getLogger("cvagent").info("a round")
    assert stream.getvalue().endswith("cvagent: a round\n")


@pytest.mark.parametrize("arguments", [("%d jobs", "three"), ("%s", 1, 2), ("%(name)s", {"other": 1})])
def test_a_wrong_call_is_still_logged_and_raises_nothing(stream, arguments):
    logs.set_up("info", "text", lambda: [TOKEN], stream)
    message, *rest = arguments
    our_handler().handle(logging.makeLogRecord({"msg": message, "args": tuple(rest)}))
    assert "arguments that do not fit" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["our debug", "our info", "our warning", "their info", "their warning"]),
        ("info", ["our info", "our warning", "their warning"]),
        ("warning", ["our warning", "their warning"]),
        ("error", []),
    ],
)
def test_level(stream, level, heard):
    logs.set_up(level, "text", stream=stream)
    ours, theirs = logging.getLogger("cvagent.flows"), logging.getLogger("their.library")
    ours.debug("our debug")
    ours.info("our info")
    ours.warning("our warning")
    theirs.info("their info")
    theirs.warning("their warning")
    assert [line.partition(": ")[2] for line in stream.getvalue().splitlines()] == heard


def test_setting_up_again_replaces_ours_and_leaves_others(stream):
    root = logging.getLogger()
    other = logging.NullHandler()
    root.addHandler(other)
    logs.set_up("info", "text", stream=stream)
    logs.set_up("info", "text", stream=stream)
    logging.getLogger("cvagent").info("once")
    assert stream.getvalue().count("once") == 1
    assert other in root.handlers


def test_standard_error_is_where_lines_go(stream, capsys):
    del stream
    logs.set_up("info", "text")
    logging.getLogger("cvagent").info("here")
    assert "here" in capsys.readouterr().err
