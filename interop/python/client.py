"""Has the conversation of ../conversation_test.go with the server at a URL.

A plain one is with a server that only echoes.
"""

import asyncio
import base64
import json
import random
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

options = json.loads(sys.argv[1])
# Compression gets out of these a quarter or so.
long = base64.b64encode(random.Random(1).randbytes(450000)).decode()
alike = long[:200]


def open():
    tls = None
    if options.get("cert"):
        tls = ssl.create_default_context(cafile=options["cert"])
    extensions = [ClientPerMessageDeflateFactory(**options["deflate"])] if options.get("deflate") is not None else None
    return connect(options["url"], ssl=tls, compression=None, extensions=extensions, max_size=None, proxy=None)


def check(got, want):
    if got != want:
        raise AssertionError(f"{got!r:.200} instead of {want!r:.200}")


async def main():
    async with open() as ws:
        if options.get("deflate") is not None:
            check([e.name for e in ws.protocol.extensions], ["permessage-deflate"])
        for text in ["", "Hello", "é漢字😀" * 1000, alike, alike, alike]:
            await ws.send(text)
            check(await ws.recv(), text)
        for size in [0, 1, 125, 126, 65535, 65536, 1 << 20]:
            data = bytes(i * 7 >> 3 & 255 for i in range(size))
            await ws.send(data)
            check(await ws.recv(), data)
        if not options.get("plain"):
            await ws.send("fragments:" + long)
            check(await ws.recv(), long)
            await ws.send("ping")
            check(await ws.recv(), "pong")
        await ws.send([long[:200000], long[200000:400000], long[400000:]])
        check(await ws.recv(), long)
        await (await ws.ping(b"abc"))
        if not options.get("plain"):
            await ws.send("close:4001:bye")
            try:
                await ws.recv()
            except ConnectionClosed:
                pass
            check((ws.close_code, ws.close_reason), (4001, "bye"))
    async with open() as ws:
        await ws.close(4002, "see you")
        check((ws.close_code, ws.close_reason), (4002, "see you"))
    if options.get("plain"):
        return
    async with open() as ws:
        # The server may hear of the end of the connection before a little later.
        got = "4001 bye"
        while got != "4002 see you":
            check(got, "4001 bye")
            await ws.send("last")
            got = await ws.recv()


asyncio.run(asyncio.wait_for(main(), 20))
