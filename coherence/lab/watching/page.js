"use strict";
// Draws the state that came with the page, then what its server has new. Text from runs enters as text, never as HTML.
const WIDTH = 420, HEIGHT = 220, LEFT = 56, RIGHT = 10, TOP = 8, BOTTOM = 30;
const COLOURS = 8, DASHES = ["", "6 3", "2 3"], EVERY = 2000;
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const byId = (id) => document.getElementById(id);
let state = null, hidden = new Set(), chosen = 0, failures = 0;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

const colour = (i) => `var(--c${i % COLOURS})`;
const dash = (i) => DASHES[Math.floor(i / COLOURS) % DASHES.length];

function number(value) {
  if (value === null || value === undefined) return "nan";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

const short = (value) => {
  const size = Math.abs(value);
  if (size >= 1e9 || (size !== 0 && size < 1e-3)) return value.toExponential(0).replace("e+", "e");
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
};

// Scales: a function from values to pixels, with its ticks.
function scale(low, high, from, to, log) {
  if (log) {
    const [a, b] = [Math.log10(low), Math.log10(high)], span = b - a || 1;
    const put = (v) => from + ((Math.log10(Math.max(v, low)) - a) / span) * (to - from);
    const ticks = [], step = Math.max(1, Math.ceil(span / 5));
    for (let e = Math.ceil(a - 1e-9); e <= b + 1e-9; e += step) ticks.push(10 ** e);
    if (ticks.length < 2) { // less than a decade or two: numbers between
      for (let e = Math.floor(a); e <= b; e += 1) ticks.push(...[1, 1.5, 2, 3, 5, 7].map((m) => m * 10 ** e).filter((v) => v >= low && v <= high));
    }
    return { put, ticks: [...new Set(ticks)] };
  }
  const span = high - low || 1, rough = span / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return { put: (v) => from + ((v - low) / span) * (to - from), ticks };
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (v !== null) { if (v < low) low = v; if (v > high) high = v; }
  return [low, high];
}

function stepsScale(lists) {
  let [low, high] = extent(lists.flat());
  const log = byId("logx").checked;
  if (log) low = Math.max(low, 1);
  if (!(high > low)) high = low + 1;
  return scale(low, high, LEFT, WIDTH - RIGHT, log);
}

function axes(svg, x, y, bottom = true) {
  for (const tick of y ? y.ticks : []) {
    const at = y.put(tick);
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    svg.append(shape("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of x.ticks) {
    const at = x.put(tick);
    svg.append(shape("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    if (bottom) svg.append(shape("text", { x: at, y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, short(tick)));
  }
  if (bottom) svg.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, "step"));
  svg.append(shape("rect", { class: "frame", x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM }));
}

const canvas = () => shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });

function path(x, y, curve) {
  let line = "", pen = "M";
  curve.x.forEach((step, i) => {
    const value = curve.y[i];
    if (value === null) { pen = "M"; return; }
    line += `${pen}${x.put(step).toFixed(1)} ${y.put(value).toFixed(1)}`;
    pen = "L";
  });
  return line.replace(/M(\S+ \S+)(?=M|$)/g, "M$1h.01"); // a point by itself
}

function drawCurves(figure, curves, name) {
  const svg = canvas(), values = curves.flatMap((c) => c.y).filter((v) => v !== null);
  if (!values.length) { figure.append(element("p", {}, "nan throughout")); return; }
  let [low, high] = extent(values);
  const log = low > 0 && !/accuracy$/.test(name) && (/m_coherence/.test(name) || high > 20 * low);
  if (!log) {
    const pad = (high - low || Math.abs(high) || 1) * 0.05;
    [low, high] = [low - pad, high + pad];
  } else if (low === high) high = low * 1.1;
  const x = stepsScale(curves.map((c) => c.x)), y = scale(low, high, HEIGHT - BOTTOM, TOP, log);
  axes(svg, x, y);
  for (const curve of curves) {
    svg.append(shape("path", { class: "curve", d: path(x, y, curve), style: `stroke:${colour(curve.look)}`, "stroke-dasharray": dash(curve.look) }));
  }
  const cursor = shape("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  svg.append(cursor);
  const box = element("div", { class: "values", hidden: "" });
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect(), at = ((event.clientX - area.left) / area.width) * WIDTH;
    const lines = curves.map((curve) => {
      let best = 0;
      curve.x.forEach((step, i) => { if (Math.abs(x.put(step) - at) < Math.abs(x.put(curve.x[best]) - at)) best = i; });
      return [curve.x[best], `${curve.label}: ${number(curve.y[best])} at ${curve.x[best]}`];
    });
    const place = x.put(lines[0][0]);
    cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); cursor.setAttribute("visibility", "visible");
    box.textContent = lines.map((line) => line[1]).join("\n");
    box.hidden = false;
    const right = place > WIDTH / 2;
    box.style.left = right ? "" : `${(place / WIDTH) * 100 + 2}%`;
    box.style.right = right ? `${100 - (place / WIDTH) * 100 + 2}%` : "";
    box.style.top = "3.4rem";
  });
  svg.addEventListener("pointerleave", () => { box.hidden = true; cursor.setAttribute("visibility", "hidden"); });
  figure.append(svg, box);
}

