// Has the conversation of ../conversation_test.go with the server at a URL, by the ws package or by
// the WebSocket that is built in. A plain one is with a server that only echoes. Exits with 0 if
// all was as it should be.
"use strict";
const assert = require("assert");
const options = JSON.parse(process.argv[2]);
const builtin = options.builtin;
const Client = builtin ? globalThis.WebSocket : require("ws");

function open() {
  const ws = builtin ? new Client(options.url)
    : new Client(options.url, { perMessageDeflate: options.deflate || false, ca: options.cert && require("fs").readFileSync(options.cert) });
  ws.binaryType = "arraybuffer";
  const inbox = [];
  let wake = () => {};
  ws.onmessage = (e) => { inbox.push(e.data); wake(); };
  ws.closed = new Promise((resolve) => { ws.onclose = (e) => { resolve(e); wake(); }; });
  ws.receive = async () => {
    while (inbox.length === 0) await new Promise((resolve) => { wake = resolve; });
    return inbox.shift();
  };
  return new Promise((resolve, reject) => { ws.onopen = () => resolve(ws); ws.onerror = (e) => reject(new Error(e.message || "error")); });
}

// Compression gets out of these a quarter or so.
const long = require("crypto").randomBytes(450000).toString("base64");
const alike = long.slice(0, 200);

async function main() {
  let ws = await open();
  if (options.deflate) assert.match(ws.extensions, /permessage-deflate/);
  for (const text of ["", "Hello", "é漢字😀".repeat(1000), alike, alike, alike]) {
    ws.send(text);
    assert.strictEqual(await ws.receive(), text);
  }
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    const bytes = new Uint8Array(size).map((_, i) => i * 7 >> 3);
    ws.send(bytes);
    assert.deepStrictEqual(new Uint8Array(await ws.receive()), bytes);
  }
  if (!options.plain) {
    ws.send("fragments:" + long);
    assert.strictEqual(await ws.receive(), long);
    ws.send("ping");
    assert.strictEqual(await ws.receive(), "pong");
  }
  if (!builtin) {
    ws.send(long.slice(0, 200000), { fin: false });
    ws.send(long.slice(200000, 400000), { fin: false });
    ws.send(long.slice(400000), { fin: true });
    assert.strictEqual(await ws.receive(), long);
    const pong = new Promise((resolve) => ws.once("pong", resolve));
    ws.ping("abc");
    assert.strictEqual((await pong).toString(), "abc");
  }
  if (!options.plain) {
    ws.send("close:4001:bye");
    const e = await ws.closed;
    assert.strictEqual(`${e.code} ${e.reason} ${e.wasClean}`, "4001 bye true");
    ws = await open();
  }
  ws.close(4002, "see you");
  const e = await ws.closed;
  assert.strictEqual(`${e.code} ${e.reason} ${e.wasClean}`, "4002 see you true");
  if (options.plain) return;
  ws = await open();
  // The server may hear of the end of the connection before a little later.
  for (let got = "4001 bye"; got !== "4002 see you"; got = await ws.receive()) {
    assert.strictEqual(got, "4001 bye");
    ws.send("last");
  }
  ws.close(1000);
  await ws.closed;
}

const limit = setTimeout(() => { console.error("timed out"); process.exit(1); }, 20000);
main().then(() => clearTimeout(limit), (err) => { console.error(err); process.exit(1); });
