// Node's own messages between processes: prints the p50 and p99 of a round trip in nanoseconds.
"use strict";
const { fork } = require("node:child_process");
if (process.send) process.on("message", (message) => process.send(message));
else {
  const count = Number(process.argv[2]);
  const text = "x".repeat(254);
  const child = fork(process.argv[1]);
  const times = [];
  let start;
  const next = () => { start = process.hrtime.bigint(); child.send(text); };
  child.on("message", () => {
    times.push(Number(process.hrtime.bigint() - start));
    if (times.length < count) return next();
    times.sort((a, b) => a - b);
    console.log(times[count >> 1], times[Math.floor(count * 0.99)]);
    child.kill();
  });
  next();
}
