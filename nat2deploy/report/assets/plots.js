"use strict";
// Drawing: what every picture of the page shares, and all pictures but the front.

const run = { data: null };
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function colours() {
  return ["front", "mark", "good", "third", "faint", "quiet"].map(colour);
}

// Plotly reads some tags in texts; what comes from files must not make any.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function shown(value, axis) {
  if (value === null || value === undefined) return "–";
  return Number((value * axis.factor).toPrecision(4)) + (axis.unit ? " " + plain(axis.unit) : "");
}

function percent(share) {
  return (100 * share).toFixed(2) + " %";
}

function layout(more) {
  const line = { gridcolor: colour("line"), linecolor: colour("faint"), zerolinecolor: colour("line"), automargin: true };
  const result = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("faint"), font: { color: colour("ink") }, align: "left" },
    margin: { l: 60, r: 16, t: 16, b: 50 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hovermode: "closest",
    ...more,
  };
  for (const key of Object.keys(result)) if (/^[xy]axis\d*$/.test(key)) result[key] = { ...line, ...result[key] };
  return result;
}

function title(text) {
  return { title: { text: plain(text) } };
}

// Draw into the element of an id; its still picture goes. Returns the element, or null where there is none.
function plot(id, traces, more) {
  const place = document.getElementById(id);
  if (!place || !traces.length) return null;
  if (!place.classList.contains("drawn")) {
    place.textContent = "";
    place.classList.add("drawn");
  }
  const options = { responsive: true, displayModeBar: false };
  window.Plotly.react(place, traces, layout(more), options);
  return place;
}

function drawLatency() {
  const pairs = run.data.pairs;
  if (!pairs.length) return;
  const ends = [0.95 * Math.min(...pairs.map((p) => p.measured)), 1.05 * Math.max(...pairs.map((p) => p.measured))];
  const band = 0.05;
  const traces = [
    { x: ends, y: ends.map((v) => v * (1 - band)), mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false },
    { x: ends, y: ends.map((v) => v * (1 + band)), mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: colour("band"), hoverinfo: "skip", name: "±5 %" },
    { x: ends, y: ends, mode: "lines", line: { color: colour("faint"), width: 1 }, hoverinfo: "skip", showlegend: false },
  ];
  const groups = [...new Set(pairs.map((p) => p.role + "\n" + p.target))];
  groups.forEach((group, index) => {
    const [role, target] = group.split("\n");
    const some = pairs.filter((p) => p.role === role && p.target === target);
    const held = role !== "front";
    traces.push({
      x: some.map((p) => p.measured),
      y: some.map((p) => p.predicted),
      error_x: {
        type: "data", symmetric: false, thickness: 1, width: 0,
        array: some.map((p) => (p.high === null ? 0 : p.high - p.measured)),
        arrayminus: some.map((p) => (p.low === null ? 0 : p.measured - p.low)),
      },
      mode: "markers", type: "scatter",
      name: plain((held ? "held-out networks" : "front") + (target ? ", " + target : "")),
      marker: { color: held ? colour("faint") : colours()[index % 4], symbol: held ? "x-thin-open" : SYMBOLS[index % SYMBOLS.length], size: 8 },
      text: some.map((p) => `<b>${plain(p.id || "held-out network")}</b><br>predicted ${p.predicted.toFixed(4)} ms<br>measured ${p.measured.toFixed(4)} ms<br>${(100 * (p.predicted / p.measured - 1)).toFixed(1)} % off`),
      hovertemplate: "%{text}<extra></extra>",
    });
  });
  plot("plot-latency", traces, { xaxis: title("measured latency (ms)"), yaxis: title("predicted latency (ms)") });
}

function drawRounds() {
  const panels = [["hypervolume", "hypervolume", "front"], ["best", "best top-1", "mark"], ["tau", "Kendall tau", "good"]]
    .map(([key, name, shade]) => [key, name, shade, run.data.rounds.filter((r) => r[key] !== null)])
    .filter((panel) => panel[3].length);
  const narrow = window.innerWidth < 640;
  const more = { showlegend: false, grid: { rows: narrow ? panels.length : 1, columns: narrow ? 1 : panels.length, pattern: "independent" } };
  const traces = panels.map(([key, name, shade, rounds], index) => {
    const suffix = index ? String(index + 1) : "";
    const last = !narrow || index === panels.length - 1;
    more["xaxis" + suffix] = { ...title(last ? "round" : ""), dtick: rounds.length > 12 ? undefined : 1 };
    more["yaxis" + suffix] = { ...title(name), tickformat: key === "best" ? ".2%" : undefined };
    const values = rounds.map((r) => r[key]);
    if (Math.min(...values) === Math.max(...values)) more["yaxis" + suffix].range = [values[0] - 0.01, values[0] + 0.01];
    return {
      x: rounds.map((r) => r.round), y: rounds.map((r) => r[key]), xaxis: "x" + suffix, yaxis: "y" + suffix,
      mode: "lines+markers", line: { color: colour(shade) }, marker: { symbol: SYMBOLS[index] },
      text: rounds.map((r) => `round ${r.round}<br>${name} ${key === "best" ? percent(r[key]) : r[key].toFixed(4)}` + (key === "tau" && r.surrogate ? "<br>" + plain(r.surrogate) : "") + (r.evaluations ? `<br>${r.evaluations} evaluations` : "")),
      hovertemplate: "%{text}<extra></extra>",
    };
  });
  plot("plot-search", traces, more);
}

