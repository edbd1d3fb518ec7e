// Your pair, in this page: two checkpoints are read in slices by a worker and compared; nothing leaves the browser.
"use strict";

opdlib.pair = function (place) {
  const { element, percent, number } = opdlib, { names, paper } = opdlib.pairData;
  const files = { before: [], after: [] };
  const status = element("p", { class: "opd-readout", role: "status" }), bar = element("progress", { max: 1, value: 0, hidden: "", "aria-label": "read so far" });
  const found = element("div"), start = element("button", { type: "button", disabled: "", onclick: run }, "Compare");
  place.replaceChildren(
    element("div", { class: "opd-drops" }, side("before", "Before training"), side("after", "After training")),
    element("p", {}, start, " ", bar), status, found);

  // A worker of a page that is a file must come from a blob.
  const code = `"use strict";${opdlibNulls};${opdlibPair};
    const pair = opdlibPair(opdlibNulls(), ${JSON.stringify(names)});
    onmessage = async ({ data: { before, after } }) => {
      let last = 0;
      const progress = (done, all) => { if (done === all || Date.now() - last > 100) { last = Date.now(); postMessage({ progress: done / all }); } };
      try { postMessage({ result: await pair.compare(before, after, progress) }); }
      catch (error) { postMessage({ error: error instanceof pair.PairError ? error.message : String(error) }); }
    };`;

  function side(name, title) {
    const said = element("p", { class: "opd-said" }, "no files yet");
    const take = (list) => {
      files[name] = list.filter((f) => f.name.endsWith(".safetensors") || f.name === "config.json");
      const weights = files[name].filter((f) => f.name.endsWith(".safetensors"));
      said.textContent = weights.length ? `${weights.map((f) => f.name).slice(0, 3).join(", ")}${weights.length > 3 ? ` and ${weights.length - 3} more` : ""}, ${number(weights.reduce((n, f) => n + f.size, 0) / 1e6)} MB` : "no safetensors file among them";
      start.disabled = !(files.before.length && files.after.length);
    };
    const input = (id, attributes, text) => [
      element("label", { for: id }, text),
      element("input", { type: "file", id, ...attributes, onchange: ({ target }) => take([...target.files]) }),
    ];
    const zone = element("div", {
      class: "opd-drop", ondragover: (event) => event.preventDefault(),
      ondrop: async (event) => { event.preventDefault(); take(await dropped(event.dataTransfer)); },
    }, element("strong", {}, title), element("p", {}, "Drop model.safetensors, all shards, or a folder here, or choose:"),
    ...input(`opd-${name}`, { multiple: "", accept: ".safetensors,.json" }, "files"),
    ...input(`opd-${name}-folder`, { webkitdirectory: "" }, "a folder"), said);
    return zone;
  }

  /** The files that were dropped, those in folders too. */
  async function dropped(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.length) return [...transfer.files];
    const inside = async (entry) => {
      if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
      const reader = entry.createReader(), all = [];
      for (;;) {
        const some = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!some.length) break;
        all.push(...some);
      }
      return (await Promise.all(all.map(inside))).flat();
    };
    return (await Promise.all(entries.map(inside))).flat();
  }

  function run() {
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" })), worker = new Worker(address);
    const began = performance.now();
    const end = () => { worker.terminate(); URL.revokeObjectURL(address); start.disabled = false; bar.hidden = true; };
    start.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    found.replaceChildren();
    status.textContent = "Reading ...";
    status.classList.remove("opd-error");
    worker.onmessage = ({ data: { progress, result, error } }) => {
      if (progress !== undefined) { bar.value = progress; return; }
      end();
      if (error) { status.classList.add("opd-error"); status.textContent = error; return; }
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      status.textContent = `${result.model.size.toLocaleString("en")} weights in ${result.tensors.length} tensors, ${seconds} seconds.`;
      opdlib.pair.result = result;
      show(result);
    };
    worker.onerror = (event) => { end(); status.classList.add("opd-error"); status.textContent = event.message; };
    worker.postMessage(files);
  }

  function table(caption, head, rows) {
    return element("div", { class: "opd-table", tabindex: "0", role: "group", "aria-label": caption },
      element("table", { class: "opd" }, element("caption", {}, caption),
        element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, ...rows.map(([first, ...cells]) => element("tr", {}, element("th", { scope: "row" }, first),
          ...cells.map((cell) => element("td", { class: "opd-number" }, cell)))))));
  }

  function show({ thresholds, model, low, expectedLow, scaleFrom, blocks, layers, binades }) {
    const short = (v) => v.toExponential(0), key = (v) => short(v).replace("e-", "e-0");
    const fixed = (digits) => (v) => (Number.isFinite(v) ? `${(100 * v).toFixed(digits)}%` : "-"); // one precision a column
    const share = fixed(2), norm = fixed(4);
    const head = ["", "relative norm", "unchanged", ...thresholds.absolute.map((v) => `within ${short(v)}`), ...thresholds.relative.map((v) => `within ${short(v)} RMS`)];
    const cells = (m) => [norm(m.relNorm), ...[m.unchanged, ...m.absolute, ...m.relative].map(share)];
    const published = paper.map((p) => [p.pair, norm(p.rel_norm), share(p.exact_zero),
      ...thresholds.absolute.map((v) => share(p[`sparsity.${key(v)}`])), ...thresholds.relative.map((v) => share(p[`sparsity_rms.${key(v)}`]))]);
    const parts = (rows) => rows.map((m) => [String(m.name), m.size.toLocaleString("en"), norm(m.relNorm), share(m.unchanged), share(m.expectedUnchanged)]);
    const partHead = ["", "weights", "relative norm", "unchanged", "noise would leave"];
    found.replaceChildren(
      element("p", { class: "opd-answer" }, element("b", {}, percent(model.unchanged)), " of the weights are unchanged in bf16; of those that changed, ",
        element("b", {}, percent(low)), " are among the smallest tenth of their matrix (median). ",
        ...(Number.isNaN(model.expectedUnchanged)
          ? ["What noise would do is not told: the weights before training are finer than bf16."]
          : ["Noise of the same size, rounded, would leave ", element("b", {}, percent(model.expectedUnchanged)), " unchanged, and ",
            element("b", {}, percent(expectedLow)), ` of its changes would be there. Its size in each tensor is known from the ${scaleFrom} of the update.`])),
      table("Your pair beside the paper's, view bf16", head, [["your pair", ...cells(model)], ...published]),
      table("By block", partHead, parts(blocks)),
      element("details", {}, element("summary", {}, `Show all ${layers.length} layers`), table("By layer", partHead, parts(layers))),
      element("details", {}, element("summary", {}, `Show all ${binades.length} sizes of weights`), table("By size of the weight, in powers of two",
        ["from", "weights", "changed", "noise would change"],
        binades.map(([exponent, n, changed, expected]) => [exponent ? `2^${exponent - 127}` : "0", n.toLocaleString("en"), share(changed / n), share(expected / n)]))),
      element("p", {}, "Directions, rank, masks and the rest take decompositions: ",
        element("code", {}, "opd measure --source BEFORE --trained AFTER --name my-pair"), "."));
  }
};

document.querySelectorAll(".opd-pair").forEach((place) => opdlib.pair(place));