function key(labels) {
  const made = element("div", { class: "key" });
  labels.forEach(([text, look]) => made.append(element("span", {}, swatch(look), text)));
  return made;
}

function swatch(look) {
  const svg = shape("svg", { width: 22, height: 8, viewBox: "0 0 22 8", class: "swatch", style: "width:22px;display:inline-block" });
  svg.append(shape("line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 2.4, style: `stroke:${colour(look)}`, "stroke-dasharray": dash(look) }));
  return svg;
}

function mix(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1), i = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[i].map((c, k) => Math.round(c + (VIRIDIS[i + 1][k] - c) * (place - i)));
}

function picture(rows, share) {
  const columns = rows[0].length, canvas = element("canvas", { width: columns, height: rows.length });
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows.length);
  rows.forEach((row, i) => row.forEach((value, j) => {
    const [r, g, b] = value === null ? [128, 128, 128] : mix(share(value));
    pixels.data.set([r, g, b, value === null ? 90 : 255], 4 * (i * columns + j));
  }));
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

// Columns of equal width: their steps are written below.
function columnsAxis(svg, steps) {
  const inner = WIDTH - LEFT - RIGHT, shown = [0, 0.25, 0.5, 0.75, 1].map((s) => Math.round(s * (steps.length - 1)));
  for (const i of new Set(shown)) {
    svg.append(shape("text", { x: LEFT + ((i + 0.5) / steps.length) * inner, y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, short(steps[i])));
  }
  svg.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, "step"));
}

function image(svg, href, y, height) {
  svg.append(shape("image", { href, x: LEFT, y, width: WIDTH - LEFT - RIGHT, height, preserveAspectRatio: "none" }));
}

function drawLayers(figure, panel) {
  const svg = canvas(), [low, high] = extent(panel.values.flat());
  if (low === Infinity) { figure.append(element("p", {}, "nan throughout")); return; }
  const log = low > 0 && high > 5 * low;
  const at = (v) => (log ? Math.log(v / low) / (Math.log(high / low) || 1) : (v - low) / (high - low || 1));
  const count = panel.parts.length, height = HEIGHT - TOP - BOTTOM, every = Math.ceil((count * 12) / height);
  image(svg, picture(panel.values, at), TOP, height);
  panel.parts.forEach((part, i) => {
    if (i % every) return;
    const text = shape("text", { x: LEFT - 5, y: TOP + ((i + 0.5) / count) * height + 4, "text-anchor": "end" }, part.length > 9 ? `…${part.slice(-8)}` : part);
    text.append(shape("title", {}, part));
    svg.append(text);
  });
  columnsAxis(svg, panel.x);
  figure.append(svg, element("figcaption", {}, `${panel.label}: from ${number(low)} (dark) to ${number(high)} (bright)${log ? ", logarithmic" : ""}`));
}

// A picture a layer: each column is a histogram, of numbers from -limit to limit.
function drawHistograms(figure, panel) {
  const count = panel.layers.length, height = HEIGHT - TOP - BOTTOM;
  panel.layers.slice(0, 8).forEach((layer) => {
    const svg = canvas(), [, high] = extent(layer.values.flat());
    if (high > 0) image(svg, picture(layer.values, (v) => Math.sqrt(v / high)), TOP, height);
    for (const [text, y] of [[short(layer.limit), TOP + 10], ["0", TOP + height / 2 + 4], [short(-layer.limit), TOP + height]]) {
      svg.append(shape("text", { x: LEFT - 5, y, "text-anchor": "end" }, text));
    }
    columnsAxis(svg, panel.x);
    figure.append(element("div", {}, element("div", { class: "key" }, layer.layer), svg));
  });
  figure.append(element("figcaption", {}, `Share of a layer's numbers in each bin: bright for many${count > 8 ? `; the first 8 of ${count} layers` : ""}`));
}

