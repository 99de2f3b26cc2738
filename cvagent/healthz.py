"""Says whether the agent in this container lives: the image's health check, `python3 -m cvagent.healthz`.

Asks /healthz at CVAGENT_HTTP_LISTEN of the environment. The standard library alone, as it runs every half minute.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104 - where it may listen, and where to ask then
_WITHOUT_PAGE = {"stand-in", "stand-in-portal", "socket-proxy"}
_LIMIT_S = 4


def address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Where the pages are; None when there are none.

    >>> address({}), address({"CVAGENT_HTTP_LISTEN": "[::]:9500"}), address({"CVAGENT_HTTP_LISTEN": "off"})
    (('127.0.0.1', 9410), ('::1', 9500), None)
    """
    listen = environ.get("CVAGENT_HTTP_LISTEN") or "127.0.0.1:9410"
    if listen.lower() == "off":
        return None
    host, _, port = listen.rpartition(":")
    return _EVERYWHERE.get(host, host.strip("[]")), int(port)


def has_page(command: Sequence[str]) -> bool:
    """Whether what runs with this command line has such a page: the stand-ins and the socket proxy have none.

    >>> has_page(["python3", "-m", "cvagent"]), has_page(["python3", "-m", "cvagent", "stand-in"])
    (True, False)
    """
    return _WITHOUT_PAGE.isdisjoint(command)


def main() -> int:
    """0 when it lives, or has no page to ask; else 1, with a line that says what is wrong."""
    place = address(os.environ)
    if place is None or not has_page(Path("/proc/1/cmdline").read_text().split("\0")[:-1]):
        return 0
    # Not urllib: that would ask HTTP_PROXY.
    connection = HTTPConnection(*place, timeout=_LIMIT_S)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        sys.stdout.write(f"no answer from {place[0]}:{place[1]}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if status == HTTPStatus.OK else 1


if __name__ == "__main__":
    raise SystemExit(main())
