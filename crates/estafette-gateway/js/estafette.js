// A client of the gateway's built-in protocol, for browsers and Node 22. No build step: <script src="estafette.js">.
//
//   const connection = new Estafette("wss://example.com/", { token: () => fetchToken() });
//   connection.subscribe("room.1", (data) => show(data));
//   await connection.publish("room.1", { text: "hello" });
//   connection.on("state", (state) => console.log(state));   // connecting, open, waiting, closed
//
// It connects again by itself, after pauses that grow from half a second to thirty, subscribes again, and rejects what was
// asked and not answered when the connection was lost: whether it was done is not known then.
(function (root) {
    "use strict";

    const PAUSE_MIN = 500;
    const PAUSE_MAX = 30000;
    const ANSWER_MAX = 10000;
    const PING_EVERY = 25000;
    const WAITING_MAX = 1000;
    // What connecting again does not cure.
    const FINAL_CODES = new Set([1008]);

    class Estafette {
        constructor(url, options = {}) {
            this.url = url;
            this.token = options.token;
            this.channels = new Map();
            this.listeners = new Map();
            this.waiting = new Map();
            this.nextId = 1;
            this.pause = PAUSE_MIN;
            this.state = "closed";
            this.connect();
        }

        on(event, listener) {
            if (!this.listeners.has(event)) this.listeners.set(event, new Set());
            this.listeners.get(event).add(listener);
            return () => this.listeners.get(event).delete(listener);
        }

        emit(event, value) {
            for (const listener of this.listeners.get(event) || []) listener(value);
        }

        setState(state) {
            this.state = state;
            this.emit("state", state);
        }

        async connect() {
            this.setState("connecting");
            let token;
            try {
                token = typeof this.token === "function" ? await this.token() : this.token;
            } catch (error) {
                this.emit("error", error);
                return this.connectLater();
            }
            if (this.state === "closed") return;
            const url = new URL(this.url);
            if (token) url.searchParams.set("token", token);
            const socket = new WebSocket(url);
            this.socket = socket;
            socket.onopen = () => this.opened();
            socket.onmessage = (event) => this.received(event.data);
            socket.onclose = (event) => {
                if (this.socket === socket) this.lost(event);
            };
        }

        opened() {
            this.pause = PAUSE_MIN;
            this.setState("open");
            for (const channel of this.channels.keys()) {
                this.ask({ op: "subscribe", channel }).catch((error) => this.emit("error", error));
            }
            this.pinging = setInterval(() => {
                this.ask({ op: "ping" }).catch(() => this.socket && this.socket.close());
            }, PING_EVERY);
        }

        lost(event) {
            clearInterval(this.pinging);
            for (const { reject, timer } of this.waiting.values()) {
                clearTimeout(timer);
                reject(new Error("the connection was lost"));
            }
            this.waiting.clear();
            if (this.state === "closed") return;
            if (FINAL_CODES.has(event.code)) {
                this.setState("closed");
                this.emit("error", new Error(event.reason || "the gateway closed the connection"));
                return;
            }
            this.connectLater();
        }

        connectLater() {
            if (this.state === "closed") return;
            this.setState("waiting");
            // Between half and all of the pause, so that a thousand clients do not come back at once.
            const pause = this.pause * (0.5 + Math.random() / 2);
            this.pause = Math.min(this.pause * 2, PAUSE_MAX);
            this.timer = setTimeout(() => this.connect(), pause);
        }

        received(text) {
            let message;
            try {
                message = JSON.parse(text);
            } catch {
                return this.emit("message", text);
            }
            const waiting = message && message.id != null && this.waiting.get(message.id);
            if (waiting) {
                this.waiting.delete(message.id);
                clearTimeout(waiting.timer);
                if (message.error) waiting.reject(new Error(message.error));
                else waiting.resolve(message.result);
                return;
            }
            if (message && message.channel !== undefined && this.channels.has(message.channel)) {
                for (const listener of this.channels.get(message.channel)) listener(message.data, message.channel);
                return;
            }
            this.emit("message", message);
        }

        ask(request) {
            if (this.state !== "open") return Promise.reject(new Error("there is no connection now"));
            if (this.waiting.size >= WAITING_MAX) return Promise.reject(new Error("too much waits for an answer"));
            const id = this.nextId++;
            return new Promise((resolve, reject) => {
                const timer = setTimeout(() => {
                    this.waiting.delete(id);
                    reject(new Error("no answer in time"));
                }, ANSWER_MAX);
                this.waiting.set(id, { resolve, reject, timer });
                this.socket.send(JSON.stringify({ ...request, id }));
            });
        }

        // Returns what ends the subscription.
        subscribe(channel, listener) {
            const isNew = !this.channels.has(channel);
            if (isNew) this.channels.set(channel, new Set());
            this.channels.get(channel).add(listener);
            if (isNew && this.state === "open") {
                this.ask({ op: "subscribe", channel }).catch((error) => this.emit("error", error));
            }
            return () => {
                const listeners = this.channels.get(channel);
                if (!listeners || !listeners.delete(listener) || listeners.size > 0) return;
                this.channels.delete(channel);
                if (this.state === "open") this.ask({ op: "unsubscribe", channel }).catch(() => {});
            };
        }

        publish(channel, data) {
            return this.ask({ op: "publish", channel, data });
        }

        push(queue, data) {
            return this.ask({ op: "push", queue, data });
        }

        close() {
            this.setState("closed");
            clearTimeout(this.timer);
            if (this.socket) this.socket.close(1000);
        }
    }

    if (typeof module !== "undefined" && module.exports) module.exports = { Estafette };
    else root.Estafette = Estafette;
})(typeof globalThis !== "undefined" ? globalThis : this);
