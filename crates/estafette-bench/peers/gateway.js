// A broadcast server with Node's ws: what comes in at /publish goes to everybody at /subscribe.
//
// Usage: node gateway.js PORT

const { WebSocketServer, WebSocket } = require('ws');

const subscribers = new Set();
new WebSocketServer({ port: Number(process.argv[2]), host: '127.0.0.1', perMessageDeflate: false }).on('connection', (socket, request) => {
  if (request.url === '/publish') {
    socket.on('message', (data) => {
      for (const subscriber of subscribers) {
        if (subscriber.readyState === WebSocket.OPEN) subscriber.send(data, { binary: false });
      }
    });
  } else {
    subscribers.add(socket);
    socket.on('close', () => subscribers.delete(socket));
  }
});
