// RabbitMQ through amqplib, messages as Estafette has them: prints the seconds a job took.
// Usage: node amqp.js publish URL MESSAGES WINDOW | consume URL MESSAGES PREFETCH MESSAGES_PER_ACK
"use strict";
const amqplib = require("amqplib");
const [, , job, url, ...numbers] = process.argv;
const [messages, limit, block] = numbers.map(Number);
const body = Buffer.alloc(256, "x");
const options = () => ({
  persistent: true,
  messageId: "01a1fc72-14c4-70a8-824e-f41e4c46a933",
  timestamp: 1763704800,
  type: "bench.message",
  appId: "estafette",
  headers: { "cloudEvents:specversion": "1.0", "cloudEvents:time": "2026-11-21T05:00:00.123456Z" },
});

const publish = (channel, queue, window) =>
  new Promise((resolve, reject) => {
    let sent = 0;
    let confirmed = 0;
    const more = () => {
      for (; sent < messages && sent - confirmed < window; sent++)
        channel.sendToQueue(queue, body, options(), (error) => {
          if (error) return reject(error);
          if (++confirmed === messages) return resolve();
          more();
        });
    };
    more();
  });

const consume = (channel, queue) =>
  new Promise((resolve, reject) => {
    let received = 0;
    const take = (message) => {
      if (message === null) return; // the queue was deleted
      received++;
      if (received % block === 0 || received === messages) channel.ack(message, block > 1);
      if (received === messages) resolve();
    };
    channel.prefetch(limit);
    channel.consume(queue, take).catch(reject);
  });

async function main() {
  const connection = await amqplib.connect(url);
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue(`bench-node-${process.pid}`, { durable: true });
  if (job === "consume") await publish(channel, queue, 1000);
  const start = process.hrtime.bigint();
  if (job === "consume") await consume(channel, queue);
  else await publish(channel, queue, limit);
  console.log(Number(process.hrtime.bigint() - start) / 1e9);
  await channel.deleteQueue(queue);
  await connection.close();
}
main().catch((error) => { console.error(error); process.exit(1); });
