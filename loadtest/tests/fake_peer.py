"""A fake peer: runs one image at a time, even if its client has disconnected. PEER_PORT, PEER_COUNTER."""

import asyncio
import os

SECONDS = 0.01


async def main():
    one_at_a_time = asyncio.Lock()
    counter = os.open(os.environ["PEER_COUNTER"], os.O_WRONLY | os.O_APPEND)

    async def run():
        async with one_at_a_time:
            await asyncio.sleep(SECONDS)
            os.write(counter, b".")

    async def serve(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                await run()
                body = b'{"logit":1.5}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PEER_PORT"]))
    # A child process, as in servers with workers.
    await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
    await server.serve_forever()


asyncio.run(main())
