"""The portal's API over ASGI."""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cvagent.standin.api import Api, authorization, parsed
from cvagent.standin.portal.market import Market
from cvagent.standin.portal.routes import answer
from cvagent.standin.portal.wire import Call

_UUID_LEN = 32


class PortalApi(Api):
    """Everything under `/api`."""

    def __init__(self, market: Market) -> None:
        super().__init__(market)
        self._market = market

    async def read(self, request: Request) -> Call:
        """See Api."""
        scope = request.scope
        base = f"{scope['scheme']}://{request.headers.get('host', '')}"
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        document = parsed(await request.body())
        return Call(scope["method"], base, scope["path"], query, authorization(scope), document)

    def answer(self, call: Call) -> Response:
        """See Api."""
        found = answer(self._market, call)
        response: Response = (
            JSONResponse(found.body, found.status) if found.body is not None else Response(b"", found.status)
        )
        response.headers.update(found.headers)
        return response

    def refuse(self, status: int, message: str) -> Response:
        """See Api."""
        return JSONResponse({"detail": message}, status)

    def named(self, call: Call) -> tuple[str, int]:
        """See Api: the uuid in the path, where there is one."""
        uuid = next((part for part in call.path.split("/") if len(part) == _UUID_LEN), "")
        return uuid, 1 if uuid else 0
