// A worker in Node: listens, answers, sends and asks, with one JSON object a line.
//
// Run: estafette workers -n 2 --name app -- node worker.js
// Try: estafette workers request app greet '"Ann"' --to 0
//      estafette workers request app relay '"Ann"' --to 0     (asks worker 1)

"use strict";
const fs = require("node:fs");
const net = require("node:net");
const readline = require("node:readline");

const address = process.env.ESTAFETTE_WORKER_ADDRESS;
const directory = process.env.ESTAFETTE_WORKER_DIRECTORY;
const incarnation = Number(process.env.ESTAFETTE_WORKER_INCARNATION);

const memory = [];
const counts = { messages_in: 0, messages_out: 0 };
const count = (direction, action) => (counts[direction] += action.startsWith("estafette.") ? 0 : 1);
const listeners = {
  greet: async (name) => `Hello ${name}, from Node worker ${address}`,
  remember: async (text) => void memory.push(text),
  remembered: async () => memory,
  relay: async (name) => {
    const other = address === "0" ? "1" : "0";
    await call(other, "remember", `${name} was here`, { wait: false });
    return call(other, "greet", name);
  },
  "estafette.counts": async () => counts, // What `estafette workers status` shows.
};

const say = (socket, line) => socket.write(JSON.stringify(line) + "\n");

// Sends to another participant, or asks it; a connection per call keeps the example short.
function call(to, action, data, { wait = true, limit = 2000 } = {}) {
  const kind = fs.existsSync(`${directory}/${to}.sock`) ? "sock" : "lines";
  return new Promise((resolve, reject) => {
    const socket = net.connect(`${directory}/${to}.${kind}`);
    const timer = setTimeout(() => socket.destroy(new Error("timed out")), limit);
    socket.on("error", reject).on("close", () => clearTimeout(timer));
    say(socket, { type: "hello", protocol: 1, from: address, to, incarnation });
    readline.createInterface({ input: socket }).on("line", (text) => {
      const line = JSON.parse(text);
      if (line.type === "welcome") {
        say(socket, { type: wait ? "request" : "send", id: 1, action, data });
        count("messages_out", action);
        if (wait) return;
      } else if (line.type !== "reply") reject(new Error(line.message));
      socket.end();
      resolve(line.data);
    });
  });
}

async function handle(socket, line) {
  count("messages_in", line.action);
  let answer;
  try {
    const listener = listeners[line.action];
    if (!listener) throw Object.assign(new Error(`nobody listens for ${line.action} there`), { kind: "not found" });
    answer = { type: "reply", data: (await listener(line.data)) ?? null };
  } catch (error) {
    answer = { type: "error", kind: error.kind ?? "engine error", message: error.message };
  }
  if (line.type === "request") say(socket, { id: line.id, ...answer });
}

const callers = new Set();
const path = process.env.ESTAFETTE_WORKER_LINES;
const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  callers.add(socket);
  let greeted = false;
  const lines = readline.createInterface({ input: socket });
  lines.on("line", (text) => {
    const line = JSON.parse(text);
    if (greeted) return handle(socket, line);
    greeted = line.type === "hello" && line.to === address;
    if (greeted) say(socket, { type: "welcome", from: address, incarnation });
    else socket.destroy();
  });
  lines.on("close", () => setImmediate(() => socket.end()));
  socket.on("error", () => {}).on("close", () => callers.delete(socket));
});
server.listen(path, async () => {
  await call("supervisor", "estafette.join", incarnation);
  console.log("ready");
});

process.on("SIGTERM", () => {
  server.close(); // Ends the process once the callers have finished what they were sending; it removes the socket too.
  for (const socket of callers) say(socket, { type: "goodbye" });
});
