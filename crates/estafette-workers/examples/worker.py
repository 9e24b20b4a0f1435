"""A worker in Python: listens, answers, sends and asks, with one JSON object a line.

Run: estafette workers -n 2 --name app -- python3 worker.py
Try: estafette workers request app greet '"Ann"' --to 0
     estafette workers request app relay '"Ann"' --to 0     (asks worker 1)
     estafette workers send app remember '"milk"' --to all
     estafette workers request app remembered null --to 1
"""

import asyncio
import json
import os
import signal

ADDRESS = os.environ["ESTAFETTE_WORKER_ADDRESS"]
DIRECTORY = os.environ["ESTAFETTE_WORKER_DIRECTORY"]
INCARNATION = int(os.environ["ESTAFETTE_WORKER_INCARNATION"])
LIMIT = 16 << 20

memory = []
counts = {"messages_in": 0, "messages_out": 0}


async def greet(name, sender):
    return f"Hello {name}, from Python worker {ADDRESS}"


async def remember(text, sender):
    memory.append(text)


async def remembered(_, sender):
    return memory


async def relay(name, sender):
    other = "1" if ADDRESS == "0" else "0"
    await call(other, "remember", f"{name} was here", wait=False)
    return await call(other, "greet", name)


async def tell_counts(_, sender):
    return counts  # What `estafette workers status` shows.


LISTENERS = {
    "greet": greet,
    "remember": remember,
    "remembered": remembered,
    "relay": relay,
    "estafette.counts": tell_counts,
}


async def call(to, action, data, wait=True, limit=2.0):
    """Sends to another participant, or asks it; a connection per call keeps the example short."""
    for kind in ("sock", "lines"):
        path = f"{DIRECTORY}/{to}.{kind}"
        if os.path.exists(path):
            break
    reader, writer = await asyncio.open_unix_connection(path, limit=LIMIT)
    try:
        say(writer, type="hello", protocol=1, to=to, incarnation=INCARNATION, **{"from": ADDRESS})
        await asyncio.wait_for(reader.readline(), limit)  # welcome
        say(writer, type="request" if wait else "send", id=1, action=action, data=data)
        count("messages_out", action)
        await writer.drain()
        if not wait:
            return None
        reply = json.loads(await asyncio.wait_for(reader.readline(), limit))
        if reply["type"] == "error":
            raise RuntimeError(reply["message"])
        return reply["data"]
    finally:
        writer.close()


def count(direction, action):
    counts[direction] += not action.startswith("estafette.")


def say(writer, **line):
    writer.write(json.dumps(line).encode() + b"\n")


async def serve(reader, writer):
    """One caller: its hello, then its messages until it closes."""
    callers.add(writer)
    hello = json.loads(await reader.readline() or b"{}")
    if hello.get("to") == ADDRESS:
        say(writer, type="welcome", incarnation=INCARNATION, **{"from": ADDRESS})
        while text := await reader.readline():
            line = json.loads(text)
            asyncio.ensure_future(handle(line, hello["from"], writer))
    callers.discard(writer)
    writer.close()


async def handle(line, sender, writer):
    count("messages_in", line["action"])
    listener = LISTENERS.get(line["action"])
    try:
        if listener is None:
            raise LookupError(f"nobody listens for {line['action']} there")
        answer = {"type": "reply", "data": await listener(line.get("data"), sender)}
    except Exception as error:
        kind = "not found" if listener is None else "engine error"
        answer = {"type": "error", "kind": kind, "message": str(error)}
    if line["type"] == "request":
        say(writer, id=line["id"], **answer)


callers = set()


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    path = os.environ["ESTAFETTE_WORKER_LINES"]
    server = await asyncio.start_unix_server(serve, path, limit=LIMIT)
    await call("supervisor", "estafette.join", INCARNATION)
    print("ready", flush=True)
    await stop.wait()
    os.unlink(path)
    server.close()
    for writer in callers:
        say(writer, type="goodbye")
    while callers:  # They finish what they were sending and close; the supervisor limits the wait.
        await asyncio.sleep(0.01)


asyncio.run(main())
