// A small chart as SVG: two axes with ticks, and places for points. Its ink is the page's, so that it fits light and dark.
"use strict";

window.opdlib = window.opdlib || {};

opdlib.element = function (tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "path", "circle", "rect", "text", "title", "polygon"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

/** Digits of a share as percent: two below a tenth of a percent, else one. */
opdlib.percent = function (share) {
  if (!Number.isFinite(share)) return "-";
  const size = Math.abs(100 * share);
  return `${(100 * share).toFixed(size === 0 || size >= 10 ? 1 : size >= 0.1 ? 2 : Math.min(8, 1 - Math.floor(Math.log10(size))))}%`;
};

/** A number in three digits; with `percent`, a share. */
opdlib.number = function (value, percent) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  if (percent) return opdlib.percent(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
};

opdlib.ticks = function ([low, high], log, most) {
  if (log) {
    const powers = [];
    for (let p = Math.ceil(Math.log10(low) - 1e-9); p <= Math.log10(high) + 1e-9; p++) powers.push(10 ** p);
    const every = Math.ceil(powers.length / most);
    return powers.filter((_, i) => i % every === 0);
  }
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((n) => n * power >= rough) ?? 10);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n++) found.push(n * step);
  return found;
};

/** Ends of an axis around these values. */
opdlib.domain = function (values, log, share) {
  const known = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
  let low = Math.min(...known), high = Math.max(...known);
  if (!known.length) return log ? [0.1, 1] : [0, 1];
  if (log) return [low / 1.3, high * 1.3];
  if (share && low >= 0 && high <= 1 && high > 0.3) return [0, 1];
  const room = 0.05 * (high - low || Math.abs(high) || 1);
  return [low >= 0 && low < 3 * room ? 0 : low - room, high + room];
};

/**
 * Axes in an SVG of `width` x `height` pixels: { svg, plot, x, y }, the last two map values to pixels. An axis is
 * { label, domain, log, percent }.
 */
opdlib.axes = function ({ width, height, x, y, label }) {
  const { element } = opdlib;
  const left = 62, right = 12, top = 10, bottom = 46;
  const scale = ({ domain: [low, high], log }, from, to) => {
    const at = log ? Math.log : (v) => v;
    return (v) => from + ((at(v) - at(low)) / (at(high) - at(low))) * (to - from);
  };
  const px = scale(x, left, width - right), py = scale(y, height - bottom, top);
  const svg = element("svg", { width, height, role: "img", "aria-label": label, class: "opd-chart" });
  const text = (v, axis) => (axis.percent ? `${Number((100 * v).toPrecision(6))}%` : opdlib.number(v));
  for (const tick of opdlib.ticks(x.domain, x.log, Math.max(2, Math.floor((width - left) / 85)))) {
    svg.append(element("line", { x1: px(tick), x2: px(tick), y1: top, y2: height - bottom, class: "grid" }));
    svg.append(element("text", { x: px(tick), y: height - bottom + 17, "text-anchor": "middle" }, text(tick, x)));
  }
  for (const tick of opdlib.ticks(y.domain, y.log, Math.max(2, Math.floor(height / 60)))) {
    svg.append(element("line", { x1: left, x2: width - right, y1: py(tick), y2: py(tick), class: "grid" }));
    svg.append(element("text", { x: left - 7, y: py(tick) + 4, "text-anchor": "end" }, text(tick, y)));
  }
  svg.append(element("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle", class: "label" }, x.label));
  const middle = (top + height - bottom) / 2;
  svg.append(element("text", { x: 13, y: middle, "text-anchor": "middle", class: "label", transform: `rotate(-90 13 ${middle})` }, y.label));
  const plot = svg.appendChild(element("g"));
  return { svg, plot, x: px, y: py };
};

/** A line through values; what is no number breaks it. */
opdlib.line = function (axes, xs, ys, attributes) {
  let d = "";
  xs.forEach((v, i) => {
    const p = axes.x(v), q = axes.y(ys[i]);
    d += Number.isFinite(p) && Number.isFinite(q) ? `${d === "" || d.endsWith("|") ? "M" : "L"}${p.toFixed(1)} ${q.toFixed(1)}` : "|";
  });
  return axes.plot.appendChild(opdlib.element("path", { d: d.replaceAll("|", ""), fill: "none", ...attributes }));
};

/** A mark of one of four shapes at a place in pixels. */
opdlib.mark = function (shape, x, y, r, attributes) {
  const around = (angles, reach) => angles.map((a) => `${x + reach * r * Math.sin(a)},${y - reach * r * Math.cos(a)}`).join(" ");
  const turns = (n, from = 0) => Array.from({ length: n }, (_, i) => from + (2 * Math.PI * i) / n);
  if (shape === "circle") return opdlib.element("circle", { cx: x, cy: y, r, ...attributes });
  const points = { diamond: around(turns(4), 1.3), square: around(turns(4, Math.PI / 4), 1.25), triangle: around(turns(3), 1.35) }[shape];
  return opdlib.element("polygon", { points, ...attributes });
};

/** Draw again when the place gets another width. */
opdlib.whenResized = function (place, draw) {
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(place.clientWidth);
    if (now && now !== width) draw((width = now));
  }).observe(place);
};
