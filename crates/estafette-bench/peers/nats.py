"""Request and reply through a NATS server, over bare sockets: prints the p50 and p99 of a round trip in nanoseconds."""

import multiprocessing
import socket
import subprocess
import sys
import time


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Client:
    """Speaks as much of the protocol as a round trip needs."""

    def __init__(self, port):
        for _ in range(200):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        self.send(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
        while self.lines.readline() != b"PONG\r\n":
            pass

    def send(self, data):
        self.socket.sendall(data)

    def message(self):
        while not (line := self.lines.readline()).startswith(b"MSG"):
            if line == b"PING\r\n":
                self.send(b"PONG\r\n")
        words = line.split()
        return words[3] if len(words) == 5 else b"", self.lines.read(int(words[-1]) + 2)[:-2]


def echo(port, ready):
    client = Client(port)
    client.send(b"SUB echo 1\r\nPING\r\n")
    client.lines.readline()
    ready.set()
    while True:
        reply, data = client.message()
        client.send(b"PUB %s %d\r\n%s\r\n" % (reply, len(data), data))
        if data == b"end":
            return


if __name__ == "__main__":
    count, port = int(sys.argv[1]), free_port()
    server = subprocess.Popen(["nats-server", "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        ready = multiprocessing.Event()
        child = multiprocessing.Process(target=echo, args=(port, ready))
        child.start()
        ready.wait(10)
        client = Client(port)
        client.send(b"SUB replies 1\r\n")
        times = []
        for _ in range(count):
            start = time.perf_counter_ns()
            client.send(b"PUB echo replies 256\r\n" + b"x" * 256 + b"\r\n")
            client.message()
            times.append(time.perf_counter_ns() - start)
        client.send(b"PUB echo replies 3\r\nend\r\n")
        client.message()
        child.join()
    finally:
        server.terminate()
        server.wait()
    times.sort()
    print(times[count // 2], times[count * 99 // 100])
