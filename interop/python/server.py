"""An echo server with the commands of ../conversation_test.go. Prints its port."""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

options = json.loads(sys.argv[1])
last = "none"


async def handle(ws):
    global last
    try:
        async for message in ws:
            command, *rest = message.split(":") if isinstance(message, str) else [""]
            if command == "close":
                await ws.close(int(rest[0]), rest[1])
            elif command == "last":
                await ws.send(last)
            elif command == "fragments":
                await ws.send([rest[0][:200000], rest[0][200000:400000], rest[0][400000:]])
            elif command == "ping":
                await (await ws.ping(b"payload"))
                await ws.send("pong")
            else:
                await ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        last = f"{ws.close_code} {ws.close_reason}"


async def main():
    tls = None
    if options.get("cert"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options["cert"], options["key"])
    extensions = [ServerPerMessageDeflateFactory(**options["deflate"])] if options.get("deflate") is not None else None
    async with serve(handle, "127.0.0.1", 0, ssl=tls, compression=None, extensions=extensions, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
