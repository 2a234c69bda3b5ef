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
    const [command, code, reason] = text.split(":"); // code is the text of fragments
    if (command === "close") ws.close(Number(code), reason);
    else if (command === "last") ws.send(last);
    else if (command === "fragments") {
      ws.send(code.slice(0, 200000), { fin: false });
      ws.send(code.slice(200000, 400000), { fin: false });
      ws.send(code.slice(400000), { fin: true });
    } else if (command === "ping") {
      ws.once("pong", () => ws.send("pong"));
      ws.ping("payload");
    } else ws.send(data, { binary });
  });
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
process.stdin.resume().on("end", () => process.exit(0));
