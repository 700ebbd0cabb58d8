"use strict";
// Start: read the data, fill the controls, draw; and where a server keeps the page up to date, ask it.

function drawAll() {
  drawFront();
  drawLatency();
  drawRounds();
  drawParts();
  drawCurves();
  drawExits();
}

function listen(id, event, action) {
  const place = document.getElementById(id);
  if (place) place.addEventListener(event, action);
}

function begin() {
  const before = document.getElementById("axis") && run.axis ? run.axis.metric : null;
  run.data = JSON.parse(document.getElementById("data").textContent);
  const select = document.getElementById("axis");
  if (select && before) for (const option of select.options) if (option.value === before) select.value = before;
  const choose = () => {
    run.axis = run.data.axes.find((axis) => select && axis.metric === select.value) || run.data.axes[0] || null;
  };
  choose();
  listen("axis", "change", () => { choose(); drawFront(); drawExits(); });
  listen("parts-metric", "change", drawParts);
  document.querySelectorAll("[data-limit]").forEach((input) => input.addEventListener("input", drawFront));
  listen("reset", "click", () => {
    document.querySelectorAll("[data-limit]").forEach((input) => { input.value = input.defaultValue; });
    drawFront();
  });
  listen("all", "click", () => {
    document.querySelectorAll("[data-limit]").forEach((input) => { input.value = ""; });
    drawFront();
  });
  document.querySelectorAll("tr[data-id]").forEach((row) => row.addEventListener("click", () => pick(row.dataset.id)));
  document.documentElement.classList.add("scripted");
  drawAll();
}

// A live page: the server says by a tag whether the run has changed; what the reader typed stays.
async function refresh() {
  try {
    const answer = await fetch("/", { cache: "no-cache" });
    const tag = answer.headers.get("ETag");
    if (!answer.ok) throw new Error(answer.statusText);
    const offline = document.getElementById("offline");
    if (offline) offline.hidden = true;
    if (run.tag && tag !== run.tag) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const typed = new Map([...document.querySelectorAll("[data-limit]")].map((input) => [input.dataset.limit, input.value]));
      document.querySelectorAll(".plot.drawn").forEach((place) => window.Plotly.purge(place));
      const axis = run.axis;
      for (const part of ["top", "main", "data"]) document.getElementById(part).replaceWith(document.importNode(page.getElementById(part), true));
      document.querySelectorAll("[data-limit]").forEach((input) => { if (typed.has(input.dataset.limit)) input.value = typed.get(input.dataset.limit); });
      run.axis = axis;
      begin();
    }
    run.tag = tag;
  } catch (error) {
    const offline = document.getElementById("offline");
    if (offline) offline.hidden = false;
  }
}

if (window.Plotly) {
  begin();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  if (document.body.dataset.live) {
    refresh();
    setInterval(refresh, Number(document.body.dataset.live));
  }
}
