"use strict";
// The dashboard: reads one stream of overviews and keeps the page in step with it. Text goes in as text, never as markup.

const $ = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Set only what differs, so that focus, selection and screen readers are left in peace.
function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setClass(element, name) { if (element.className !== name) element.className = name; }

// Keep `parent`'s children in step with `items`: one child a key, made once, updated in place.
function keyed(parent, items, keyOf, build, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = keyOf(item);
    let child = known.get(key);
    if (!child) { child = build(item); child.dataset.key = key; }
    known.delete(key);
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] || null);
    update(child, item);
  });
  for (const gone of known.values()) gone.remove();
}

const GiB = 1024 ** 3;
const bytes = (count) => `${(count / GiB).toFixed(count >= 10 * GiB ? 0 : 1)} GiB`;
const number = (value) => value == null ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2).replace(/\.?0+$/, "");
const tone = { alive: "good", ready: "good", ok: "good", passed: "good", lost: "bad", left: "bad", unready: "bad", failed: "bad", offline: "warn", stopping: "bad" };
const toneOf = (state) => tone[state] || "warn";

function meter(share, label) {
  const bar = make("div", { class: "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100" }, make("span"));
  setMeter(bar, share, label);
  return bar;
}
function setMeter(bar, share, label) {
  const percent = Math.round(100 * Math.min(Math.max(share || 0, 0), 1));
  bar.setAttribute("aria-valuenow", String(percent));
  bar.setAttribute("aria-label", label);
  bar.firstChild.style.width = `${percent}%`;
}

// ---- What is happening now

