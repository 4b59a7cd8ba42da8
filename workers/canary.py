"""The canary's sink: a post that takes the canary itself and hands everything else on."""

from service.gateways.post import Post, Request
from service.rules.delivery import Reply
from service.store.canary import SINK_URL

TAKEN = Reply(status=204)


class CanaryPost:
    """A post as any other; nothing is dialled for the canary."""

    def __init__(self, post: Post) -> None:
        self._post = post

    async def send(self, request: Request) -> Reply:
        """Take the canary, else POST the request and report what came of it."""
        return TAKEN if request.url == SINK_URL else await self._post.send(request)

    async def close(self) -> None:
        """Close every connection."""
        await self._post.close()
