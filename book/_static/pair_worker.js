// Two checkpoints in safetensors files, read in slices and compared in view bf16: what a worker runs. Nothing leaves it.
"use strict";

function opdlibPair(nulls, names) {
  const ABSOLUTE = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4];
  const RELATIVE = [1e-4, 1e-3, 1e-2];
  const LOW = 0.1; // the share of the smallest weights whose coverage is told
  const SLICE = 1 << 22; // coordinates that are in memory at a time, of each side
  const BLOCK = 1 << 12; // squares that are added before the compensated sum takes over
  const BYTES = { BF16: 2, F16: 2, F32: 4 };

  class PairError extends Error {}

  const VALUE = new Float64Array(1 << 16); // bf16 code -> number
  const HALF = new Uint16Array(1 << 16); // fp16 code -> bf16 code
  const HALF_VALUE = new Float64Array(1 << 16);
  {
    const bits = new Uint32Array(1), float = new Float32Array(bits.buffer);
    for (let code = 0; code < 1 << 16; code++) {
      bits[0] = code << 16;
      VALUE[code] = float[0];
      const sign = code & 0x8000 ? -1 : 1, exponent = (code >> 10) & 31, mantissa = code & 1023;
      HALF_VALUE[code] = sign * (exponent === 31 ? (mantissa ? NaN : Infinity)
        : exponent ? (1 + mantissa / 1024) * 2 ** (exponent - 15) : mantissa * 2 ** -24);
      float[0] = HALF_VALUE[code];
      HALF[code] = rounded(bits[0]);
    }
  }

  /** The bf16 code of float32 bits: to nearest, ties to even. */
  function rounded(bits) {
    return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
  }

  /** A sum of many positive numbers with the error of its last addition (Neumaier). */
  class Sum {
    constructor() {
      this.total = 0;
      this.rest = 0;
    }
    add(x) {
      const next = this.total + x;
      this.rest += Math.abs(this.total) >= Math.abs(x) ? this.total - next + x : x - next + this.total;
      this.total = next;
      return this;
    }
    get value() {
      return this.total + this.rest;
    }
  }
  const summed = (values) => values.reduce((sum, x) => sum.add(x), new Sum()).value;

  // Reading.

  async function headerOf(file) {
    if (file.size < 8) throw new PairError(`${file.name}: ${file.size} bytes; wanted a safetensors file.`);
    const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
    if (length > 1e8 || 8 + length > file.size) {
      throw new PairError(`${file.name}: does not start like a safetensors file. Wanted one with the extension .safetensors.`);
    }
    try {
      return [JSON.parse(await file.slice(8, 8 + length).text()), 8 + length];
    } catch {
      throw new PairError(`${file.name}: its header is no JSON; the file may be cut short. Copy or download it again.`);
    }
  }

  /** Name -> where the tensor lies, of all files of one side; and whether config.json ties the head. */
  async function open(files, side) {
    const tensors = new Map();
    for (const file of files.filter((f) => f.name.endsWith(".safetensors"))) {
      const [header, start] = await headerOf(file);
      for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
        if (name === "__metadata__") continue;
        if (tensors.has(name)) throw new PairError(`${name} is in ${tensors.get(name).file.name} and in ${file.name}; wanted the shards of one checkpoint.`);
        const size = shape.reduce((a, b) => a * b, 1);
        if (start + offsets[1] > file.size) throw new PairError(`${file.name}: ends before ${name} does; copy or download it again.`);
        tensors.set(name, { file, dtype, shape, size, start: start + offsets[0] });
      }
    }
    if (!tensors.size) throw new PairError(`${side}: no safetensors file among ${files.length} files. Wanted model.safetensors or its shards.`);
    let tied = false;
    const config = files.find((f) => f.name === "config.json");
    if (config) {
      const said = JSON.parse(await config.text());
      tied = (said.tie_word_embeddings ?? said.text_config?.tie_word_embeddings) === true;
    }
    return { side, tensors, tied };
  }

  async function read({ file, dtype, start }, from, to) {
    const width = BYTES[dtype];
    const buffer = await file.slice(start + from * width, start + to * width).arrayBuffer();
    return dtype === "F32" ? new Uint32Array(buffer) : new Uint16Array(buffer);
  }

  function codesOf(raw, dtype) {
    if (dtype === "BF16") return raw;
    const codes = new Uint16Array(raw.length);
    if (dtype === "F16") for (let i = 0; i < raw.length; i++) codes[i] = HALF[raw[i]];
    else for (let i = 0; i < raw.length; i++) codes[i] = rounded(raw[i]);
    return codes;
  }

  /** Does a stored tensor hold more than bf16 can show of it? */
  function isOffGrid(raw, dtype) {
    if (dtype === "F32") return raw.some((bits) => bits & 0xffff);
    return dtype === "F16" && raw.some((code) => HALF_VALUE[code] !== VALUE[HALF[code]]);
  }

  function valuesOf(raw, dtype) {
    if (dtype === "F32") return new Float32Array(raw.buffer);
    const table = dtype === "F16" ? HALF_VALUE : VALUE;
    return Float64Array.from(raw, (code) => table[code]);
  }

  // Names, as opdlib/checkpoints/names.py reads them.

  function canonical(name) {
    for (const [prefix, meaning] of names.prefixes) if (name.startsWith(prefix)) return meaning + name.slice(prefix.length);
    return name;
  }

  function parse(name) {
    const segments = name.split(".");
    const vision = segments.some((s) => names.vision.includes(s));
    const body = segments.length > 1 && ["weight", "bias"].includes(segments.at(-1)) ? segments.slice(0, -1) : segments;
    const module = body.at(-1);
    const parent = body.slice(0, -1).reverse().find((s) => s in names.parents);
    const at = body.findIndex((s, i) => names.layers.includes(s) && /^\d+$/.test(body[i + 1] ?? ""));
    const block = module.includes("norm") || module.startsWith("ln_") ? "norm"
      : parent ? names.parents[parent] : names.blocks[module] ?? "other";
    return { layer: at < 0 || vision ? null : Number(body[at + 1]), block: vision ? "vision" : block };
  }

  /** Pairs of tensors in the order of the source's names. */
  function align(source, trained) {
    const isHead = (name) => canonical(name).endsWith("lm_head.weight");
    const tied = source.tied || trained.tied;
    const [ours, theirs] = [source, trained].map(
      ({ tensors }) => new Map([...tensors.keys()].filter((n) => !(tied && isHead(n))).map((n) => [canonical(n), n])),
    );
    const alone = [...ours].filter(([key]) => !theirs.has(key)), others = [...theirs].filter(([key]) => !ours.has(key));
    if (alone.length || others.length) {
      const said = [[alone, "before"], [others, "after"]].filter(([missing]) => missing.length).map(
        ([missing, side]) => `only ${side}: ${missing.slice(0, 5).map(([, n]) => n).join(", ")}${missing.length > 5 ? ` and ${missing.length - 5} more` : ""}`,
      );
      throw new PairError(`Tensors without a partner, ${said.join("; ")}. Every tensor must be on both sides; opd measure can leave some out with --skip.`);
    }
    const keys = [...ours.keys()].sort((a, b) => (ours.get(a) < ours.get(b) ? -1 : 1));
    return keys.map((key) => {
      const name = ours.get(key), a = source.tensors.get(name), b = trained.tensors.get(theirs.get(key));
      if (String(a.shape) !== String(b.shape)) {
        throw new PairError(`${name}: [${a.shape.join(", ")}] before, [${b.shape.join(", ")}] after; a difference needs equal shapes.`);
      }
      for (const [side, { dtype }] of [["before", a], ["after", b]]) {
        if (!(dtype in BYTES)) throw new PairError(`${name}: stored as ${dtype} ${side}; wanted one of ${Object.keys(BYTES).join(", ")}. Dequantize the checkpoint first.`);
      }
      return { name, a, b, ...parse(name) };
    });
  }

  // Measuring.

  function refuse(name, side, codes) {
    const bad = codes.filter((c) => (c & 0x7f80) === 0x7f80).length;
    throw new PairError(`${name} holds ${bad} NaN or Inf ${side}; wanted finite weights. Copy or save the checkpoint again.`);
  }

  async function measure({ name, a, b, layer, block }, progress) {
    const counts = new Uint32Array(1 << 15), updated = new Uint32Array(1 << 15);
    const slices = [];
    for (let from = 0; from < a.size; from += SLICE) slices.push([from, Math.min(from + SLICE, a.size)]);
    const kept = slices.length === 1 ? await read(a, 0, a.size) : null; // of several, the source is read twice
    let sourceOff = false, trainedOff = false;
    for (const [from, to] of slices) {
      const raw = kept ?? (await read(a, from, to)), codes = codesOf(raw, a.dtype);
      sourceOff ||= isOffGrid(raw, a.dtype);
      for (let i = 0; i < codes.length; i++) counts[codes[i] & 0x7fff]++;
      if (counts.subarray(0x7f80).some(Boolean)) refuse(name, "before", codes);
    }
    const squares = [];
    for (let code = 0; code < 0x7f80; code++) if (counts[code]) squares.push(counts[code] * nulls.GRID[code] ** 2);
    const sourceEnergy = summed(squares);
    const rms = Math.sqrt(sourceEnergy / a.size);
    const thresholds = [...ABSOLUTE, ...RELATIVE.map((tau) => tau * rms)];
    const order = thresholds.map((_, i) => i).sort((i, j) => thresholds[i] - thresholds[j]);
    const ascending = Float64Array.from(order, (i) => thresholds[i]);
    const first = new Float64Array(ascending.length + 1); // differences above each threshold and up to the next

    const energy = new Sum(), stored = new Sum();
    const exact = a.dtype === "BF16" && b.dtype === "BF16";
    let changed = 0;
    for (const [from, to] of slices) {
      const [before, after] = await Promise.all([kept ?? read(a, from, to), read(b, from, to)]);
      const x = codesOf(before, a.dtype), y = codesOf(after, b.dtype), size = x.length;
      for (let start = 0; start < size; start += BLOCK) {
        const end = Math.min(start + BLOCK, size);
        let part = 0;
        for (let i = start; i < end; i++) {
          const u = x[i], v = y[i];
          if (u === v) continue;
          const d = Math.abs(VALUE[v] - VALUE[u]);
          if (d === 0) continue; // -0 and +0
          changed++;
          updated[u & 0x7fff]++;
          part += d * d;
          let t = 0;
          while (t < ascending.length && d > ascending[t]) t++;
          first[t]++;
        }
        if (!Number.isFinite(part)) refuse(name, "after", y);
        energy.add(part);
      }
      trainedOff ||= b.dtype === "F32" && isOffGrid(after, b.dtype);
      if (!exact) {
        const p = valuesOf(before, a.dtype), q = valuesOf(after, b.dtype);
        for (let start = 0; start < size; start += BLOCK) {
          let part = 0;
          for (let i = start, end = Math.min(start + BLOCK, size); i < end; i++) part += (q[i] - p[i]) ** 2;
          stored.add(part);
        }
      }
      progress(size);
    }
    const within = new Array(thresholds.length);
    let up = a.size - changed;
    order.forEach((place, t) => (within[place] = up += first[t]));

    // What bf16 shows of an update over a source that is off its grid depends on digits that the counts do not have.
    const scaleFrom = sourceOff ? "" : trainedOff ? "fp32" : "rounded norm";
    const scale = sourceOff ? NaN : trainedOff ? Math.sqrt(stored.value / a.size) : nulls.scaleOfEnergy(counts, a.size, energy.value);
    const magnitudes = [];
    counts.forEach((count, code) => count && magnitudes.push([code, count]));
    const noise = nulls.visibility(magnitudes, scale, LOW);
    const known = (value) => (sourceOff ? NaN : value);
    const binades = new Map();
    for (const [code, count] of magnitudes) {
      const binade = binades.get(code >> 7) || [0, 0];
      binades.set(code >> 7, [binade[0] + count, binade[1] + updated[code]]);
    }
    let left = Math.ceil(Math.round(LOW * a.size * 1e9) / 1e9), inside = 0;
    for (const [code, count] of magnitudes) {
      const taken = Math.min(count, left);
      inside += (updated[code] * taken) / count; // ties at the cut are shared out evenly
      left -= taken;
    }
    return {
      name, layer, block, size: a.size, shape: a.shape, unchanged: a.size - changed,
      absolute: within.slice(0, ABSOLUTE.length), relative: within.slice(ABSOLUTE.length),
      energy: energy.value, sourceEnergy, scale, scaleFrom,
      low: changed ? inside / changed : NaN, expected: { changes: known(noise.expected), low: known(noise.low) },
      binades: [...binades].map(([exponent, [count, n]]) => [exponent, count, n, known(noise.binades.get(exponent)[1])]),
    };
  }

  /** The sums over some tensors; shares in [0, 1], NaN of nothing. */
  function together(tensors) {
    const total = (of) => tensors.reduce((sum, t) => sum + of(t), 0);
    const size = total((t) => t.size), energy = summed(tensors.map((t) => t.energy));
    const sourceEnergy = summed(tensors.map((t) => t.sourceEnergy));
    return {
      tensors: tensors.length, size, energy, sourceEnergy,
      relNorm: Math.sqrt(energy / sourceEnergy),
      unchanged: total((t) => t.unchanged) / size,
      absolute: ABSOLUTE.map((_, i) => total((t) => t.absolute[i]) / size),
      relative: RELATIVE.map((_, i) => total((t) => t.relative[i]) / size),
      expectedUnchanged: 1 - total((t) => t.expected.changes) / size,
    };
  }

  function median(values) {
    const known = values.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b), middle = known.length / 2;
    return known.length ? (known[Math.floor(middle - 0.5 + (known.length % 2) / 2)] + known[Math.floor(middle)]) / 2 : NaN;
  }

  function grouped(tensors, key) {
    const groups = new Map();
    for (const tensor of tensors) groups.set(tensor[key], [...(groups.get(tensor[key]) ?? []), tensor]);
    return groups;
  }

  /** Compare two lists of files. `progress(done, all)` counts coordinates. Throws PairError, in words. */
  async function compare(before, after, progress) {
    const source = await open(before, "before"), trained = await open(after, "after");
    const pairs = align(source, trained);
    const all = pairs.reduce((sum, { a }) => sum + a.size, 0), tensors = [];
    let done = 0;
    for (const pair of pairs) tensors.push(await measure(pair, (n) => progress((done += n), all)));
    const matrices = tensors.filter((t) => t.shape.length === 2 && t.unchanged < t.size);
    const binades = new Map();
    for (const t of tensors) {
      for (const [exponent, ...own] of t.binades) {
        binades.set(exponent, own.map((n, i) => n + (binades.get(exponent)?.[i] ?? 0)));
      }
    }
    const blocks = grouped(tensors, "block"), layers = grouped(tensors.filter((t) => t.layer !== null), "layer");
    return {
      thresholds: { absolute: ABSOLUTE, relative: RELATIVE },
      model: together(tensors),
      low: median(matrices.map((t) => t.low)),
      expectedLow: median(matrices.map((t) => t.expected.low)),
      scaleFrom: [...new Set(tensors.filter((t) => t.unchanged < t.size).map((t) => t.scaleFrom))].join(" or "),
      blocks: names.order.filter((b) => blocks.has(b)).map((b) => ({ name: b, ...together(blocks.get(b)) })),
      layers: [...layers.keys()].sort((a, b) => a - b).map((n) => ({ name: n, ...together(layers.get(n)) })),
      binades: [...binades].sort(([a], [b]) => a - b).map(([exponent, own]) => [exponent, ...own]),
      tensors,
    };
  }

  return { compare, PairError };
}

if (typeof module !== "undefined") module.exports = opdlibPair;