function sparkline(points) {
  const high = Math.max(...points, 1);
  const line = points.map((value, at) => `${at},${(20 - 19 * value / high).toFixed(1)}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${Math.max(points.length - 1, 1)} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const curve = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  curve.setAttribute("points", line);
  svg.append(curve);
  return svg;
}

function showTiles(seen) {
  const rates = seen.rates;
  const tiles = [
    ["Requests a second", number(rates.requests_per_s), rates.requests],
    ["Tokens a second", number(rates.tokens_per_s), rates.tokens],
    ["First token, p50", rates.first_token_ms_p50 == null ? "–" : `${number(rates.first_token_ms_p50)} ms`],
    ["First token, p99", rates.first_token_ms_p99 == null ? "–" : `${number(rates.first_token_ms_p99)} ms`],
    ["Running", String(seen.running)],
    ["Waiting", String(seen.waiting)],
    ["Errors a second", number(rates.errors_per_s)],
    ["Retries · ejections", `${seen.retries} · ${seen.ejections}`],
  ];
  keyed($("tiles"), tiles, (tile) => tile[0],
    (tile) => make("li", {}, make("div", { class: "name" }, tile[0]), make("div", { class: "value" })),
    (item, tile) => {
      setText(item.children[1], tile[1]);
      if (!tile[2]) return;
      const curve = sparkline(tile[2]);
      if (item.children[2]) item.children[2].replaceWith(curve); else item.append(curve);
    });
}

// ---- Nodes

function showNodes(nodes) {
  $("no-nodes").hidden = nodes.length > 0;
  keyed($("nodes"), nodes, (node) => node.node_id,
    (node) => make("li", { class: "card" },
      make("h3", {}, make("span", {}, node.node_id), make("span", { class: "state" })),
      make("p", { class: "quiet" }), make("ul", { class: "devices" })),
    (card, node) => {
      const badge = card.children[0].children[1];
      setText(badge, node.state); setClass(badge, `state ${toneOf(node.state)}`);
      const heard = node.state === "lost" ? `, last heard of ${Math.round(node.seen_s_ago)} s ago` : "";
      setText(card.children[1], `${node.pools.length} pool${node.pools.length === 1 ? "" : "s"}, ${node.cpu_cores} cores, version ${node.version}${heard}`);
      showDevices(card.children[2], node.devices);
    });
}

function showDevices(list, devices) {
  keyed(list, devices, (device) => device.id,
    () => make("li", {}, make("div", { class: "label" }, make("span"), make("span", { class: "quiet" })), meter(0, "")),
    (item, device) => {
      const used = device.memory_total_bytes - device.memory_free_bytes;
      const heat = device.temperature_c == null ? "" : `, ${Math.round(device.temperature_c)} °C`;
      setText(item.children[0].children[0], device.kind === "cpu" ? "CPU" : `${device.index}: ${device.name}`);
      setText(item.children[0].children[1], `${bytes(used)} of ${bytes(device.memory_total_bytes)}${heat}`);
      setMeter(item.children[1], used / device.memory_total_bytes, `Memory of ${device.name}`);
    });
}

// ---- Pools

function poolRow(pool) {
  const buttons = make("td", {}, ...["logs", "why"].map((what) => {
    const button = make("button", { type: "button", "aria-label": `${what === "logs" ? "Logs" : "Reasons"} of ${pool.pool_id}` }, what === "logs" ? "Logs" : "Why");
    button.addEventListener("click", () => showDetail(pool, what));
    return button;
  }));
  const cells = Array.from({ length: 6 }, () => make("td"));
  cells[2].append(make("span", { class: "state" }), make("div", { class: "cause" }));
  cells[3].append(make("span"), meter(0, ""));
  return make("tr", {}, make("th", { scope: "row" }, pool.pool_id), ...cells, buttons);
}

function showPools(pools) {
  $("no-pools").hidden = pools.length > 0;
  $("pools").hidden = pools.length === 0;
  keyed($("pool-rows"), pools, (pool) => `${pool.node_id}/${pool.pool_id}`, poolRow, (row, pool) => {
    const cells = row.children;
    const slots = pool.replicas.reduce((sum, one) => sum + one.slots_total, 0);
    const busy = pool.replicas.reduce((sum, one) => sum + Math.max(one.in_flight, one.slots_total - one.slots_free), 0);
    const ready = pool.replicas.filter((one) => one.state === "ready").length;
    const ejected = pool.replicas.filter((one) => one.is_ejected).length;
    const progress = pool.progress == null || pool.state === "ready" ? "" : ` ${Math.round(pool.progress * 100)} %`;
    setText(cells[1], pool.model);
    setText(cells[2], pool.node_id);
    setText(cells[3].children[0], pool.state + progress);
    setClass(cells[3].children[0], `state ${toneOf(pool.state)}`);
    setText(cells[3].children[1], pool.state === "ready" ? "" : pool.last_error || "");
    setText(cells[4].children[0], `${busy} of ${slots}`);
    setMeter(cells[4].children[1], slots ? busy / slots : 0, `Busy slots of ${pool.pool_id}`);
    setText(cells[5], String(pool.waiting));
    setText(cells[6], `${ready} of ${pool.replicas.length} ready${ejected ? `, ${ejected} ejected` : ""}`);
  });
}

async function showDetail(pool, what) {
  $("detail-title").textContent = `${what === "logs" ? "Logs" : "Reasons"}: ${pool.pool_id} on ${pool.node_id}`;
  $("detail-text").textContent = "…";
  $("detail").showModal();
  const path = `/v2/nodes/${encodeURIComponent(pool.node_id)}/pools/${encodeURIComponent(pool.pool_id)}/${what}`;
  try {
    const answer = await fetch(path);
    let text = await answer.text();
    if (!answer.ok) text = JSON.parse(text).error.message;
    else if (what === "why") text = JSON.stringify(JSON.parse(text), null, 2);
    $("detail-text").textContent = text || "(nothing yet)";
  } catch (error) {
    $("detail-text").textContent = String(error);
  }
}

// ---- Proof bundles

async function showProofs() {
  const answer = await fetch("/v2/proofs");
  if (!answer.ok) return;
  const proofs = await answer.json();
  $("proofs-part").hidden = proofs.length === 0;
  keyed($("proofs"), proofs, (proof) => proof.folder,
    (proof) => make("li", { class: "card" },
      make("h3", {}, make("span", {}, `${proof.kind} ${proof.run_id}`), make("span", { class: "state" })),
      make("p", { class: "quiet" }), make("p", { class: "quiet" })),
    (card, proof) => {
      const badge = card.children[0].children[1];
      setText(badge, proof.outcome); setClass(badge, `state ${toneOf(proof.outcome)}`);
      const counts = Object.entries(proof.counts).filter(([, count]) => count > 0).map(([what, count]) => `${count} ${what}`);
      setText(card.children[1], `${new Date(proof.started_at * 1000).toLocaleString()}${counts.length ? ": " + counts.join(", ") : ""}`);
      setText(card.children[2], proof.folder);
    });
}

// ---- The stream of overviews

let source = null;

function show(seen) {
  const status = $("status");
  setText(status, seen.status); setClass(status, `pill ${toneOf(seen.status)}`);
  const queens = seen.queens > 1 ? `, ${seen.queens} queens${seen.leader ? ", this one leads" : ""}` : "";
  setText($("facts"), `version ${seen.version}, store ${seen.store}${queens}`);
  setText($("admin-url"), location.origin);
  showTiles(seen);
  showNodes(seen.nodes);
  showPools(seen.pools);
  showModels(seen.models.map((model) => model.name));
}

function connect() {
  source = new EventSource("/v2/overview/stream");
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.onerror = () => {
    setText($("status"), "reconnecting"); setClass($("status"), "pill warn");
    if (source.readyState === EventSource.CLOSED) setTimeout(start, 2000);
  };
}

// ---- Logging in

async function start() {
  let session;
  try {
    session = await (await fetch("/session")).json();
  } catch {
    setText($("status"), "unreachable"); setClass($("status"), "pill bad");
    setTimeout(start, 2000);
    return;
  }
  $("login").hidden = session.known;
  $("main").hidden = !session.known;
  $("logout").hidden = session.open || !session.known;
  if (session.known) { if (source) source.close(); connect(); showProofs(); }
  else { setText($("status"), "log in"); setClass($("status"), "pill warn"); $("token").focus(); }
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/login", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token: $("token").value }),
  });
  $("token").value = "";
  if (answer.ok) { $("login-error").textContent = ""; await start(); $("main").focus(); }
  else { $("login-error").textContent = (await answer.json()).error.message; $("token").focus(); }
});

$("logout").addEventListener("click", async () => {
  if (source) source.close();
  await fetch("/logout", { method: "POST" });
  await start();
});

// ---- Trying a model

let asking = null;
let conversation = [];

function showModels(names) {
  const chosen = $("model").value;
  keyed($("model"), names, (name) => name, (name) => make("option", { value: name }, name), () => {});
  if (names.includes(chosen)) $("model").value = chosen;
  $("send").disabled = names.length === 0 || asking !== null;
}

function say(who, text) {
  const line = make("p", { class: who }, text);
  $("chat-log").append(line);
  $("chat-log").scrollTop = $("chat-log").scrollHeight;
  return line;
}

// Yield the data of each server-sent event of an answer.
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}

async function ask(model, messages, line, signal) {
  const answer = await fetch("/v2/try", {
    method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify({ model, messages, stream: true }),
  });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  for await (const data of eventsOf(answer)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    line.textContent += event.choices[0]?.delta?.content || "";
    $("chat-log").scrollTop = $("chat-log").scrollHeight;
  }
  throw new Error("the answer broke off");
}

$("chat-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("message").value.trim();
  if (!text || asking) return;
  $("message").value = "";
  conversation.push({ role: "user", content: text });
  say("you", text);
  const line = say("model", "");
  asking = new AbortController();
  $("stop").disabled = false; $("send").disabled = true;
  try {
    await ask($("model").value, conversation, line, asking.signal);
  } catch (error) {
    say("error", error.name === "AbortError" ? "stopped" : error.message);
  }
  if (line.textContent) conversation.push({ role: "assistant", content: line.textContent });
  else { line.remove(); conversation.pop(); }
  asking = null;
  $("stop").disabled = true; $("send").disabled = false;
  $("message").focus();
});

$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("chat-form").requestSubmit(); }
});
$("stop").addEventListener("click", () => asking?.abort());
$("clear").addEventListener("click", () => { conversation = []; $("chat-log").replaceChildren(); $("message").focus(); });

// ---- Light and dark

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
function showTheme() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  const dark = (chosen || (prefersDark.matches ? "dark" : "light")) === "dark";
  $("theme").setAttribute("aria-pressed", String(dark));
}
$("theme").addEventListener("click", () => {
  localStorage.setItem("theme", $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark");
  showTheme();
});
prefersDark.addEventListener("change", showTheme);

showTheme();
start();
