"""What accounts are called. Clusters hold accounts with these names: the rule may not change."""

import re

from msgspec import Struct

_OUTSIDE = re.compile(r"[^a-zA-Z0-9\-_]")
_UUID_DIGITS = 5


class NameRules(Struct, frozen=True):
    """What the operator decided about names.

    Attributes:
        max_len: Letters of an allocation's account, its prefix included.
    """

    customer_prefix: str = "hpc_"
    project_prefix: str = "hpc_"
    allocation_prefix: str = "hpc_"
    max_len: int = 34


def customer_account(customer_uuid: str, rules: NameRules) -> str:
    """The account of a customer.

    >>> customer_account("0123456789abcdef0123456789ABCDEF", NameRules())
    'hpc_0123456789abcdef0123456789abcdef'
    """
    return f"{rules.customer_prefix}{customer_uuid}".lower()


def project_account(project_uuid: str, rules: NameRules) -> str:
    """The account of a project."""
    return f"{rules.project_prefix}{project_uuid}".lower()


def allocation_account(allocation_uuid: str, name: str, rules: NameRules) -> str:
    """The account of an allocation; what an account's name cannot hold is left out.

    >>> allocation_account("0123456789abcdef0123456789abcdef", "Zoë's BERT run", NameRules())
    'hpc_01234_zosbertrun'
    """
    full = f"{rules.allocation_prefix}{allocation_uuid[:_UUID_DIGITS]}_{name}"
    return _OUTSIDE.sub("", full)[: rules.max_len].lower()
