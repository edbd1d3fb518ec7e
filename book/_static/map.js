// The map: every run of the study and every pair of the paper, by any two numbers. Data: map_data.js.
"use strict";

opdlib.map = function (place) {
  const { element, number } = opdlib, { quantities, points, curve, colours, shapes } = opdlib.mapData;
  const choice = (id, chosen) => element("select", { id, onchange: draw },
    ...Object.entries(quantities).map(([key, { label }]) => element("option", key === chosen ? { value: key, selected: "" } : { value: key }, label)));
  const xs = choice("opd-x", place.dataset.x || "rel_norm"), ys = choice("opd-y", place.dataset.y || "exact_zero");
  const sets = [...new Set(points.map((p) => p.set))], hidden = new Set();
  const chart = element("div", { class: "opd-map-chart" }), told = element("p", { class: "opd-readout", "aria-live": "polite" });
  const boxes = sets.map((set) => {
    const box = element("input", { type: "checkbox", checked: "", onchange: () => (box.checked ? hidden.delete(set) : hidden.add(set), draw()) });
    return element("label", {}, box, element("span", {}, mark(shapes[set])), set);
  });
  place.replaceChildren(
    element("div", { class: "opd-controls" },
      element("label", { for: "opd-y" }, "up"), ys, element("label", { for: "opd-x" }, "across"), xs),
    element("div", { class: "opd-legend" }, ...boxes),
    element("div", { class: "opd-legend" }, ...Object.entries(colours).map(([regime, colour]) =>
      element("span", {}, element("i", { style: `background:${colour}` }), regime)),
      element("span", {}, element("i", { class: "opd-dash" }), "noise, or chance")),
    chart, told);

  function mark(shape) {
    const svg = element("svg", { width: 14, height: 14, "aria-hidden": "true", class: "opd-chart" });
    svg.append(opdlib.mark(shape, 7, 7, 5, { class: "here" }));
    return svg;
  }

  function tell(point) {
    const values = [xs.value, ys.value].map((key) => `${quantities[key].label} ${number(point[key], quantities[key].percent)}`);
    told.textContent = `${point.name} (${point.regime}, ${point.set}${point.recipe ? `; ${point.recipe}` : ""}): ${values.join(", ")}.`;
  }

  function draw() {
    const width = chart.clientWidth;
    if (!width) return;
    const [x, y] = [xs.value, ys.value].map((key) => ({ key, ...quantities[key] }));
    const known = points.filter((p) => !hidden.has(p.set) && [x, y].every(({ key, log }) => Number.isFinite(p[key]) && (!log || p[key] > 0)));
    for (const axis of [x, y]) axis.domain = opdlib.domain(known.map((p) => p[axis.key]), axis.log, axis.percent);
    const axes = opdlib.axes({
      width, height: Math.min(460, Math.max(320, 0.7 * width)), x, y,
      label: `${known.length} runs and pairs: ${y.label} against ${x.label}.`,
    });
    const inside = (axis, values) => values.map((v) => (v >= axis.domain[0] && v <= axis.domain[1] ? v : NaN));
    if (x.key in curve && y.key in curve) opdlib.line(axes, inside(x, curve[x.key]), inside(y, curve[y.key]), { class: "null" });
    for (const [axis, other, horizontal] of [[y, x, true], [x, y, false]]) {
      if (axis.chance === undefined || inside(axis, [axis.chance]).some(Number.isNaN)) continue;
      const ends = [axis.chance, axis.chance];
      opdlib.line(axes, horizontal ? other.domain : ends, horizontal ? ends : other.domain, { class: "null" });
    }
    for (const p of known) {
      const dot = opdlib.mark(shapes[p.set], axes.x(p[x.key]), axes.y(p[y.key]), p.set === "paper" ? 6 : 4.5, {
        fill: colours[p.regime], class: "point", onpointerenter: () => tell(p), onclick: () => tell(p),
      });
      dot.append(element("title", {}, p.name));
      axes.plot.append(dot);
    }
    chart.replaceChildren(axes.svg);
    place.dataset.shown = known.length;
    told.textContent = "Point at a mark: it says which run it is, and how it was trained.";
  }

  opdlib.whenResized(chart, draw);
};

document.querySelectorAll(".opd-map").forEach((place) => opdlib.map(place));
