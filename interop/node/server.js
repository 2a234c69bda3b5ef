// An echo server with the commands of ../conversation_test.go. Prints its port.
"use strict";
const fs = require("fs");
const { WebSocketServer } = require("ws");

const options = JSON.parse(process.argv[2]);
const http = options.cert
  ? require("https").createServer({ cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) })
  : require("http").createServer();
const wss = new WebSocketServer({ server: http, perMessageDeflate: options.deflate || false, maxPayload: 64 << 20 });
let last = "none";

wss.on("connection", (ws) => {
  ws.on("error", (err) => { last = "error: " + err.message; });
  ws.on("close", (code, reason) => { last = code + " " + reason; });
  ws.on("message", (data, binary) => {
    const text = binary ? "" : data.toString();
    const [command, code, reason] = text.split(":");
    if (command === "close") ws.close(Number(code), reason);
    else if (command === "last") ws.send(last);
    else if (command === "fragments") {
      ws.send("one ", { fin: false });
      ws.send("two ", { fin: false });
      ws.send("three", { fin: true });
    } else if (command === "ping") {
      ws.once("pong", (payload) => ws.send("pong " + payload));
      ws.ping("payload");
    } else ws.send(data, { binary });
  });
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
process.stdin.resume().on("end", () => process.exit(0));
