// Puts what changed into the page, and draws its charts. Without this script the page is loaded again every few seconds.
"use strict";

const RETRY_MS = 3000;

// Makes `now` what `next` is, node by node, so that whatever stays the same is left alone: focus, selection, an open
// <details>, a drawn chart.
function morph(now, next) {
  if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) {
    now.replaceWith(next);
  } else if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.nodeValue !== next.nodeValue) now.nodeValue = next.nodeValue;
  } else {
    morphAttributes(now, next);
    if (!now.classList.contains("plot")) morphChildren(now, next);
  }
}

function morphAttributes(now, next) {
  const isPlot = now.classList.contains("plot");
  for (const { name } of [...now.attributes]) {
    if (!next.hasAttribute(name) && name !== "open" && !isPlot) now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (isPlot && name === "class") continue;
    if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
}

function morphChildren(now, next) {
  const wanted = [...next.childNodes];
  while (now.childNodes.length > wanted.length) now.lastChild.remove();
  wanted.forEach((child, place) => {
    if (place < now.childNodes.length) morph(now.childNodes[place], child);
    else now.append(child);
  });
}

function show(sections) {
  for (const [name, html] of Object.entries(sections)) {
    const now = document.querySelector(`[data-section="${name}"]`);
    const next = now.cloneNode(false);
    next.innerHTML = html;
    morphChildren(now, next);
  }
  if ("charts" in sections) drawAll();
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function draw(plot) {
  const { data, layout } = JSON.parse(plot.dataset.figure);
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, fixedrange: true, automargin: true };
  const traces = data.map((trace) => ({
    type: "scatter", mode: "lines", name: trace.name, x: trace.x, y: trace.y,
    line: { color: colour(trace.colour), width: 2 },
  }));
  Plotly.react(plot, traces, {
    height: 240, margin: { l: 48, r: 12, t: 34, b: 28 }, dragmode: false, hovermode: "x unified", autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, font: { family: "system-ui, sans-serif", size: 12, color: colour("soft") },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    xaxis: { ...axis, showgrid: false, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { displayModeBar: false, displaylogo: false, responsive: true });
}

function drawAll() {
  if (!window.Plotly) return;
  document.querySelectorAll(".plot").forEach(draw);
  // Where plotly measures texts.
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
}

function follow() {
  const events = new EventSource(document.body.dataset.events);
  const unreachable = document.getElementById("unreachable");
  events.addEventListener("sections", (event) => {
    unreachable.hidden = true;
    show(JSON.parse(event.data));
  });
  events.addEventListener("error", () => {
    unreachable.hidden = false;
    // Refused rather than interrupted: the browser does not ask again by itself.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS);
  });
}

document.getElementById("plotly").addEventListener("load", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
follow();
