"""ZeroMQ over ipc: prints the p50 and p99 of a round trip in nanoseconds."""

import multiprocessing
import sys
import tempfile
import time

import zmq


def echo(address):
    socket = zmq.Context().socket(zmq.REP)
    socket.bind(address)
    while (data := socket.recv()) != b"":
        socket.send(data)
    socket.send(b"")


if __name__ == "__main__":
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        address = f"ipc://{directory}/socket"
        child = multiprocessing.Process(target=echo, args=(address,))
        child.start()
        socket = zmq.Context().socket(zmq.REQ)
        socket.connect(address)
        times = []
        for _ in range(count):
            start = time.perf_counter_ns()
            socket.send(b"x" * 256)
            socket.recv()
            times.append(time.perf_counter_ns() - start)
        socket.send(b"")
        socket.recv()
        child.join()
    times.sort()
    print(times[count // 2], times[count * 99 // 100])
