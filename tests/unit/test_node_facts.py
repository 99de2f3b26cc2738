"""Inventories of several nodes in pieces, as one srun prints them: in any order, among other lines, torn."""

import random
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvagent.model.nodes import joined

PIECES = runpy.run_path(str(Path(__file__).parents[2] / "cvagent" / "node" / "inventory.py"))["pieces"]
LONG = random.Random(1).randbytes(3000).hex()


def test_pieces_of_several_nodes_in_any_order():
    lines = [*PIECES("n1", LONG), *PIECES("n2", "{}")]
    assert len(lines) > 4
    assert joined(reversed(lines)) == {"n1": LONG.encode(), "n2": b"{}"}


def test_srun_keeps_every_piece_whole():
    assert max(len(line) for line in PIECES("n" * 64, LONG)) < 1024


def test_none():
    assert joined([]) == {}


def test_lines_of_others_are_passed_over():
    assert joined(["Welcome to n1\n", *PIECES("n1", "{}"), "", "cvagent-inventory n3 1/1 %%%"]) == {"n1": b"{}"}


def test_a_node_with_a_missing_piece_gave_no_answer():
    lines = PIECES("n1", LONG)
    for number in range(len(lines)):
        assert joined(lines[:number] + lines[number + 1 :]) == {}


def test_the_same_piece_twice_is_no_harm():
    assert joined(PIECES("n1", LONG) * 2) == {"n1": LONG.encode()}


@pytest.mark.parametrize("piece", ["x", "!!!!", "AAAA", "eJw=", "=", "é"])
def test_garbage(piece):
    assert joined([f"cvagent-inventory n1 1/1 {piece}"]) == {}


def test_no_more_than_a_few_mib_are_unpacked():
    assert joined(PIECES("n1", "x" * (5 << 20))) == {}


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text(text):
    assert joined(PIECES("n1", text)) == {"n1": text.encode()}


@given(st.lists(st.text()))
def test_any_lines(lines):
    assert isinstance(joined(lines), dict)
