"""Decides what CloudVision is to be told about nodes: the interfaces of each, and which nodes are gone."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from cvagent.guard import absences, overdue, refusal
from cvagent.model import Change, Delay, Known, NodeConfig, NodeFacts, NodeInterface, NodesSeen, Plan, utc
from cvagent.model.nodes import node_key

_NAMED = 8


class NodeRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        cluster: Slurm's ClusterName.
        with_cluster: A node's key is `<node>@<cluster>` instead of its bare name.
        interface_filter: Interfaces whose name it finds are told.
        interface_kind: all, or one of regular, pf and vf.
        absent_rounds: See `guard.RemovalRules`, for this and what follows.
    """

    cluster: str
    with_cluster: bool = False
    interface_filter: re.Pattern[str] = re.compile("")
    interface_kind: str = "all"
    absent_rounds: int = 3
    removal_share: float = 0.3
    force: bool = False


def plan_nodes(observed: NodesSeen, known: Mapping[str, Known[NodeConfig]], rules: NodeRules) -> Plan:
    """Compare what Slurm and the nodes say with what is known, and say what must change.

    A node without facts keeps what it had; so does one of which no interface passes the filters.
    """
    wanted, bare = _wanted(observed, rules)
    present = {node_key(node, rules.cluster, with_cluster=rules.with_cluster) for node in observed.facts}
    changes = [
        Change(before, after, "changed" if before else "new")
        for key, after in wanted.items()
        if (before := known[key].document if key in known else None) != after
    ]
    there = {key: item for key, item in known.items() if item.document.ended_at is None}
    lost = [item for key, item in there.items() if key not in present]
    gone = [_gone(item, observed.at) for item in overdue(lost, rules)]
    withheld = refusal(len(gone), len(there), rules, "nodes are no longer in Slurm: their deletion is")
    return Plan(
        changes=changes if withheld else [*changes, *gone],
        absences=absences(known.values(), lost, observed.at),
        refused=gone if withheld else (),
        refusal=withheld,
        unchanged=len(there) - len(lost) - sum(change.after.key in there for change in changes),
        problems=bare,
        note=_note(observed.delays),
    )


def _wanted(observed: NodesSeen, rules: NodeRules) -> tuple[dict[str, NodeConfig], list[str]]:
    """What is to be told of the nodes that have facts, by key, and a line for each that has nothing to tell."""
    wanted, problems = {}, []
    for node, facts in observed.facts.items():
        if facts is None:
            continue
        key = node_key(node, rules.cluster, with_cluster=rules.with_cluster)
        interfaces = tuple(sorted(_interfaces(facts, rules)))
        if interfaces:
            wanted[key] = NodeConfig(key, key, interfaces)
        else:
            problems.append(
                f"{node}: no interface to tell of its {len(facts.interfaces)}: see CVAGENT_INTERFACE_FILTER"
            )
    return wanted, problems


def _interfaces(facts: NodeFacts, rules: NodeRules) -> Iterator[NodeInterface]:
    """The ports with a MAC that pass the filters. InfiniBand has none."""
    for port in facts.interfaces:
        is_kind = rules.interface_kind in {"all", port.kind}
        if port.name and port.mac and is_kind and rules.interface_filter.search(port.name):
            yield NodeInterface(port.name, port.mac, (*sorted(port.ipv4), *sorted(port.ipv6)))


def _gone(item: Known[NodeConfig], at: int) -> Change:
    return Change(item.document, replace(item.document, ended_at=item.absence.since or at), "ended")


def _note(delays: Mapping[str, Delay]) -> str | None:
    """One line on the nodes whose facts are not as new as they should be, grouped by the reason."""
    groups = defaultdict(list)
    for node, (reason, since) in delays.items():
        groups[reason].append((node, since))
    told = [
        f"{_named([node for node, _ in group])} {reason} (since {utc(min(since for _, since in group))})"
        for reason, group in groups.items()
    ]
    return f"no new inventory of {'; '.join(told)}" if told else None


def _named(nodes: list[str]) -> str:
    """The first few names, and how many more there are.

    >>> _named(["n1", "n2"]), _named([f"n{number}" for number in range(10)])
    ('n1, n2:', 'n0, n1, n2, n3, n4, n5, n6, n7 and 2 more:')
    """
    rest = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return f"{', '.join(nodes[:_NAMED])}{rest}:"
