// What a Gaussian update of one scale shows of itself in bf16, exactly: opdlib/metrics/nulls.py, for the browser.
// A magnitude is known by its bf16 bits without the sign, 0 to 0x7f7f: eight bits of exponent, seven of mantissa.
"use strict";

function opdlibNulls() {
  const REACH = 9; // standard deviations beyond which nothing is summed
  const STEPS = 16; // grid steps that are summed one by one; beyond, the grid is fine beside the scale

  const GRID = new Float64Array(0x7f80);
  const bits = new Uint32Array(1), float = new Float32Array(bits.buffer);
  for (let code = 0; code < GRID.length; code++) {
    bits[0] = code << 16;
    GRID[code] = float[0];
  }

  /** 1 - erf(x), to about 1e-15: a series near zero, a continued fraction beyond. */
  function erfc(x) {
    if (x < 0) return 2 - erfc(-x);
    if (x > 27) return 0;
    const square = x * x;
    if (x < 2.4) {
      let term = x, sum = x;
      for (let n = 1; term > 1e-17 * sum; n++) {
        term *= (2 * square) / (2 * n + 1);
        sum += term;
      }
      return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-square) * sum;
    }
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / 2 / (x + fraction);
    return Math.exp(-square) / Math.sqrt(Math.PI) / (x + fraction);
  }

  /** The standard normal's share below x. */
  const below = (x) => 0.5 * erfc(-x * Math.SQRT1_2);

  /** The grid's number at a signed index; past its end the last step goes on. */
  function point(index) {
    const size = Math.abs(index), last = GRID.length - 1;
    const value = size <= last ? GRID[size] : GRID[last] + (size - last) * (GRID[last] - GRID[last - 1]);
    return index < 0 ? -value : value;
  }

  /** P(changed) of a weight of this magnitude; 0 at scale 0. */
  function changed(code, scale) {
    if (!(scale > 0)) return 0;
    const w = GRID[code];
    return below(-0.5 * (point(code + 1) - w) / scale) + below(-0.5 * (w - point(code - 1)) / scale);
  }

  /** E[delta^2] of a weight of this magnitude, in the unit of the weights squared. */
  function energy(code, scale) {
    const w = GRID[code], step = point(code + 1) - w;
    if (REACH * scale > STEPS * step) return scale * scale + (step * step) / 12;
    let total = 0;
    for (const direction of [1, -1]) {
      let beyond = 0.5 * Math.abs(point(code + direction) - w);
      for (let j = 1; j < 4 * STEPS; j++) {
        const here = Math.abs(point(code + direction * j) - w);
        const after = 0.5 * (here + Math.abs(point(code + direction * (j + 1)) - w));
        total += here * here * (below(-beyond / scale) - below(-after / scale));
        if (after > REACH * scale) break;
        beyond = after;
      }
    }
    return total;
  }

  /** Sum of E[delta^2] over weights: `counts` by magnitude. Inside a binade far from its ends, all have the same. */
  function totalEnergy(counts, scale) {
    let total = 0;
    for (let first = 0; first < GRID.length; first += 128) {
      const step = GRID[first + 1] - GRID[first];
      const reach = Math.ceil((REACH * scale) / step) + 2;
      let inner = 0;
      for (let code = first; code < first + 128; code++) {
        if (!counts[code]) continue;
        if (code - first >= reach && first + 128 - code >= reach) inner += counts[code];
        else total += counts[code] * energy(code, scale);
      }
      if (inner) total += inner * energy(first + 64, scale);
    }
    return total;
  }

  /** The scale whose rounded update has this energy on average: secant steps in the logarithm, to 1e-10. */
  function scaleOfEnergy(counts, size, wanted) {
    if (!(wanted > 0)) return 0;
    const miss = (log) => Math.log(Math.max(totalEnergy(counts, Math.exp(log)), 1e-300) / wanted);
    let low = 0.5 * Math.log(wanted / size) - 1, high = low + 2;
    let below_ = miss(low), above = miss(high);
    while (below_ > 0) below_ = miss((low -= 2));
    while (above < 0) above = miss((high += 2));
    for (let n = 0; n < 100 && high - low > 1e-10; n++) {
      let middle = low - (below_ * (high - low)) / (above - below_);
      if (n % 3 === 2 || !(middle > low && middle < high)) middle = 0.5 * (low + high);
      const found = miss(middle);
      if (found === 0) return Math.exp(middle);
      if (found < 0) [low, below_] = [middle, found];
      else [high, above] = [middle, found];
      if (Math.abs(found) < 1e-11) return Math.exp(middle);
    }
    return Math.exp(0.5 * (low + high));
  }

  /**
   * The numbers of weights, given as pairs [magnitude, count] with ascending magnitudes: the share that changes, by
   * binade (Map of exponent bits -> [weights, expected changes]), and the coverage of the `share` smallest weights.
   */
  function visibility(magnitudes, scale, share) {
    let size = 0, expected = 0;
    const binades = new Map();
    const chances = magnitudes.map(([code, count]) => {
      const chance = changed(code, scale);
      const binade = binades.get(code >> 7) || [0, 0];
      binades.set(code >> 7, [binade[0] + count, binade[1] + count * chance]);
      size += count;
      expected += count * chance;
      return chance;
    });
    let left = Math.ceil(Math.round(share * size * 1e9) / 1e9), inside = 0;
    magnitudes.forEach(([, count], i) => {
      const taken = Math.min(count, left);
      inside += taken * chances[i];
      left -= taken;
    });
    return { size, expected, changed: expected / size, binades, low: expected > 0 ? inside / expected : NaN };
  }

  return { GRID, erfc, changed, energy, totalEnergy, scaleOfEnergy, visibility };
}

if (typeof module !== "undefined") module.exports = opdlibNulls;
