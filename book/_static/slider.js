// The rounding slider: how much of a Gaussian update bf16 shows, as its norm moves. Data: slider_data.js.
"use strict";

opdlib.slider = function (place) {
  const { element, percent } = opdlib, nulls = opdlibNulls();
  const { tensors, own, runs, measured, names } = opdlib.sliderData;
  const LOW = -5, HIGH = 0.5; // powers of ten of the relative norm
  // Inside a binade all magnitudes have the same chance, but for its first: two counts a binade say all.
  const histograms = tensors.map(([scale, isMatrix, binades]) => {
    const magnitudes = [];
    for (let i = 0; i < binades.length; i += 3) {
      const [exponent, end, others] = binades.slice(i, i + 3);
      if (end) magnitudes.push([exponent << 7, end]);
      if (others) magnitudes.push([(exponent << 7) | 1, others]);
    }
    return { scale, isMatrix, magnitudes };
  });

  /** What noise with the run's spread over tensors, and this norm, would show. */
  function at(norm) {
    const binades = new Map(), low = [];
    let size = 0, expected = 0;
    for (const { scale, isMatrix, magnitudes } of histograms) {
      const found = nulls.visibility(magnitudes, (scale * norm) / own.norm, 0.1);
      size += found.size;
      expected += found.expected;
      if (isMatrix) low.push(found.low);
      for (const [exponent, [n, changes]] of found.binades) {
        const [a, b] = binades.get(exponent) || [0, 0];
        binades.set(exponent, [a + n, b + changes]);
      }
    }
    low.sort((a, b) => a - b);
    const middle = low.length >> 1;
    return {
      norm, unchanged: 1 - expected / size,
      low: low.length % 2 ? low[middle] : (low[middle - 1] + low[middle]) / 2,
      binades: [...binades].map(([exponent, [n, changes]]) => [exponent - 127, n / size, changes / n]).sort((a, b) => a[0] - b[0]),
    };
  }

  const input = element("input", {
    type: "range", min: LOW, max: HIGH, step: "any", value: Math.log10(own.norm), id: "opd-norm", oninput: () => move(10 ** input.value),
  });
  const chosen = element("select", { id: "opd-run", onchange: () => chosen.value && move(Number(chosen.value)) },
    element("option", { value: "" }, "move to a run"),
    ...runs.map(({ name, norm }) => element("option", { value: norm }, `${name}, ${percent(norm)}`)));
  const norm = element("output", { for: "opd-norm" }), unchanged = element("b"), low = element("b");
  const charts = [element("div"), element("div")];
  const readout = element("p", { class: "opd-readout", "aria-live": "polite" },
    "Norm of the update, before rounding: ", norm, ". Rounding leaves ", unchanged, " of the weights as they were; of those that change, ", low,
    " are among the smallest tenth of their matrix.");
  place.replaceChildren(
    element("div", { class: "opd-controls" },
      element("label", { for: "opd-norm" }, "Norm of the update over the norm of the weights"), input,
      element("label", { for: "opd-run", class: "opd-hidden" }, "A run"), chosen),
    readout, element("div", { class: "opd-charts" }, ...charts), legend());

  function legend() {
    const regimes = [...new Set(runs.map((run) => run.regime))];
    return element("p", { class: "opd-legend" },
      ...regimes.map((regime) => element("span", {}, swatch(opdlib.sliderData.colours[regime]), regime)),
      element("span", {}, element("i", { class: "opd-dash" }), "noise of the same norm, rounded"));
  }
  function swatch(colour) {
    return element("i", { style: `background:${colour}` });
  }

  let now = at(own.norm), curve = null;

  function move(value) {
    now = at(value);
    input.value = Math.log10(value);
    draw();
  }

  function draw() {
    norm.textContent = percent(now.norm);
    unchanged.textContent = percent(now.unchanged);
    low.textContent = percent(now.low);
    input.setAttribute("aria-valuetext", `${percent(now.norm)}: ${percent(now.unchanged)} unchanged`);
    place.dataset.unchanged = now.unchanged;
    place.dataset.low = now.low;
    charts.forEach((chart, i) => chart.clientWidth && chart.replaceChildren([byNorm, byBinade][i](chart.clientWidth)));
  }

  function byNorm(width) {
    curve ??= Array.from({ length: 90 }, (_, i) => at(10 ** (LOW + ((HIGH - LOW) * i) / 89)));
    const axes = opdlib.axes({
      width, height: 300, label: "Share of the weights that stay as they were, against the norm of the update: a falling curve, and the real runs as points near it.",
      x: { label: "relative norm of the update, fp32", domain: [10 ** LOW, 10 ** HIGH], log: true, percent: true },
      y: { label: "unchanged in bf16", domain: [0, 1], percent: true },
    });
    opdlib.line(axes, curve.map((c) => c.norm), curve.map((c) => c.unchanged), { class: "null" });
    for (const run of runs) {
      const dot = opdlib.mark("circle", axes.x(run.norm), axes.y(run.unchanged), 5, { fill: opdlib.sliderData.colours[run.regime], class: "point" });
      dot.append(element("title", {}, `${run.name}: norm ${percent(run.norm)}, ${percent(run.unchanged)} unchanged`));
      axes.plot.append(dot);
    }
    const x = axes.x(now.norm);
    axes.plot.append(element("line", { x1: x, x2: x, y1: axes.y(0), y2: axes.y(1), class: "now" }));
    axes.plot.append(opdlib.mark("diamond", x, axes.y(now.unchanged), 5, { class: "here" }));
    return axes.svg;
  }

  function byBinade(width) {
    const shown = now.binades.filter(([power, share]) => power > -127 && share > 1e-5), powers = shown.map(([power]) => power);
    const axes = opdlib.axes({
      width, height: 300, label: "Share of the weights that change, by the size of the weight: noise as a curve, the run that was measured as points.",
      x: { label: "size of the weight, power of two", domain: [Math.min(...powers) - 0.5, Math.max(...powers) + 0.5] },
      y: { label: "changed in bf16", domain: [0, 1], percent: true },
    });
    opdlib.line(axes, powers, shown.map(([, , chance]) => chance), { class: "null" });
    for (const [power, share, changed] of measured) {
      if (!powers.includes(power)) continue;
      const dot = opdlib.mark("circle", axes.x(power), axes.y(changed), 4, { class: share < 0.001 ? "few" : "here" });
      dot.append(element("title", {}, `${names.own}: ${percent(changed)} of the weights from 2^${power} changed`));
      axes.plot.append(dot);
    }
    return axes.svg;
  }

  opdlib.whenResized(charts[0], draw);
  draw();
  return { at };
};

document.querySelectorAll(".opd-slider").forEach((place) => opdlib.slider(place));
