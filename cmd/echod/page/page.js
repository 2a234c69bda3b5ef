"use strict";

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();

const maxRows = 500;    // rows kept
const maxShown = 1024;  // characters of a text, or bytes of a binary message, that are shown
const maxReason = 123;  // bytes: RFC 6455, sections 5.5 and 5.5.1

// Section 7.4.1 of RFC 6455, and IANA's registry for 1012 to 1014.
const codeNames = {
  1000: "normal closure", 1001: "going away", 1002: "protocol error", 1003: "unsupported data",
  1005: "no code received", 1006: "no Close frame received", 1007: "invalid payload data", 1008: "policy violation",
  1009: "message too big", 1010: "mandatory extension", 1011: "internal error", 1012: "service restart",
  1013: "try again later", 1014: "bad gateway", 1015: "TLS handshake",
};

let ws = null;
let ours = null; // the Close that this page sent
const totals = { sent: 0, received: 0 };

const bytes = (n) => n.toLocaleString("en") + (n === 1 ? " byte" : " bytes");
const codeText = (code) => code in codeNames ? `${code} (${codeNames[code]})` : String(code);

// The connection.

function address() {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${$("endpoint").value}`;
}

function showState(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
  const open = state === "open";
  for (const form of ["send", "close"]) $(form).querySelector("fieldset").disabled = !open;
  for (const id of ["endpoint", "subprotocols"]) $(id).disabled = ws !== null;
  const button = $("connect").querySelector("button");
  button.textContent = ws === null ? "Connect" : open ? "Disconnect" : "Give up";
  button.classList.toggle("primary", ws === null);
  if (ws === null) $("url").textContent = address();
}

function connect() {
  const offered = $("subprotocols").value.split(",").map((s) => s.trim()).filter((s) => s !== "");
  try {
    ws = new WebSocket(address(), offered);
  } catch (err) {
    fail("connect", "subprotocols", `The browser refuses: ${err.message}`);
    return;
  }
  ours = null;
  ws.binaryType = "arraybuffer";
  ws.onopen = () => {
    $("subprotocol").textContent = ws.protocol || "none";
    $("extensions").textContent = ws.extensions || "none";
    addRow("event", "", "", null, `Connected to ${ws.url}`);
    showState("open", "connected");
    $("message").focus();
  };
  ws.onmessage = (event) => addMessage("received", event.data);
  ws.onclose = (event) => {
    addClose(event);
    ws = null;
    showState("closed", "not connected");
  };
  $("subprotocol").textContent = $("extensions").textContent = "–";
  showState("busy", "connecting…");
}

function close(code, reason) {
  ours = { code, reason };
  if (code === undefined) ws.close(); else ws.close(code, reason);
  // A code takes two bytes in front of the reason.
  const size = code === undefined ? 0 : 2 + encoder.encode(reason).length;
  const text = code === undefined ? "no code" : codeText(code) + (reason === "" ? "" : ` “${reason}”`);
  addRow("sent", "↑ sent", "close 0x8", size, text);
  showState("busy", "closing…");
}

// The traffic.

function addMessage(direction, data) {
  const arrow = direction === "sent" ? "↑ sent" : "↓ received";
  if (typeof data === "string") {
    addRow(direction, arrow, "text 0x1", encoder.encode(data).length, shorten(data));
  } else {
    addRow(direction, arrow, "binary 0x2", data.byteLength, dump(new Uint8Array(data)));
  }
}

function addClose({ code, reason, wasClean }) {
  const clean = `wasClean: ${wasClean}`;
  if (code === 1006) {
    const why = ours === null && $("subprotocol").textContent === "–"
      ? "The handshake failed; the browser's console says more."
      : "The connection ended without a Close frame.";
    addRow("failed", "", "", null, `${codeText(code)} · ${clean}\n${why}`);
    return;
  }
  const size = code === 1005 ? 0 : 2 + encoder.encode(reason).length;
  addRow("received", "↓ received", "close 0x8", size,
    `${codeText(code)}${reason === "" ? "" : ` “${reason}”`} · ${clean}`);
}

function addRow(kind, direction, opcode, size, content) {
  const scroll = $("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;

  const now = new Date();
  const time = now.toLocaleTimeString("en-GB") + "." + String(now.getMilliseconds()).padStart(3, "0");
  const row = document.createElement("tr");
  row.className = kind;
  for (const text of [time, direction, opcode, size === null ? "" : size.toLocaleString("en")]) {
    row.insertCell().textContent = text;
  }
  row.cells[3].className = "number";
  if (size === null) row.cells[3].className = "";
  const cell = row.insertCell();
  if (typeof content === "string") {
    cell.textContent = content;
  } else {
    cell.textContent = content.shown;
    const more = document.createElement("span");
    more.className = "more";
    more.textContent = content.more;
    cell.append(more);
  }
  const rows = $("rows");
  rows.append(row);
  if (rows.children.length > maxRows) rows.firstElementChild.remove();
  $("empty").hidden = true;
  if (kind in totals && !opcode.startsWith("close")) totals[kind]++;
  $("totals").textContent = `${totals.sent} sent, ${totals.received} received`;
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function shorten(text) {
  if (text === "") return { shown: "", more: "(empty)" };
  if (text.length <= maxShown) return text;
  // Not between the two halves of a surrogate pair.
  let end = maxShown;
  if ((text.charCodeAt(end - 1) & 0xfc00) === 0xd800) end--;
  return { shown: text.slice(0, end), more: `\n… and ${bytes(encoder.encode(text.slice(end)).length)} more` };
}

// dump shows bytes as hex and, on the right, as the ASCII they may be.
function dump(data) {
  if (data.length === 0) return { shown: "", more: "(empty)" };
  const lines = [];
  for (let at = 0; at < Math.min(data.length, maxShown); at += 16) {
    const part = data.subarray(at, at + 16);
    const hex = Array.from(part, (b) => b.toString(16).padStart(2, "0")).join(" ");
    const ascii = Array.from(part, (b) => b >= 0x20 && b < 0x7f ? String.fromCharCode(b) : "·").join("");
    lines.push(data.length > 16 ? `${hex.padEnd(48)} ${ascii}` : `${hex}  ${ascii}`);
  }
  const shown = lines.join("\n");
  return data.length <= maxShown ? shown : { shown, more: `\n… and ${bytes(data.length - maxShown)} more` };
}

// The forms.

function fail(form, field, text) {
  $(`${form}-error`).textContent = text;
  if (text === "") {
    $(field).removeAttribute("aria-invalid");
  } else {
    $(field).setAttribute("aria-invalid", "true");
  }
}

// parseHex takes "48 65 6c", "48656c", "0x48, 0x65" and "48:65:6c".
function parseHex(text) {
  const digits = text.replace(/0x/gi, "").replace(/[\s,:]/g, "");
  const wrong = digits.match(/[^0-9a-f]/i);
  if (wrong) throw new Error(`“${wrong[0]}” is not a hex digit.`);
  if (digits.length % 2) throw new Error("There is half a byte at the end.");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

const isBinary = () => $("send").elements.type.value === "binary";

function showSize() {
  fail("send", "message", "");
  let size = "";
  try {
    size = bytes((isBinary() ? parseHex($("message").value) : encoder.encode($("message").value)).length);
  } catch {
    // Told when it is sent: half a byte is what a person has typed half of.
  }
  $("size").textContent = size === "" ? "" : `(${size})`;
}

// The other type starts from the same bytes.
function convert() {
  const field = $("message");
  try {
    if (isBinary()) {
      field.value = Array.from(encoder.encode(field.value), (b) => b.toString(16).padStart(2, "0")).join(" ");
    } else {
      field.value = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(parseHex(field.value));
    }
  } catch {
    // Bytes that are no text stay as they are.
  }
  showSize();
}

$("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  fail("connect", "subprotocols", "");
  if (ws === null) {
    connect();
  } else if (ws.readyState === WebSocket.OPEN) {
    close(1000, "");
  } else {
    ws.close();
  }
});

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  let data = $("message").value;
  if (isBinary()) {
    try {
      data = parseHex(data);
    } catch (err) {
      fail("send", "message", err.message);
      return;
    }
  }
  ws.send(data);
  addMessage("sent", data);
  $("message").focus();
});

$("close").addEventListener("submit", (event) => {
  event.preventDefault();
  const code = $("code").value === "" ? undefined : Number($("code").value);
  const reason = $("reason").value;
  fail("close", "code", "");
  fail("close", "reason", "");
  if (code !== undefined && code !== 1000 && (code < 3000 || code > 4999)) {
    fail("close", "code", "The browser lets a page send only 1000 and 3000 to 4999.");
  } else if (code === undefined && reason !== "") {
    fail("close", "code", "A reason needs a code.");
  } else if (encoder.encode(reason).length > maxReason) {
    fail("close", "reason", `A reason has at most ${maxReason} bytes.`);
  } else {
    close(code, reason);
  }
});

$("message").addEventListener("input", showSize);
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("send").requestSubmit();
  }
});
for (const radio of $("send").elements.type) radio.addEventListener("change", convert);
$("reason").addEventListener("input", () => {
  $("reason-size").textContent = `${encoder.encode($("reason").value).length} of ${maxReason} bytes`;
});
$("endpoint").addEventListener("change", () => showState("closed", "not connected"));
$("clear").addEventListener("click", () => {
  $("rows").replaceChildren();
  $("empty").hidden = false;
  totals.sent = totals.received = 0;
  $("totals").textContent = "";
});

showSize();
showState("closed", "not connected");
