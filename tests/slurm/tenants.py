"""Pull mode in one hand: a real Slurm, a portal that stands in, and the agent's parts of one process.

An agent that is killed is a `Once` whose runner or portal raises `Killed` after a step: nothing of it is left but what
Slurm and the portal hold.
"""

from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event

from fakes import FakeObserver
from slurm_lab import Lab
from waiting import wait_until

from cvagent.app import Billing, SystemClock, flows_for, make_runner, make_sinks, rules_for
from cvagent.app.pull import Pull
from cvagent.clients.portal_orders import PortalOrders
from cvagent.loops import Collector, Courier, Horizon, run_out
from cvagent.ports import Surroundings
from cvagent.settings import load_settings
from cvagent.standin.portal import PortalStandIn
from cvagent.standin.portal.objects import Customer, Person, Project
from cvagent.store.outbox import SqlOutbox

COMPONENTS = """
cpu: {limit: 16, measured_unit: k-Hours, unit_factor: 60000, accounting_type: limit, label: CPU}
mem: {limit: 100, measured_unit: GiB-Hours, unit_factor: 61440, accounting_type: usage, label: RAM}
gres/gpu: {limit: 800, measured_unit: Hours, unit_factor: 60, accounting_type: limit, label: GPU}
"""
DIALECTS = ("order-items", "orders", "waldur")


class Killed(BaseException):
    """The agent ends here, as by SIGKILL."""


class Tenants:
    """A portal with two customers, and what the lab makes of their orders."""

    def __init__(self, lab: Lab, portal: PortalStandIn, folder: Path, **settings) -> None:
        self.lab = lab
        self.portal = portal
        self.market = portal.market
        self._components = folder / "components.yaml"
        self.sell(COMPONENTS)
        given = {
            "mode": "pull",
            "portal_url": portal.url,
            "portal_token": portal.token,
            "portal_offering": self.market.offering,
            "portal_usernames": "freeipa" if self.market.dialect == "order-items" else "offering",
            "portal_team_interval_s": 0,
            "tenant_nodes": "",
            "components_file": self._components,
            "slurm_bin_dir": lab.bin_dir,
            "http_listen": "off",
        } | settings
        self.settings = {f"CVAGENT_{name.upper()}": str(value) for name, value in given.items()}
        self.people = [Person(name, name.title(), name) for name in ("alice", "bob", "carol")]
        alice, bob, _ = self.people
        self.physics = self.market.add_project(Project("Weather", Customer("Institute of Physics"), [alice, bob]))
        self.biology = self.market.add_project(Project("Proteins", Customer("Institute of Biology"), [bob]))

    def sell(self, components: str) -> None:
        """What the components file says from now on."""
        self._components.write_text(components)

    def order(self, name="bert", project=None, **limits):
        """A tenant orders an allocation, and where the provider cannot, a person approves it."""
        return self._taken(self.market.create(project or self.physics, name, limits or {"cpu": 10}))

    def change(self, resource, **limits):
        """A tenant orders other limits."""
        return self._taken(self.market.change(resource, limits))

    def terminate(self, resource):
        """A tenant gives an allocation back."""
        return self._taken(self.market.terminate(resource))

    def once(self, *, runner=None, portal=PortalOrders, force=False, rounds=1, **settings) -> "Once":
        """Rounds of a new agent with an empty store, each up to where nothing is left to look at."""
        return Once(self, runner, portal, settings, force=force).run(rounds)

    def account(self, name) -> tuple[str, list[str], dict[str, str]] | None:
        """Parent, users and limits of an account as sacctmgr shows them; None when there is none."""
        said = self.lab.slurm(
            *("sacctmgr", "-nP", "show", "assoc", f"account={name}", "format=parentname,user,grptresmins")
        )
        rows = [line.split("|") for line in said.splitlines()]
        if not rows:
            assert name not in self.lab.slurm("sacctmgr", "-nP", "show", "account", "format=account").split()
            return None
        ((parent, _, limits),) = [row for row in rows if not row[1]]
        return parent, sorted(row[1] for row in rows if row[1]), dict(x.split("=") for x in limits.split(",") if x)

    def accounts(self) -> list[str]:
        """Every account of ours."""
        said = self.lab.slurm("sacctmgr", "-nP", "show", "assoc", "user=", "format=account")
        return sorted(name for name in said.split() if name.startswith("hpc_"))

    def submitted(self, account, user="alice") -> str:
        """The id of a new job in an account; empty while slurmctld does not know yet that the user may."""
        try:
            return self.lab.submit("-A", account, user=user)
        except AssertionError:
            return ""

    def wipe(self) -> None:
        """Leave no account of ours behind."""
        wait_until(self._wiped, 60, "accounts to go")

    def _wiped(self) -> bool:
        """Slurm deletes no account whose jobs have not ended, and none that is a user's default."""
        names = ",".join(self.accounts())
        if names:
            for user in ("alice", "bob", "carol"):
                self.lab.slurm("scancel", f"--user={user}", check=False)
            default = ("set", "DefaultAccount=proj-a", "where", "name=alice,bob,carol")
            self.lab.slurm("sacctmgr", "-i", "modify", "user", *default, check=False)
            users = set(self.lab.slurm("sacctmgr", "-nP", "show", "user", "format=user").split())
            strangers = ",".join(users - {"root", "alice", "bob", "carol"})
            self.lab.slurm("sacctmgr", "-i", "delete", "user", "where", f"name={strangers or '-'}", check=False)
            self.lab.slurm("sacctmgr", "-i", "delete", "account", "where", f"name={names}", check=False)
        return not names

    def _taken(self, order):
        if self.market.dialect == "order-items":
            self.market.approve(order)
        return order


