"use strict";
// The front: its cost axis, its budgets, and the table and drawings that follow them.

function limits() {
  const found = [];
  document.querySelectorAll("[data-limit]").forEach((input) => {
    const wanted = input.value.trim();
    if (wanted !== "" && Number.isFinite(Number(wanted))) found.push([input.dataset.limit, Number(wanted)]);
  });
  return found;
}

// Numbers are compared as they are shown in the fields, in the axes' units.
function keeps(network, wanted) {
  return wanted.every(([metric, limit]) => {
    if (metric === "top1") return 100 * network.top1 >= limit - 1e-9;
    const axis = run.data.axes.find((one) => one.metric === metric);
    return !(metric in network.values) || network.values[metric] * axis.factor <= limit * (1 + 1e-9);
  });
}

function described(network) {
  const lines = [`<b>${plain(network.id)}</b>`, plain(network.text || ""), `validation ${percent(network.top1)}`];
  if (network.test) lines.push(`test after fine-tuning ${percent(network.test.top1)}`);
  for (const axis of run.data.axes) if (axis.metric in network.values) lines.push(`${plain(axis.name)} ${shown(network.values[axis.metric], axis)}`);
  if (network.remarks && network.remarks.length) lines.push(plain(network.remarks.join(", ")));
  return lines.filter(Boolean).join("<br>");
}

function drawFront() {
  const axis = run.axis;
  if (!axis) return;
  const wanted = limits();
  const here = run.data.front.filter((n) => axis.metric in n.values).sort((a, b) => a.values[axis.metric] - b.values[axis.metric]);
  const x = (networks) => networks.map((n) => n.values[axis.metric] * axis.factor);
  const kept = here.map((n) => keeps(n, wanted));
  const rest = run.data.points.filter((p) => axis.metric in p.values);
  const traces = [];
  if (rest.length) traces.push({
    x: x(rest), y: rest.map((p) => p.top1), mode: "markers", type: "scatter", name: "judged by the search",
    marker: { color: colour("faint"), size: 5, opacity: 0.55 },
    text: rest.map((p) => `${plain(p.id)}<br>validation ${percent(p.top1)}<br>${plain(axis.name)} ${shown(p.values[axis.metric], axis)}`), hovertemplate: "%{text}<extra></extra>",
  });
  traces.push({
    x: x(here), y: here.map((n) => n.top1), mode: "lines+markers", type: "scatter", name: "front (validation)", customdata: here.map((n) => n.id),
    line: { color: colour("front"), width: 1 },
    marker: { color: here.map((_, i) => (kept[i] ? colour("front") : colour("ground"))), line: { color: colour("front"), width: 2 }, size: here.map((n) => (n.id === run.picked ? 16 : 10)), opacity: 1, symbol: here.map((n) => (n.remarks.includes("high trade-off") ? "diamond" : "circle")) },
    text: here.map(described), hovertemplate: "%{text}<extra></extra>",
  });
  const tuned = here.filter((n) => n.test);
  if (tuned.length) traces.push({
    x: x(tuned), y: tuned.map((n) => n.test.top1), mode: "markers", type: "scatter", name: "fine-tuned (test)", customdata: tuned.map((n) => n.id),
    error_y: { type: "data", symmetric: false, thickness: 1, color: colour("mark"), array: tuned.map((n) => (n.test.high === null ? 0 : n.test.high - n.test.top1)), arrayminus: tuned.map((n) => (n.test.low === null ? 0 : n.test.top1 - n.test.low)) },
    marker: { symbol: "star", size: 13, color: colour("mark") }, text: tuned.map(described), hovertemplate: "%{text}<extra></extra>",
  });
  const limit = wanted.find(([metric]) => metric === axis.metric);
  const least = wanted.find(([metric]) => metric === "top1");
  const dash = { line: { color: colour("mark"), dash: "dash", width: 1 } };
  const shapes = [];
  if (limit) shapes.push({ type: "line", x0: limit[1], x1: limit[1], yref: "paper", y0: 0, y1: 1, ...dash });
  if (least) shapes.push({ type: "line", y0: least[1] / 100, y1: least[1] / 100, xref: "paper", x0: 0, x1: 1, ...dash });
  const place = plot("plot-front", traces, { shapes, xaxis: title(axis.label), yaxis: { ...title("top-1"), tickformat: ".1%" } });
  if (place && !place.dataset.heard) {
    place.dataset.heard = "yes";
    place.on("plotly_click", (event) => event.points[0].customdata && pick(event.points[0].customdata));
  }
  const words = document.getElementById("front-count");
  const all = run.data.front.filter((n) => keeps(n, wanted));
  if (words) words.textContent = `${all.length} of ${run.data.front.length} networks of the front keep these limits.`;
  document.querySelectorAll("tr[data-id]").forEach((row) => {
    row.hidden = !all.some((n) => n.id === row.dataset.id);
  });
}

function pick(id) {
  run.picked = id;
  document.querySelectorAll("tr[data-id]").forEach((row) => row.classList.toggle("picked", row.dataset.id === id));
  const sketch = document.getElementById("network-" + id);
  for (let outer = sketch && sketch.parentElement; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
  const place = document.getElementById("picked");
  const drawing = sketch && sketch.querySelector("svg");
  if (place && drawing) place.replaceChildren(drawing.cloneNode(true));
  const network = run.data.front.find((n) => n.id === id);
  const words = document.getElementById("picked-words");
  if (words && network) words.textContent = `${network.id}: ${network.text}`;
  drawFront();
}
