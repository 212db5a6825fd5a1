"""The same in a program that is written for asyncio, with an identity and a peer that are in no file.

python docs/examples/fetch_asyncio.py KEY PUBLIC-KEY-OF-THE-PEER HOST:PORT DIRECTORY /data/in
"""

import asyncio
import sys

from realize import api


async def fetch(key: str, public_key: str, address: str, directory: str, destination: str) -> api.Summary:
    """Fetch what is in a directory of a daemon."""
    peer = api.PeerConfig(api.parse_public_key(public_key), address=address)
    config = api.Config(key=api.load_identity(key), peers={"nas": peer})
    async with api.asyncio_reactor() as reactor:
        return await api.in_asyncio(api.move(reactor, f"nas::{directory}", destination, config=config))


if len(sys.argv) != 6:
    raise SystemExit(__doc__)
try:
    summary = asyncio.run(fetch(*sys.argv[1:]))
except api.RealizeError as error:
    raise SystemExit(f"fetch: {error}") from error
print(f"{summary.arrived} files fetched, {summary.failed} failed")