function drawRuns() {
  const table = byId("runs"), differ = [...new Set(state.runs.flatMap((run) => Object.keys(run.settings)))].slice(0, 6);
  const head = element("tr", {}, ...["run", "state", "step", "records", ...differ].map((text) => element("th", { scope: "col" }, text)));
  const rows = state.runs.map((run, i) => {
    const box = element("input", { type: "checkbox", "aria-label": `show ${run.name}` });
    box.checked = !hidden.has(run.path);
    box.addEventListener("change", () => { if (box.checked) hidden.delete(run.path); else hidden.add(run.path); draw(); });
    const name = element("th", { scope: "row", title: run.path }, box, " ", swatch(i), run.name);
    const step = run.step === null ? "-" : `${run.step.toLocaleString("en")}${run.steps ? ` of ${run.steps.toLocaleString("en")}` : ""}`;
    const kept = run.stride > 1 ? `${run.records.toLocaleString("en")}, 1 in ${run.stride} drawn` : run.records.toLocaleString("en");
    const bad = run.damaged ? `, ${run.damaged} damaged` : "";
    return element("tr", {}, name, element("td", {}, run.state), element("td", { class: "number" }, step), element("td", {}, kept + bad),
      ...differ.map((keyName) => element("td", {}, run.settings[keyName] ?? "absent")));
  });
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

function notes() {
  const words = [];
  const empty = state.runs.filter((run) => !run.records).map((run) => run.name);
  if (empty.length) words.push(`nothing recorded yet: ${empty.join(", ")}`);
  if (state.left_out) words.push(`${state.left_out} more runs are not followed: name fewer`);
  words.push(...state.failed);
  byId("notes").textContent = words.join(". ");
}

function drawChooser(ofRuns) {
  const select = byId("run");
  byId("chooser").hidden = ofRuns.length < 2;
  if (!ofRuns.includes(chosen)) chosen = ofRuns[0] ?? 0;
  select.replaceChildren(...ofRuns.map((i) => element("option", { value: i }, state.runs[i].name)));
  select.value = chosen;
}

function draw() {
  document.title = `${state.title} · coherence watch`;
  byId("title").textContent = state.title;
  drawRuns();
  notes();
  drawChooser([...new Set(state.panels.filter((p) => "run" in p).map((p) => p.run))]);
  const figures = [];
  for (const panel of state.panels) {
    if ("run" in panel && panel.run !== chosen) continue;
    const figure = element("figure", { "data-name": panel.name }, element("h2", {}, panel.title));
    if (panel.kind === "curves") {
      const shown = panel.curves.filter((c) => !hidden.has(state.runs[c.run].path));
      if (!shown.length) continue;
      drawCurves(figure, shown.map((c) => ({ ...c, look: c.run, label: state.runs[c.run].name })), panel.name);
    } else if (panel.kind === "groups") {
      drawCurves(figure, panel.curves.map((c, i) => ({ ...c, look: i })), panel.name);
      figure.append(key(panel.curves.map((c, i) => [c.label, i])));
    } else if (panel.kind === "layers") drawLayers(figure, panel);
    else drawHistograms(figure, panel);
    figures.push(figure);
  }
  byId("panels").replaceChildren(...figures);
  document.body.dataset.version = state.version;
  document.body.dataset.drawn ??= Math.round(performance.now()); // milliseconds since the page was asked for
}

function show(text) { byId("status").textContent = text; }

async function poll() {
  try {
    const answer = await fetch(`data.json?version=${state.version}`);
    if (answer.status === 200) { state = await answer.json(); draw(); }
    else if (answer.status !== 204) throw new Error(`status ${answer.status}`);
    failures = 0;
    show(`${state.runs.every((run) => run.state === "done") ? "all runs are done" : "following"}; looked at ${new Date().toLocaleTimeString("en-GB")}`);
  } catch (error) {
    failures += 1;
    show(`no answer from coherence watch (${error.message}); this is what it last said`);
  }
  setTimeout(poll, EVERY * Math.min(1 + failures, 15));
}

byId("logx").addEventListener("change", draw);
byId("run").addEventListener("change", (event) => { chosen = Number(event.target.value); draw(); });
byId("controls").addEventListener("submit", (event) => event.preventDefault());
state = JSON.parse(byId("data").textContent);
draw();
if (state.written) show(`written at ${state.written}`); else poll(); // a file, or a server's page
