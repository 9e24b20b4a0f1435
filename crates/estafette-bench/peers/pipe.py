"""Python's multiprocessing Pipe: prints the p50 and p99 of a round trip in nanoseconds."""

import multiprocessing
import sys
import time


def echo(pipe):
    while (data := pipe.recv()) is not None:
        pipe.send(data)


if __name__ == "__main__":
    count = int(sys.argv[1])
    here, there = multiprocessing.Pipe()
    child = multiprocessing.Process(target=echo, args=(there,))
    child.start()
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        here.send("x" * 254)
        here.recv()
        times.append(time.perf_counter_ns() - start)
    here.send(None)
    child.join()
    times.sort()
    print(times[count // 2], times[count * 99 // 100])