function drawParts() {
  const { metrics, names, networks } = run.data.parts;
  if (!metrics.length) return;
  const select = document.getElementById("parts-metric");
  const axis = metrics[(select && select.selectedIndex) || 0];
  const shades = [...colours().slice(0, 4), "#999933", "#56b4e9", "#b0506a", "#888888"];
  const shapes = ["", "/", ".", "x", "\\", "-", "+", "|"];
  const traces = names.map((name, index) => ({
    type: "bar", orientation: "h", name: plain(name),
    y: Object.keys(networks).map(plain),
    x: Object.values(networks).map((parts) => parts.filter((part) => part.name === name).reduce((sum, part) => sum + (part.costs[axis.metric] || 0) * axis.factor, 0)),
    marker: { color: shades[index % shades.length], pattern: { shape: shapes[index % shapes.length], size: 6, solidity: 0.25 } },
    hovertemplate: `<b>%{y}</b><br>${plain(name)}: %{x:.4g} ${plain(axis.unit)}<extra></extra>`,
  }));
  plot("plot-stages", traces, { barmode: "stack", xaxis: title(axis.label), yaxis: { autorange: "reversed", type: "category" } });
}

function drawCurves() {
  const curves = run.data.curves.map((curve) => ({ ...curve, first: curve.epochs.filter((e) => e.phase === 1) }));
  const losses = curves.some((curve) => curve.first.some((e) => e.training_loss !== null));
  const narrow = window.innerWidth < 640;
  const traces = [];
  curves.forEach((curve, index) => {
    const line = { color: colours()[index % 6] };
    const marker = { symbol: SYMBOLS[index % SYMBOLS.length] };
    const add = (key, words, more) => {
      const some = curve.first.filter((e) => e[key] !== null);
      const told = (e) => `epoch ${Number(e.epoch.toFixed(2))}<br>${words} ${key === "top1" ? percent(e[key]) : e[key].toFixed(4)}` + (e.learning_rate === null ? "" : `<br>learning rate ${e.learning_rate.toPrecision(3)}`);
      traces.push({
        x: some.map((e) => e.epoch), y: some.map((e) => e[key]), text: some.map(told),
        mode: "lines+markers", name: plain(curve.id), legendgroup: String(index), hovertemplate: "%{text}<extra>%{fullData.name}</extra>", ...more,
      });
    };
    add("top1", "validation top-1", { line: { ...line, dash: ["solid", "dash", "dot"][Math.floor(index / 6) % 3] }, marker });
    if (!losses) return;
    const below = { xaxis: "x2", yaxis: "y2", showlegend: false };
    add("loss", "validation loss", { ...below, line, marker });
    add("training_loss", "training loss", { ...below, mode: "lines", line: { ...line, dash: "dash" } });
  });
  const more = { xaxis: title("epoch"), yaxis: { ...title("validation top-1"), tickformat: ".1%" } };
  if (losses) {
    more.grid = { rows: narrow ? 2 : 1, columns: narrow ? 1 : 2, pattern: "independent" };
    more.xaxis2 = title("epoch");
    more.yaxis2 = title(narrow ? "loss" : "loss (dashed: training)");
  }
  plot("plot-finetuning", traces, more);
}

function drawExits() {
  const axis = run.axis;
  if (!axis || !run.data.many_exits) return;
  const judged = [...run.data.points, ...run.data.front].filter((p) => axis.metric in p.values);
  const names = [...new Set(judged.map((p) => p.exit))].sort();
  const traces = names.map((name, index) => {
    const some = judged.filter((p) => p.exit === name);
    return {
      x: some.map((p) => p.values[axis.metric] * axis.factor), y: some.map((p) => p.top1), mode: "markers", type: "scatter",
      name: "ends at " + plain(name), marker: { symbol: SYMBOLS[index % SYMBOLS.length], color: colours()[index % 6], size: 7, opacity: 0.8 },
      text: some.map((p) => plain(p.id)), hovertemplate: `<b>%{text}</b><br>%{y:.2%} at %{x:.4g} ${plain(axis.unit)}<extra></extra>`,
    };
  });
  for (const tuned of run.data.exits) {
    const some = tuned.states.filter((s) => axis.metric in s.costs);
    if (some.length) traces.push({
      x: some.map((s) => s.costs[axis.metric] * axis.factor), y: some.map((s) => s.top1), mode: "markers", type: "scatter",
      name: "exits of " + plain(tuned.id), marker: { symbol: some.map((s) => (s.kept ? "star" : "star-open")), size: some.map((s) => (s.kept ? 14 : 9)), color: colour("ink") },
      text: some.map((s) => "exits " + s.exits.join("+") + (s.kept ? ", kept" : "")), hovertemplate: `%{text}<br>%{y:.2%} at %{x:.4g} ${plain(axis.unit)}<extra></extra>`,
    });
  }
  plot("plot-exits", traces, { xaxis: title(axis.label), yaxis: { ...title("top-1"), tickformat: ".0%" } });
}