class Once:
    """One agent's only rounds, in this process."""

    def __init__(self, tenants: Tenants, runner, portal, changes, *, force: bool) -> None:
        environ = tenants.settings | {f"CVAGENT_{name.upper()}": str(value) for name, value in changes.items()}
        self.settings, _ = load_settings(None, environ)
        self.observer = FakeObserver()
        self._runner = runner or make_runner(self.settings)
        self._portal = portal
        self._force = force

    def run(self, rounds: int) -> "Once":
        """So many times rounds and deliveries, until none is a reason to look again."""
        flows = flows_for(self.settings)
        rules = {flow.name: rules_for(flow.name, self.settings, "lab", force=self._force) for flow in flows}
        with ExitStack() as stack:
            outbox = stack.enter_context(closing(SqlOutbox("sqlite://", "lab")))
            billing = Billing(self.settings)
            stack.callback(billing.portal.close)
            pull = Pull(self.settings, "lab", self._runner, outbox, billing)
            pull._orders = self._portal(billing.portal, self.settings.portal_offering)
            around = Surroundings(outbox, SystemClock(), self.observer, lambda _name: None, Event())
            collectors = [Collector(flow, pull.source(flow), rules[flow.name], Horizon(0), around) for flow in flows]
            sinks = make_sinks(self.settings, "lab", flows, billing, pull)
            stack.callback(lambda: [sink.close() for sink in sinks])
            wanted = {looks.flow.sinks[0]: looks.vouches for looks in collectors if looks.flow.errands}
            for _ in range(rounds):
                pull.tenancy.forget()
                run_out(collectors, [Courier(sink, 1.0, around, vouched=wanted.get(sink.name)) for sink in sinks])
            self.aside = [row for flow in flows for row in outbox.rows(flow.sinks[0], "set_aside")]
            self.pending = [row for flow in flows for row in outbox.rows(flow.sinks[0], "pending")]
        return self

    @property
    def writes(self) -> int:
        """How many answers its sinks gave, but for the one that asks the portal itself what differs."""
        return sum(sink != "portal_associations" for sink in self.observer.sinks)
