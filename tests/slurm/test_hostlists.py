"""Hostlists against Slurm's own reading of them."""

import random
import re

from cvagent.clients.hostlist import unfold

MANY = 2000
PER_CALL = 250
SEED = 22058
# Between two hostlists, so that one call answers for many.
MARK = "mark.of-the-end"


def test_hostlists_are_unfolded_as_slurm_does(lab):
    choice = random.Random(SEED)
    hostlists = [a_hostlist(choice) for _ in range(MANY)]
    wanted = slurms(lab, hostlists)
    ours = [unfold(hostlist) for hostlist in hostlists]
    assert [sorted(nodes) for nodes in ours] == [sorted(nodes) for nodes in wanted]
    # With several pairs of brackets Slurm counts in an order of its own.
    plain = [number for number, hostlist in enumerate(hostlists) if widest(hostlist) <= 1]
    assert [ours[number] for number in plain] == [wanted[number] for number in plain]
    assert len(plain) > MANY / 5


def slurms(lab, hostlists):
    """Slurm's answer to each, every node once."""
    found = []
    for first in range(0, len(hostlists), PER_CALL):
        asked = hostlists[first : first + PER_CALL]
        said = lab.slurm("scontrol", "show", "hostnames", ",".join(f"{hostlist},{MARK}" for hostlist in asked))
        answers = said.split(f"{MARK}\n")
        assert answers.pop() == ""
        found += [tuple(dict.fromkeys(answer.split())) for answer in answers]
    return found


def widest(hostlist):
    """The most pairs of brackets in one of its parts."""
    return max(part.count("[") for part in re.split(r",(?![^\[]*\])", hostlist))


def a_hostlist(choice):
    return ",".join(a_part(choice) for _ in range(choice.randint(1, 4)))


def a_part(choice):
    """A plain name, which may end in anything, or a folded one, which ends in a bracket."""
    brackets = choice.choice((0, 0, 1, 1, 1, 2, 3))
    if not brackets:
        return (
            f"{a_word(choice)}{choice.randint(0, 9999)}{choice.choice(('', '-ib', '.cluster', 'a', '.rack-7.local'))}"
        )
    return "".join(f"{a_word(choice)}[{some_ranges(choice, brackets)}]" for _ in range(brackets))


def a_word(choice):
    words = ("node", "n", "gpu-", "rack.", "dgx.a", "b1-c", "tray-0x", "x9.y")
    return choice.choice(words)


def some_ranges(choice, brackets):
    """Rising or not, with leading zeros or without, as wide as three dimensions allow."""
    most = {1: 40, 2: 8, 3: 3}[brackets]
    return ",".join(a_range(choice, most) for _ in range(choice.randint(1, 4 - brackets if brackets < 3 else 1)))


def a_range(choice, most):
    low = choice.choice((0, choice.randint(0, 12), choice.randint(90, 110), choice.randint(0, 5000)))
    high = low + choice.randint(0, most)
    digits = choice.choice((0, 2, 3, 4))
    if digits and len(str(high)) > digits:
        digits = len(str(high))
    text = f"{low:0{digits}d}"
    return text if low == high else f"{text}-{high:0{digits}d}"
