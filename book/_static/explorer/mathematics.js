/**
 * The mathematics of the explorer: exponents and stable sets of small models, in plain JavaScript.
 *
 * A classic script without dependencies, so that the page works from a disk. It defines one global,
 * `mathematics`, and touches nothing else. It is a port of the parts of `stabcore` that the page
 * needs, and names are those of `stabcore`. In every model there are two samples (or labels) of
 * probabilities p and 1 − p, and a batch is B of them drawn with replacement.
 *
 * - Intervals are arrays [a, b], a ≤ b. Where a = b the exponent is −∞ at that point, and no
 *   neighbour of it in floating point is stable.
 * - μ is the exponent of gradient descent, λ that of SGD, "mean square" ½ log of the growth of
 *   E|θ|² ≥ λ. All are in nats per step; negative means stable.
 * - `tests/book/test_explorer_mathematics.py` compares everything with `stabcore` in a browser.
 */
const mathematics = (() => {
  "use strict";

  const EPSILON = Number.EPSILON;

  // ----------------------------------------------------------------- numbers and roots

  const float = new Float64Array(1);
  const bits = new BigInt64Array(float.buffer);

  /** Return the neighbour of x ≥ 0 in floating point on the side of `towards` ≥ 0. */
  function nextAfter(x, towards) {
    if (x === towards) return x;
    float[0] = x;
    bits[0] += x < towards ? 1n : -1n;
    return float[0];
  }

  /**
   * Return a root of f between a and b, where its signs differ, to a relative tolerance.
   *
   * Inverse quadratic interpolation where it is safe, bisection elsewhere (Chandrupatla 1997).
   */
  function findRoot(f, a, b, tolerance = 2 * EPSILON) {
    let [x1, f1, x2, f2] = [a, f(a), b, f(b)];
    if (f1 === 0) return x1;
    if (f2 === 0) return x2;
    let t = 0.5;
    for (let step = 0; step < 200; step++) {
      const x = x1 + t * (x2 - x1);
      const fx = f(x);
      let [x3, f3] = [x1, f1];
      if (fx > 0 !== f1 > 0) [x3, f3, x2, f2] = [x2, f2, x1, f1];
      [x1, f1] = [x, fx];
      const best = Math.abs(f1) < Math.abs(f2) ? x1 : x2;
      const close = tolerance * Math.abs(best) / Math.abs(x2 - x1);
      if (fx === 0 || close > 0.5) return fx === 0 ? x : best;
      const xi = (x1 - x2) / (x3 - x2);
      const phi = (f1 - f2) / (f3 - f2);
      t = 0.5;
      if (phi * phi < xi && (1 - phi) * (1 - phi) < 1 - xi) {
        t = (f1 / (f2 - f1)) * (f3 / (f2 - f3))
          + ((x3 - x1) / (x2 - x1)) * (f1 / (f3 - f1)) * (f2 / (f3 - f2));
      }
      t = Math.min(1 - close, Math.max(close, t));
    }
    return x1;
  }

  // ----------------------------------------------------------------- sums of logarithms

  /** Return log|1 − x|, also where 1 − x rounds to 1. */
  function logAbsOneMinus(x) {
    return Math.abs(x) < 0.5 ? Math.log1p(-x) : Math.log(Math.abs(1 - x));
  }

  /** f(η) = Σ w log|1 − ηc| and its slope; terms with w = 0 or c = 0 are left out. */
  class LogSum {
    constructor(weights, coefficients) {
      const used = [...coefficients.keys()].filter((m) => weights[m] > 0 && coefficients[m] !== 0);
      this.weights = Float64Array.from(used, (m) => weights[m]);
      this.coefficients = Float64Array.from(used, (m) => coefficients[m]);
      this.poles = this.coefficients.map((c) => 1 / c);
    }

    /** Return f(η): by log1p near 0, and near a pole from the distance to it. */
    value(eta) {
      let sum = 0;
      for (let m = 0; m < this.weights.length; m++) {
        const c = this.coefficients[m];
        const distance = Math.abs((eta - this.poles[m]) * c);
        if (distance === 0) return -Infinity;
        const log = Math.abs(eta * c) < 0.5 ? Math.log1p(-eta * c) : Math.log(distance);
        sum += this.weights[m] * log;
      }
      return sum;
    }

    /** Return a bound on the rounding error of f(η), whose ηc are known to a few roundings. */
    rounding(eta) {
      let sum = 0;
      for (let m = 0; m < this.weights.length; m++) {
        const x = eta * this.coefficients[m];
        const distance = Math.abs(1 - x);
        if (distance === 0) return 0;
        const relative = Math.min(4 * EPSILON * (1 + Math.abs(x)) / distance, 0.5);
        sum += this.weights[m] * (2 * relative + 4 * EPSILON * Math.abs(Math.log(distance)));
      }
      return sum;
    }

    slope(eta) {
      let sum = 0;
      for (let m = 0; m < this.weights.length; m++) sum += this.weights[m] / (eta - this.poles[m]);
      return sum;
    }

    /** Return where f, which is concave there, is largest between 0 or a pole and the next pole. */
    summit(left, right) {
      const low = nextAfter(left, right);
      const high = nextAfter(right, left);
      if (low >= high || this.slope(low) <= 0) return low;
      if (this.slope(high) >= 0) return high;
      return findRoot((eta) => this.slope(eta), low, high);
    }

    /** Return a point beyond the last pole at which f is positive. */
    beyond(last) {
      let eta = 2 * last;
      while (this.value(eta) <= 0) eta *= 2;
      return eta;
    }

    /** Return the sign change between a pole, where f is −∞, and a point where f is positive. */
    rootBeside(pole, positive) {
      const inner = nextAfter(pole, positive);
      if (inner === positive || this.value(inner) >= 0) return pole; // thinner than a rounding
      return findRoot((eta) => this.value(eta), inner, positive);
    }

    /** Return all intervals of η > 0 on which f is negative; see `negativeSteps`. */
    negative() {
      const poles = [...new Set(this.poles)].filter((x) => x > 0).sort((a, b) => a - b);
      if (poles.length === 0) return [];
      let [drift, size] = [0, 0];
      this.weights.forEach((w, m) => {
        drift -= w * this.coefficients[m];
        size += w * Math.abs(this.coefficients[m]);
      });
      let start = 0;
      if (drift > 4 * EPSILON * size) start = this.rootBeside(poles[0], this.summit(0, poles[0]));
      const intervals = [];
      poles.forEach((left, m) => {
        const last = m + 1 === poles.length;
        const summit = last ? this.beyond(left) : this.summit(left, poles[m + 1]);
        if (this.value(summit) <= 0) return;
        intervals.push([start, this.rootBeside(left, summit)]);
        if (!last) start = this.rootBeside(poles[m + 1], summit);
      });
      return intervals;
    }
  }

  /**
   * Return Σ w log|1 − ηc|, −∞ at the poles η = 1/c.
   *
   * @param {number[]} weights w ≥ 0
   * @param {number[]} coefficients c
   * @param {number} eta η
   * @returns {number}
   */
  function logSum(weights, coefficients, eta) {
    return new LogSum(weights, coefficients).value(eta);
  }

  /**
   * Return {η > 0 : Σ w log|1 − ηc| < 0}, all intervals, as `stabcore.stable_sets.negative_steps`.
   *
   * The sum f has f(0) = 0 and f″ < 0 between its poles 1/c, where it is −∞. Up to the first pole
   * it is negative, or first positive if f′(0) = −Σ wc > 0; between two poles it is positive on one
   * interval around its summit, or nowhere; beyond the last pole it increases from −∞ to +∞. So no
   * sign change can be missed, however close to a pole it is.
   *
   * @param {number[]} weights w ≥ 0
   * @param {number[]} coefficients c, of any sign
   * @returns {number[][]} ascending intervals
   */
  function negativeSteps(weights, coefficients) {
    return new LogSum(weights, coefficients).negative();
  }

  // ----------------------------------------------------------------- sets of intervals

  /** Return the common part of two lists of intervals; a point survives inside an interval. */
  function intersection(one, other) {
    const parts = [];
    for (const [a, b] of one) {
      for (const [c, d] of other) {
        const [low, high] = [Math.max(a, c), Math.min(b, d)];
        const point = low === high
          && ((a === b && ((c < a && a < d) || c === d)) || (c === d && a < c && c < b));
        if (low < high || point) parts.push([low, high]);
      }
    }
    return parts.sort((x, y) => x[0] - y[0]);
  }

  function scaled(intervals, factor) {
    return intervals.map(([a, b]) => [a * factor, b * factor]);
  }

  /** Return the part of a list of intervals above `lower`. */
  function restricted(intervals, lower) {
    return intervals.filter(([, b]) => b > lower).map(([a, b]) => [Math.max(a, lower), b]);
  }

  // ----------------------------------------------------------------- batches

  /**
   * Return the law of a batch: the share of sample 1 in it, with its (binomial) probability.
   *
   * @param {number} p probability of sample 1
   * @param {number} B batch size, 1 to 64
   * @returns {{share: number, weight: number}[]}
   */
  function batches(p, B) {
    const law = [];
    let ways = 1; // B over j
    for (let j = 0; j <= B; j++) {
      const weight = ways * p ** j * (1 - p) ** (B - j);
      if (weight > 0) law.push({ share: j / B, weight });
      ways *= (B - j) / (j + 1);
    }
    return law;
  }

  /** Return the law of the mean over a batch of a number that is `first` or `second`. */
  function batchMeans(first, second, p, B) {
    const law = batches(p, B);
    return {
      weights: law.map((one) => one.weight),
      values: law.map((one) => one.share * first + (1 - one.share) * second),
    };
  }

  /** Return ½ log E(1 − ηc)², where c has the given mean and second moment. */
  function scalarMeanSquare(eta, mean, second) {
    const change = eta * (eta * second - 2 * mean);
    if (change > -0.5) return Math.log1p(change) / 2;
    // The same as a sum of squares, (1 − η E c)² + η² var c.
    return Math.log((1 - eta * mean) ** 2 + eta * eta * Math.max(0, second - mean * mean)) / 2;
  }

  // ----------------------------------------------------------------- the pair

  /*
   * L(θ) = ½ E(θ₁θ₂x − x)² over the inputs x = 0.9 and 2.5: every minimum has θ₁θ₂ = 1, where
   * sample x has the curvature s x² across the minima, s = θ₁² + θ₂² ≥ 2. So everything depends
   * on ηs, and all is a log-sum.
   */
  const PAIR = Object.freeze([0.81, 6.25]);

  function pairLaw(p, B) {
    const { weights, values } = batchMeans(PAIR[0], PAIR[1], p, B);
    const mean = p * PAIR[0] + (1 - p) * PAIR[1];
    const single = p * PAIR[0] ** 2 + (1 - p) * PAIR[1] ** 2;
    return { sum: new LogSum(weights, values), mean, second: mean * mean + (single - mean * mean) / B };
  }

  const pair = Object.freeze({
    curvatures: PAIR,

    /**
     * Return μ, λ and the exponent in mean square of the minimum with θ₁² + θ₂² = s.
     *
     * @param {number} s sharpness in units of the inputs, s ≥ 2
     * @param {number} eta step size η > 0
     * @param {number} p probability of the input 0.9
     * @param {number} B batch size
     * @returns {{mu: number, lambda: number, meanSquare: number}}
     */
    exponents(s, eta, p, B) {
      const { sum, mean, second } = pairLaw(p, B);
      return {
        mu: logAbsOneMinus(eta * s * mean),
        lambda: sum.value(eta * s),
        meanSquare: scalarMeanSquare(eta * s, mean, second),
      };
    },

    /**
     * Return the stable minima as intervals of s ≥ 2, as `stabcore.stable_arcs`.
     *
     * @returns {{gd: number[][], sgd: number[][], meanSquare: number[][]}}
     */
    arcs(eta, p, B) {
      const steps = pair.steps(1, p, B);
      const arcs = (intervals) => restricted(scaled(intervals, 1 / eta), 2);
      return { gd: arcs(steps.gd), sgd: arcs(steps.sgd), meanSquare: arcs(steps.meanSquare) };
    },

    /**
     * Return the stable step sizes of one minimum, as `stabcore.stable_steps`.
     *
     * @returns {{gd: number[][], sgd: number[][], meanSquare: number[][]}}
     */
    steps(s, p, B) {
      const { sum, mean, second } = pairLaw(p, B);
      return {
        gd: [[0, 2 / mean / s]],
        sgd: scaled(sum.negative(), 1 / s),
        meanSquare: [[0, (2 * mean) / second / s]],
      };
    },
  });

  // ----------------------------------------------------------------- the transfer operator

  /*
   * On directions v of the plane let g(v) = Σ p_j log|A_j v|, |v| = 1, and (Th)(v) = Σ p_j h(A_j v).
   * If h solves the Poisson equation g + Th − h = constant, that constant is λ (Le Page 1982). h is
   * interpolated by polynomials of degree 5 on n points of a circle, and found as Σ Tᵏ(g − λ), or by
   * elimination where T forgets a direction slowly. For any h,
   *
   *     min (g + Th − h) ≤ λ ≤ max (g + Th − h),
   *
   * which bounds the error of a solution; that of the interpolation is judged by the changes from
   * grid to grid, as in `stabcore.lyapunov.transfer_operator`.
   */
  const STENCIL = 6;
  const BEFORE = 2; // points of the stencil left of the interval in which it interpolates
  const MARGIN = 8; // of the copies of h that make it periodic
  const FIRST_GRID = 24;
  const LAST_GRID = 12288;
  const SMOOTH = 1e-7; // a change from grid to grid below which h counts as smooth
  const SLOWEST = 0.95; // ratio of changes from grid to grid that is believed
  const SHORTEST = 1e-17; // |A v| where A v rounds to 0: g is finite in every neighbourhood
  const DIRECT = 384; // unknowns up to which elimination may help out
  const SWEEPS = 24; // terms Tᵏ(g − λ) added before it is asked whether they fall fast enough

  /**
   * How much is computed: the error wanted, the finest grid, multiplications at the most, and how
   * many grids an error is estimated from, at least. A scan needs signs only, and stops at them.
   */
  const EFFORTS = Object.freeze({
    curve: { goal: 4e-3, last: 192, work: 3e5, fewest: 2 },
    quick: { goal: 1e-5, last: 96, work: 4e5 },
    scan: { goal: 1e-5, last: 768, work: 2e6, signOnly: true },
    root: { goal: 1e-8, last: 3072, work: 1e7 },
    fine: { goal: 1e-8, last: LAST_GRID, work: 3e7 },
  });

  /**
   * Coordinates of the directions of the plane, and grids that are equidistant in them.
   *
   * The coordinate of v is t(v) = mean of θ_m(v)/π in [0, 1), θ_m the angle of (u + b_m v, d_m v),
   * v = (u, v). Each θ_m grows by π around the circle, fastest near the direction across which
   * (1, 0; b, d) stretches; θ_0 is the angle itself. So the grid can be fine where h is steep, over
   * several scales, and the map is analytic.
   */
  class Circle {
    /** `zooms` is a list of {at, factor}: an angle in (0, π), and how much is stretched there. */
    constructor(zooms = []) {
      const shears = zooms.map(({ at, factor }) => {
        // diag(1, factor) in the frame of the angle, turned so that (1, 0) stays where it is.
        const [c, s] = [Math.cos(at), Math.sin(at)];
        const length = c * c + factor * factor * s * s;
        return [(c * s * (1 - factor * factor)) / length, factor / length];
      });
      this.shifts = Float64Array.from(shears, (one) => one[0]);
      this.heights = Float64Array.from(shears, (one) => one[1]);
      this.grids = new Map();
    }

    /** Return t(u, v) in [0, 1). */
    coordinate(u, v) {
      const { shifts, heights } = this;
      if (v < 0 || (v === 0 && u < 0)) {
        u = -u;
        v = -v;
      }
      let x = u; // the product of numbers with angles θ_m in [0, π)
      let y = v;
      let turns = 0;
      for (let m = 0; m < shifts.length; m++) {
        const a = u + shifts[m] * v;
        const b = heights[m] * v;
        const imaginary = x * b + y * a;
        x = x * a - y * b;
        if (y < 0 && imaginary >= 0) turns += 1;
        y = imaginary;
      }
      let angle = Math.atan2(y, x);
      if (y < 0) angle += 2 * Math.PI;
      const t = (angle / Math.PI + 2 * turns) / (shifts.length + 1);
      return t < 1 ? t : 0;
    }

    /** Return dt/dφ at the angle φ of (u, v), a unit vector. */
    density(u, v) {
      let sum = 1;
      for (let m = 0; m < this.shifts.length; m++) {
        const [a, b] = [u + this.shifts[m] * v, this.heights[m] * v];
        sum += this.heights[m] / (a * a + b * b);
      }
      return sum / (Math.PI * (this.shifts.length + 1));
    }

    /** Return unit vectors at t = 0, 1/n, ..., (n − 1)/n. */
    grid(n) {
      if (this.grids.has(n)) return this.grids.get(n);
      const grid = { x: new Float64Array(n), y: new Float64Array(n) };
      let angle = 0;
      for (let i = 0; i < n; i++) {
        if (this.shifts.length === 0) angle = (i * Math.PI) / n;
        else if (i > 0) angle = this.angle(i / n, angle);
        grid.x[i] = Math.cos(angle);
        grid.y[i] = Math.sin(angle);
      }
      this.grids.set(n, grid);
      return grid;
    }

    /** Return the angle beyond `from` at which the coordinate is t: Newton's method, guarded. */
    angle(t, from) {
      let [low, high] = [from, Math.PI];
      let angle = from;
      for (let step = 0; step < 100; step++) {
        const [u, v] = [Math.cos(angle), Math.sin(angle)];
        const excess = this.coordinate(u, v) - t;
        if (excess < 0) low = angle;
        else high = angle;
        if (Math.abs(excess) < 4 * EPSILON || high - low < 2 * EPSILON) break;
        angle -= excess / this.density(u, v);
        if (!(angle > low && angle < high)) angle = (low + high) / 2;
      }
      return angle;
    }
  }

  const UNIFORM = new Circle();

  /** The equation on one grid, for matrices of a law that change; its arrays are reused. */
  class Transfer {
    constructor() {
      this.capacity = 0;
      this.size = 0;
      this.n = 0;
      this.reserve(128, 1024);
    }

    /** Make room for n directions and `entries` images of directions. */
    reserve(n, entries) {
      if (n > this.size) {
        this.size = n;
        this.growth = new Float64Array(n);
        this.rest = new Float64Array(n);
        const old = this.h;
        this.h = new Float64Array(n + 2 * MARGIN);
        if (old) this.h.set(old);
      }
      if (entries > this.capacity) {
        this.capacity = entries;
        this.left = new Int32Array(entries);
        this.stencil = new Float64Array(STENCIL * entries);
      }
    }

    /** Take over a law of 2×2 matrices, four entries by rows per factor, and a grid. */
    assemble(matrices, weights, circle, n) {
      const count = weights.length;
      this.reserve(n, n * count);
      const { growth, left, stencil } = this;
      const { x, y } = circle.grid(n);
      let entry = 0;
      let place = 0;
      for (let i = 0; i < n; i++) {
        let sum = 0;
        for (let j = 0; j < count; j++) {
          const u = matrices[4 * j] * x[i] + matrices[4 * j + 1] * y[i];
          const v = matrices[4 * j + 2] * x[i] + matrices[4 * j + 3] * y[i];
          const w = weights[j];
          sum += w * Math.log(Math.max(u * u + v * v, SHORTEST * SHORTEST));
          const position = circle.coordinate(u, v) * n;
          const start = Math.floor(position);
          left[entry++] = start + MARGIN - BEFORE;
          lagrange(position - start, w, stencil, place);
          place += STENCIL;
        }
        growth[i] = sum / 2;
      }
      this.n = n;
      this.count = count;
    }

    /** Forget h. */
    restart() {
      this.h.fill(0);
    }

    /** Copy the ends of h, so that every stencil finds its neighbours. */
    wrap(h) {
      const n = this.n;
      for (let i = 0; i < MARGIN; i++) {
        h[i] = h[n + i];
        h[n + MARGIN + i] = h[MARGIN + i];
      }
    }

    /** Return (Th)(i), h with its margins. */
    moved(h, i) {
      const { count, left, stencil } = this;
      let sum = 0;
      for (let entry = i * count; entry < (i + 1) * count; entry++) {
        const start = left[entry];
        const place = STENCIL * entry;
        sum += stencil[place] * h[start] + stencil[place + 1] * h[start + 1]
          + stencil[place + 2] * h[start + 2] + stencil[place + 3] * h[start + 3]
          + stencil[place + 4] * h[start + 4] + stencil[place + 5] * h[start + 5];
      }
      return sum;
    }

    /** Put g + Th − h into `rest`, and its smallest and largest value into `lower` and `upper`. */
    measure() {
      const { n, h, growth, rest } = this;
      let lower = Infinity;
      let upper = -Infinity;
      let sum = 0;
      for (let i = 0; i < n; i++) {
        const value = growth[i] + this.moved(h, i) - h[i + MARGIN];
        rest[i] = value;
        sum += value;
        if (value < lower) lower = value;
        if (value > upper) upper = value;
      }
      this.lower = lower;
      this.upper = upper;
      this.mean = sum / n;
    }

    /** Add what is left over to h, `sweeps` times at the most; stop at the width wanted. */
    sweep(sweeps, width) {
      const { n, h, rest } = this;
      this.wrap(h);
      this.measure();
      for (let step = 0; step < sweeps && !(this.upper - this.lower <= width); step++) {
        for (let i = 0; i < n; i++) h[i + MARGIN] += rest[i] - this.mean;
        this.wrap(h);
        this.measure();
      }
    }

    /** Solve h − Th + mean(h) = g by elimination with row exchanges. */
    eliminate() {
      const { n, count, left, stencil, growth } = this;
      const width = n + 1;
      const a = new Float64Array(n * width).fill(1 / n);
      for (let i = 0; i < n; i++) {
        a[i * width + i] += 1;
        a[i * width + n] = growth[i];
        for (let entry = i * count; entry < (i + 1) * count; entry++) {
          for (let k = 0; k < STENCIL; k++) {
            a[i * width + ((left[entry] - MARGIN + k + n) % n)] -= stencil[STENCIL * entry + k];
          }
        }
      }
      for (let k = 0; k < n; k++) {
        let pivot = k;
        for (let i = k + 1; i < n; i++) {
          if (Math.abs(a[i * width + k]) > Math.abs(a[pivot * width + k])) pivot = i;
        }
        for (let j = k; pivot !== k && j <= n; j++) {
          const held = a[k * width + j];
          a[k * width + j] = a[pivot * width + j];
          a[pivot * width + j] = held;
        }
        for (let i = k + 1; i < n; i++) {
          const factor = a[i * width + k] / a[k * width + k];
          if (factor === 0) continue;
          for (let j = k + 1; j <= n; j++) a[i * width + j] -= factor * a[k * width + j];
        }
      }
      for (let i = n - 1; i >= 0; i--) {
        let sum = a[i * width + n];
        for (let j = i + 1; j < n; j++) sum -= a[i * width + j] * this.h[MARGIN + j];
        this.h[MARGIN + i] = sum / a[i * width + i];
      }
      this.wrap(this.h);
      this.measure();
    }

    /**
     * Solve the equation until g + Th − h is constant up to `width`, or `work` is spent.
     *
     * Returns the work done, and whether T forgets a direction fast enough for plain sums.
     */
    solve(width, work) {
      const cost = STENCIL * this.n * this.count * SWEEPS;
      let spent = cost;
      let before = Infinity;
      let forgetful = true;
      this.sweep(0, width);
      for (;;) {
        const now = this.upper - this.lower;
        forgetful = forgetful && now < before / 8;
        if (now <= width || spent > work || now > 0.7 * before) break;
        if (!forgetful && this.n <= DIRECT) break;
        before = now;
        this.sweep(SWEEPS, width);
        spent += cost;
      }
      if (this.upper - this.lower > width && this.n <= DIRECT) {
        this.eliminate();
        spent += this.n ** 3 / 3;
      }
      return { spent, forgetful };
    }

    /** Interpolate h on the grid of twice as many directions. */
    refine() {
      const { n } = this;
      this.wrap(this.h);
      const coarse = this.h.slice(0, n + 2 * MARGIN);
      this.reserve(2 * n, 0);
      for (let i = 0; i < n; i++) {
        const c = i + MARGIN;
        this.h[2 * i + MARGIN] = coarse[c];
        this.h[2 * i + 1 + MARGIN] = (3 * (coarse[c - 2] + coarse[c + 3])
          - 25 * (coarse[c - 1] + coarse[c + 2]) + 150 * (coarse[c] + coarse[c + 1])) / 256;
      }
    }
  }

  /** Write the weights, times w, of the points −2, ..., 3 for the value at t in [0, 1). */
  function lagrange(t, w, into, place) {
    const a = t + 2;
    const b = t + 1;
    const d = t - 1;
    const e = t - 2;
    const f = t - 3;
    const first = w * a * b * t;
    const last = w * d * e * f;
    into[place] = (b * t * last) / -120;
    into[place + 1] = (a * t * last) / 24;
    into[place + 2] = (a * b * last) / -12;
    into[place + 3] = (first * e * f) / 12;
    into[place + 4] = (first * d * f) / -24;
    into[place + 5] = (first * d * e) / 120;
  }

  function dot(x, y) {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
    return sum;
  }

  const transfer = new Transfer();

  /**
   * Return the error estimate for the last of several values on finer and finer grids.
   *
   * Errors fall by 64 from grid to grid where h is smooth. Where it is rough two grids may agree by
   * chance; so earlier changes count, too, as if errors fell by 4 only. And where changes hardly
   * fall (there are laws for which they do so with the logarithm of n), what is left is that of a
   * geometric series.
   */
  function gridError(values, fewest) {
    if (values.length < fewest) return Infinity;
    const changes = values.slice(1).map((value, k) => Math.abs(value - values[k]));
    const largest = changes.reduce((before, change) => Math.max(before / 4, change));
    if (largest < SMOOTH) return 4 * largest;
    const [last, before] = [changes.slice(-2), changes.slice(-4, -2)].map((x) => Math.max(...x));
    const ratio = changes.length < 4 ? 0 : Math.min(Math.sqrt(last / before), SLOWEST);
    return Math.max(8 * largest, (4 * last) / (1 - ratio));
  }

  /**
   * Return λ of a law of 2×2 matrices: a value, and an interval that it is estimated to be in.
   *
   * Where only signs are wanted they are those of λ − `zero`.
   */
  function transferExponent(matrices, weights, circle, effort, zero = 0) {
    const { goal, last, work, fewest = 3, signOnly = false } = EFFORTS[effort];
    const values = [];
    let [spent, error, safety] = [0, Infinity, 1];
    transfer.restart();
    for (let n = FIRST_GRID; ; n *= 2) {
      transfer.assemble(matrices, weights, circle, n);
      const solved = transfer.solve(goal / 100, work - spent);
      const left = transfer.upper - transfer.lower;
      if (values.length > 0 && !(left <= error)) break; // not solved: the grid before knows more
      values.push((transfer.lower + transfer.upper) / 2);
      error = gridError(values, fewest) + left + 64 * EPSILON * Math.max(1, Math.abs(values.at(-1)));
      safety = solved.forgetful ? 1 : 2;
      spent += solved.spent + 60 * n * weights.length;
      if (signOnly && Math.abs(values.at(-1) - zero) > 2 * safety * error) break;
      const next = 2 * spent + 100 * n * weights.length;
      if (error <= goal || 2 * n > last || (values.length >= fewest && spent + next > work)) break;
      transfer.refine();
    }
    const value = values.at(-1);
    return { value, lower: value - safety * error, upper: value + safety * error };
  }

  // ----------------------------------------------------------------- two gradients

  const PARALLEL = 1e-13; // sin² up to which gradients count as parallel, as in stabcore
  const ROUNDING = 1e-13; // of mean-square exponents, relative to the size of the factors
  const NEGATIVE = -Number.MIN_VALUE;
  const RENEWAL = 4 * EPSILON; // |ηk − 1| up to which a factor counts as singular
  const LEAST_WEIGHT = 1e-18; // of a batch that can be seen
  const NARROW = 0.25; // gap in radians up to which a grid is finer near invariant directions,
  const ZOOM = 4; // in steps of this factor

  /** Return cosine and sine of an angle in degrees, exact at 0, 90 and 180. */
  function cosineAndSine(angle) {
    if (angle === 90) return [0, 1];
    if (angle === 0 || angle === 180) return [1, 0];
    const radians = (angle * Math.PI) / 180;
    return [Math.abs(Math.cos(radians)), Math.sin(radians)];
  }

  /**
   * What does not depend on the step size: the law of the batches of two gradients.
   *
   * A batch with the share s of sample 1 has the Hessian H = s k₁u₁u₁ᵀ + (1 − s) k₂u₂u₂ᵀ, and
   * multiplies by A = I − ηH. With momentum β (heavy ball) the factor acts on two positions,
   * [[(1 + β)I − ηH, −βI], [I, 0]].
   */
  class TwoGradients {
    constructor({ k1, k2, angle, p, batch = 1, momentum = 0 }) {
      const [cosine, sine] = cosineAndSine(angle);
      this.diagonal = angle === 45 || angle === 135;
      Object.assign(this, { k1, k2, p, batch, beta: momentum, cosine, sine });
      this.parallel = sine * sine <= PARALLEL;
      this.orthogonal = cosine === 0;
      const law = batches(p, batch);
      this.shares = Float64Array.from(law, (one) => one.share);
      this.weights = Float64Array.from(law, (one) => one.weight);
      this.sums = this.listSums();
      this.determinant = this.determinantSum();
      this.diagonalise();
      this.prepareFactors();
    }

    /** Return log-sums of which λ is the largest (without momentum), or null. */
    listSums() {
      const { weights, shares, k1, k2 } = this;
      if (this.parallel) {
        return [new LogSum(weights, shares.map((s) => s * k1 + (1 - s) * k2))];
      }
      if (!this.orthogonal) return null;
      return [
        new LogSum(weights, shares.map((s) => s * k1)),
        new LogSum(weights, shares.map((s) => (1 - s) * k2)),
      ];
    }

    /** Return (1/r) E log|det A| ≤ λ, the mean of all exponents, as a log-sum. */
    determinantSum() {
      if (this.parallel) return this.sums[0];
      const { weights, shares, k1, k2, cosine, sine } = this;
      const [halves, eigenvalues] = [[], []];
      shares.forEach((s, j) => {
        const [a, b] = [s * k1, (1 - s) * k2];
        const high = (a + b + Math.sqrt((a - b) ** 2 + 4 * a * b * cosine * cosine)) / 2;
        halves.push(weights[j] / 2, weights[j] / 2);
        eigenvalues.push(high, (a * b * sine * sine) / high);
      });
      return new LogSum(halves, eigenvalues);
    }

    /** Find the eigenvalues κ of the mean Hessian, and the gradients in its eigenbasis. */
    diagonalise() {
      const { p, k1, k2, cosine, sine } = this;
      const [a, b] = [p * k1, (1 - p) * k2];
      if (this.parallel) {
        this.kappas = [a + b];
        this.rows = [[Math.sqrt(k1)], [Math.sqrt(k2)]];
        return;
      }
      const high = (a + b + Math.sqrt((a - b) ** 2 + 4 * a * b * cosine * cosine)) / 2;
      this.kappas = [high, (a * b * sine * sine) / high];
      const turn = Math.atan2(2 * b * cosine * sine, a + b * (cosine - sine) * (cosine + sine)) / 2;
      const [c, s] = [Math.cos(turn), Math.sin(turn)];
      const [r1, r2] = [Math.sqrt(k1), Math.sqrt(k2)];
      this.rows = [
        [r1 * c, -r1 * s],
        [r2 * (cosine * c + sine * s), r2 * (sine * c - cosine * s)],
      ];
    }

    /** Return μ, the largest log|z| over the directions, z² − (1 + β − ηκ)z + β = 0. */
    gd(eta) {
      const { beta } = this;
      let largest = -Infinity;
      for (const kappa of this.kappas) {
        if (beta === 0) {
          largest = Math.max(largest, logAbsOneMinus(eta * kappa));
          continue;
        }
        const middle = 1 + beta - eta * kappa;
        const square = (middle * middle) / 4 - beta;
        const root = square < 0 ? Math.sqrt(beta) : Math.abs(middle) / 2 + Math.sqrt(square);
        largest = Math.max(largest, Math.log(root));
      }
      return largest;
    }

    /**
     * Return the Perron eigenvalue of F_ij = √(p_i p_j) η²/B Σ_ab G_ia G_ib G_ja G_jb / d_ab.
     *
     * G_i are the gradients in the eigenbasis of the mean Hessian, and d_ab a function of a ≤ b.
     */
    perron(scale, denominator) {
      const [one, two] = this.rows;
      let [f11, f12, f22] = [0, 0, 0];
      for (let a = 0; a < this.kappas.length; a++) {
        for (let b = a; b < this.kappas.length; b++) {
          const w = (a === b ? scale : 2 * scale) / denominator(this.kappas[a], this.kappas[b]);
          const [q1, q2] = [one[a] * one[b], two[a] * two[b]];
          f11 += w * q1 * q1;
          f12 += w * q1 * q2;
          f22 += w * q2 * q2;
        }
      }
      const { p } = this;
      const [mean, half] = [(p * f11 + (1 - p) * f22) / 2, (p * f11 - (1 - p) * f22) / 2];
      return mean + Math.sqrt(half * half + p * (1 - p) * f12 * f12);
    }

    /**
     * Return ½ log ρ of the second moments, X ↦ E[A X Aᵀ].
     *
     * In mean square a batch is a lottery (probability 1/B) between one sample and the mean step,
     * so that E[A X Aᵀ] = Ā X Āᵀ + (η²/B)(Σ p_i h_i Z h_i − H̄ Z H̄) in the position block Z. At the
     * level ρ, in the eigenbasis of H̄, with m = 1 + β − ηκ and the other blocks eliminated,
     *
     *     d_ab Z_ab = (η²/B) Σ p_i (h_i Z h_i)_ab,
     *     d_ab = (ρ − β)[(ρ + β)/ρ − m_a m_b/(ρ + β)] + βρ(m_a − m_b)²/(ρ² − β²) + η²κ_aκ_b/B.
     *
     * With z_i = g_iᵀ Z g_i this is z = Fz, F positive: ρ is the level where its Perron eigenvalue,
     * which falls with ρ, is 1. It is at least e^{2μ}, the growth of the mean.
     */
    meanSquare(eta) {
      const { beta, p, k1, k2 } = this;
      const share = 1 / this.batch;
      if (this.parallel && beta === 0) {
        const mean = this.kappas[0];
        const single = p * k1 * k1 + (1 - p) * k2 * k2;
        return scalarMeanSquare(eta, mean, mean * mean + share * (single - mean * mean));
      }
      const excess = (rho) => this.perron(eta * eta * share, (a, b) => {
        const [ma, mb] = [1 + beta - eta * a, 1 + beta - eta * b];
        const gap = (ma - mb) * (ma - mb);
        const mixed = gap === 0 || beta === 0 ? 0 : (beta * rho * gap) / (rho * rho - beta * beta);
        return (rho - beta) * ((rho + beta) / rho - (ma * mb) / (rho + beta)) + mixed
          + share * eta * eta * a * b;
      }) - 1;
      const lowest = Math.exp(2 * this.gd(eta));
      if (!(excess(lowest) > 0)) return Math.log(lowest) / 2;
      let reach = lowest + 1e-3;
      while (excess(lowest + reach) > 0) reach *= 4;
      return Math.log(findRoot(excess, lowest, lowest + reach)) / 2;
    }

    /** Return the step size below which gradient descent is stable. */
    get gdEdge() {
      return (2 * (1 + this.beta)) / this.kappas[0];
    }

    /**
     * Return the step size below which SGD is stable in mean square.
     *
     * There ρ = 1, and with 1/η for η the equation above is again one for a Perron eigenvalue.
     */
    get meanSquareEdge() {
      const { beta } = this;
      const share = 1 / this.batch;
      const excess = (level) => this.perron(share, (a, b) =>
        (1 - beta) * (level * (a + b) - (a * b) / (1 + beta))
          + (beta * (a - b) ** 2) / (1 - beta * beta) + share * a * b) - 1;
      const lowest = 1 / this.gdEdge; // where the mean is not stable, its square is not
      let reach = lowest;
      while (excess(lowest + reach) > 0) reach *= 2;
      return 1 / findRoot(excess, lowest, lowest + reach);
    }

    /** List the batches that can be seen, and lay the grid of directions. */
    prepareFactors() {
      const seen = [...this.weights.keys()].filter((j) => this.weights[j] >= LEAST_WEIGHT);
      this.seenWeights = Float64Array.from(seen, (j) => this.weights[j]);
      this.seenShares = Float64Array.from(seen, (j) => this.shares[j]);
      this.factors = new Float64Array(4 * seen.length);
      this.circle = UNIFORM;
      let turn = Math.PI / 5; // of the plane: 24·2ᵏ points are never divisible by 5
      const { cosine, sine } = this;
      const narrow = Math.min(cosine, sine);
      if (narrow < NARROW && !this.sums) {
        // The law is nearly reducible. A direction lingers near the two that are nearly invariant,
        // and h is steep there on all scales from the gap between them up to 1.
        const half = Math.asin(narrow) / 2;
        turn = Math.PI / 4 - (sine < cosine ? half : -half); // halfway between the two is π/4
        const zooms = [];
        for (let factor = ZOOM; factor < ZOOM / narrow; factor *= ZOOM) {
          zooms.push({ at: Math.PI / 4, factor }, { at: (3 * Math.PI) / 4, factor });
        }
        this.circle = new Circle(zooms);
      }
      const [c, s] = [Math.cos(turn), Math.sin(turn)];
      this.first = [c, s];
      this.second = [cosine * c - sine * s, sine * c + cosine * s];
    }

    /** Write down I − ηH of all batches. */
    planeFactors(eta) {
      const { factors, seenShares, first, second, k1, k2 } = this;
      const h1 = [first[0] * first[0] * k1, first[0] * first[1] * k1, first[1] * first[1] * k1];
      const h2 = [second[0] * second[0] * k2, second[0] * second[1] * k2, second[1] * second[1] * k2];
      for (let j = 0; j < seenShares.length; j++) {
        const [s, t] = [eta * seenShares[j], eta * (1 - seenShares[j])];
        factors[4 * j] = 1 - s * h1[0] - t * h2[0];
        factors[4 * j + 1] = factors[4 * j + 2] = -s * h1[1] - t * h2[1];
        factors[4 * j + 3] = 1 - s * h1[2] - t * h2[2];
      }
      return factors;
    }

    /**
     * Write down the factors with momentum of one block, in coordinates in which they are round.
     *
     * In the scale in which det = 1 they are [[t, −1], [1, 0]], t = (1 + β − ηc)/√β. For |t| < 2
     * they turn the plane along ellipses with the axes (1, ±1), in whose coordinates they are
     * [[t/2, −(1 + t/2)/f], [f(1 − t/2), t/2]]; f makes the ellipse of the mean a circle.
     */
    blockFactors(eta, block) {
      const { factors, seenWeights, seenShares, k1, k2, beta } = this;
      const traces = seenShares.map((s) => {
        const [a, b] = [s * k1, (1 - s) * k2];
        return (1 + beta - eta * (this.parallel ? a + b : block === 0 ? a : b)) / Math.sqrt(beta);
      });
      const mean = dot(traces, seenWeights);
      const spread = Math.sqrt(dot(traces.map((t) => (t - mean) ** 2), seenWeights));
      const f = Math.sqrt((Math.abs(2 + mean) + spread) / (Math.abs(2 - mean) + spread));
      traces.forEach((t, j) => {
        factors[4 * j] = factors[4 * j + 3] = t / 2;
        factors[4 * j + 1] = -(1 + t / 2) / f;
        factors[4 * j + 2] = f * (1 - t / 2);
      });
      return factors;
    }

    /** Return λ with its interval, before any bound. */
    estimate(eta, effort) {
      if (this.beta > 0) {
        const shift = Math.log(this.beta) / 2;
        const blocks = this.parallel ? [0] : [0, 1];
        const found = blocks.map((block) =>
          transferExponent(this.blockFactors(eta, block), this.seenWeights, UNIFORM, effort, -shift));
        const most = (name) => shift + Math.max(...found.map((one) => one[name]));
        return { value: most("value"), lower: most("lower"), upper: most("upper") };
      }
      return transferExponent(this.planeFactors(eta), this.seenWeights, this.circle, effort);
    }

    /** Return λ with its interval where two factors in special position have a closed form. */
    special(eta) {
      if (this.batch > 1 || this.sums || this.beta > 0) return null;
      const value = this.reflected(eta) ?? this.renewal(eta);
      if (value === null) return null;
      const rounding = value === 0 ? 0 : 1e-12 * (1 + Math.abs(value));
      return { value, lower: value - rounding, upper: value + rounding };
    }

    /**
     * Return λ where one of two factors is a reflection that exchanges the other one's lines.
     *
     * With ηk = 2 the factor of that sample is a reflection. At 45° it exchanges the two lines of
     * the other factor, so that they grow alike and λ = ½ E log|det A|. Two reflections keep lengths.
     */
    reflected(eta) {
      const turned = [this.k1, this.k2].map((k) => eta * k === 2);
      if (turned[0] && turned[1]) return 0;
      if (!this.diagonal || !(turned[0] || turned[1])) return null;
      const [p, k] = turned[0] ? [1 - this.p, this.k2] : [this.p, this.k1];
      return (p * logAbsOneMinus(eta * k)) / 2;
    }

    /**
     * Return λ where one of two factors is singular, else null.
     *
     * With ηk = 1 the factor A of that sample projects on w across its gradient. Every A forgets
     * all but a number, A A₂ⁿ A = (wᵀA₂ⁿw) A, and the number n of others between two of them is
     * geometric. So λ = p² Σ_n (1 − p)ⁿ log|cos² + sin²(1 − ηk₂)ⁿ|, p the probability of A.
     */
    renewal(eta) {
      const singular = [this.k1, this.k2].map((k) => Math.abs(eta * k - 1) <= RENEWAL);
      if (!singular[0] && !singular[1]) return null;
      const [p, other] = singular[0] ? [this.p, this.k2] : [1 - this.p, this.k1];
      const [c, s] = [this.cosine ** 2, this.sine ** 2];
      const x = 1 - eta * other;
      const log = Math.log(Math.abs(x));
      let [sum, weight, small] = [0, p * p, x]; // n = 0 adds log 1
      for (let n = 1; n < 1e5; n++) {
        weight *= 1 - p;
        if (weight * (1 + n * Math.abs(log)) < 1e-18 * p) break;
        // (1 − ηk₂)ⁿ or its inverse, whichever is small.
        const term = Math.abs(x) <= 1 ? Math.log(Math.abs(c + s * small))
          : n * log + Math.log(Math.abs(s + c / small));
        sum += weight * term;
        small *= x;
      }
      return sum;
    }

    /** Return bounds of λ that are proven but for a few roundings: determinant and mean square. */
    bounds(eta) {
      const size = 1 + eta * Math.max(this.k1, this.k2);
      let lower;
      if (this.beta > 0) {
        lower = Math.log(this.beta) / 2 - 4 * EPSILON * (1 - Math.log(this.beta));
      } else {
        const rounding = this.determinant.rounding(eta);
        lower = this.determinant.value(eta) - rounding;
      }
      const square = this.meanSquare(eta);
      if (square === -Infinity) return { lower: square, upper: square };
      let upper = square + ROUNDING * (1 + (size * size) / Math.exp(2 * square));
      if (this.beta === 0 && eta * Math.max(this.k1, this.k2) * (1 + 4 * EPSILON) < 2) {
        upper = Math.min(upper, NEGATIVE); // every step contracts
      }
      return { lower, upper };
    }

    /** Return λ, see `gradients.exponents`. */
    sgd(eta, effort) {
      const known = this.sums !== null && this.beta === 0;
      const bounds = this.bounds(eta);
      if (known) return closedForm(this.sums, eta, bounds);
      if (this.beta > 0 && !this.sums) return signed({ value: NaN, ...bounds, how: "bounds" });
      const special = this.special(eta);
      if (special) return inside(special, bounds, "closed form");
      return inside(this.estimate(eta, effort), bounds, "transfer operator");
    }
  }

  function signed(exponent) {
    const { lower, upper } = exponent;
    const sign = upper < 0 ? -1 : lower > 0 ? 1 : lower === 0 && upper === 0 ? 0 : null;
    return { ...exponent, sign };
  }

  /** Return the largest of several log-sums, with its rounding error. */
  function closedForm(sums, eta, bounds) {
    const parts = sums.map((sum) => {
      const value = sum.value(eta);
      const rounding = value === 0 || value === -Infinity ? 0 : sum.rounding(eta);
      return { value, lower: value - rounding, upper: value + rounding };
    });
    const most = (name) => Math.max(...parts.map((part) => part[name]));
    const found = { value: most("value"), lower: most("lower"), upper: most("upper") };
    return inside(found, { lower: -Infinity, upper: bounds.upper }, "closed form");
  }

  /** Return what is left of an estimate inside its bounds; the bounds, if nothing is. */
  function inside(found, bounds, how) {
    let [lower, upper] = [Math.max(found.lower, bounds.lower), Math.min(found.upper, bounds.upper)];
    if (!(lower <= upper)) [lower, upper] = [bounds.lower, bounds.upper];
    const value = Math.min(Math.max(found.value, lower), upper);
    return signed({ value, lower, upper, how });
  }

  // ----------------------------------------------------------------- all stable step sizes

  /** Points of a scan, and the efforts with which it, its roots and their brackets are computed. */
  const SCANS = Object.freeze({
    quick: { points: 32, look: "quick", refine: "quick" },
    fine: { points: 64, look: "scan", refine: "root" },
  });
  const FEWEST_POINTS = 5; // of a scan between two roots of the determinant bound
  const EDGE = 1e-11; // relative accuracy of the edge in mean square
  const LARGE = 100; // an exponent of −∞ takes part in the search for a root with this modulus

  function linspace(low, high, count) {
    return Array.from({ length: count }, (_, k) => low + ((high - low) * k) / (count - 1));
  }

  /** Return a function of a number that is computed once for each. */
  function remembered(f) {
    const known = new Map();
    return (x) => {
      if (!known.has(x)) known.set(x, f(x));
      return known.get(x);
    };
  }

  /**
   * Return where λ is negative, from its signs on a grid.
   *
   * Every change of sign is refined; `brackets` are the nearest step sizes around it at which λ was
   * found to have a sign that its error does not hide.
   */
  function scanned(law, grid, { look, refine }) {
    const found = grid.map((eta) => law.sgd(eta, look));
    const refined = remembered((eta) => law.sgd(eta, refine));
    const clipped = (one) => Math.min(Math.max(one.value, -LARGE), LARGE);
    const negative = found.map((one) => one.value < 0);
    const ends = [];
    const brackets = [];
    for (let k = 1; k < grid.length; k++) {
      if (negative[k] === negative[k - 1]) continue;
      const [low, high] = [grid[k - 1], grid[k]];
      const slope = Math.abs(clipped(found[k]) - clipped(found[k - 1])) / (high - low);
      const changes = refined(low).value < 0 !== refined(high).value < 0;
      const value = (eta) => clipped(changes ? refined(eta) : law.sgd(eta, look));
      const root = findRoot(value, low, high, 1e-12);
      const sure = (j) => found[j].sign !== null;
      let [before, after] = [k - 1, k];
      while (before > 0 && !sure(before)) before -= 1;
      while (after < grid.length - 1 && !sure(after)) after += 1;
      const { lower, upper } = refined(root);
      const blur = Math.max(1e-12 * root, (upper - lower) / slope);
      const side = negative[k] ? -1 : 1; // the sign beyond the root
      ends.push(root);
      brackets.push([
        signChange(refined, root, grid[before], blur, -side),
        signChange(refined, root, grid[after], blur, side),
      ]);
    }
    if (negative[0]) ends.unshift(grid[0]);
    if (negative.at(-1)) ends.push(grid.at(-1));
    const intervals = [];
    for (let k = 0; k + 1 < ends.length; k += 2) intervals.push([ends[k], ends[k + 1]]);
    let resolution = overlap(brackets);
    for (let k = 1; k < grid.length; k++) resolution = Math.max(resolution, grid[k] - grid[k - 1]);
    return { intervals, brackets, resolution };
  }

  /** Return the nearest point between a root and `limit` at which the sign of λ is known. */
  function signChange(exponent, root, limit, blur, sign) {
    let spread = Math.min(blur, Math.abs(limit - root));
    for (let end = root; ;) {
      end = limit < root ? Math.max(root - spread, limit) : Math.min(root + spread, limit);
      if (end === limit || exponent(end).sign === sign) return end;
      spread *= 2;
    }
  }

  /** Return the bracket of a root known to a few roundings. */
  function rounded(root) {
    return [root * (1 - 1e-14), root * (1 + 1e-14)];
  }

  /** Return the width of the widest stretch under brackets (ascending) that overlap, or 0. */
  function overlap(brackets) {
    let [widest, start, end] = [0, 0, -Infinity];
    for (const [low, high] of brackets) {
      if (low >= end) [start, end] = [low, high];
      else {
        end = Math.max(end, high);
        widest = Math.max(widest, end - start);
      }
    }
    return widest;
  }

  /** Return (0, start) and what a scan from there on found. */
  function from(start, intervals) {
    const [first, ...others] = intervals;
    if (first && first[0] === start) return [[0, first[1]], ...others];
    return [[0, start], ...intervals];
  }

  /** Return where λ < 0 without momentum, by a scan where no bound decides. */
  function scannedSteps(law, effort) {
    // Stable up to the edge in mean square (or where every factor is a contraction), unstable where
    // the determinant bound is positive. The pieces of what is left are found without a scan, so
    // that slivers around the step sizes at which a factor is singular are looked at, too.
    const { points } = SCANS[effort];
    const contraction = 2 / Math.max(law.k1, law.k2);
    const start = Math.max(contraction, law.meanSquareEdge * (1 - EDGE));
    const bound = law.determinant.negative();
    const last = Math.max(start, bound.at(-1)[1]);
    if (last <= start * (1 + 1e-12)) {
      return { sgd: [[0, last]], resolution: 0, brackets: [rounded(last)] };
    }
    const pieces = bound
      .filter(([a, b]) => a < last && b > start)
      .map(([a, b]) => [Math.max(a, start), Math.min(b, last)])
      .sort((x, y) => x[0] - x[1] - (y[0] - y[1]));
    let resolution = Math.max(0, ...pieces.slice(points).map(([a, b]) => b - a));
    const used = pieces.slice(0, points).sort((x, y) => x[0] - y[0]);
    const [intervals, brackets] = [[], []];
    for (const [low, high] of used) {
      const count = Math.round((points * (high - low)) / (last - start));
      const poles = law.determinant.poles.filter((x) => x > low && x < high);
      const grid = linspace(low, high, Math.max(FEWEST_POINTS, count));
      if (poles.length <= points) grid.push(...poles);
      const found = scanned(law, [...new Set(grid)].sort((a, b) => a - b), SCANS[effort]);
      intervals.push(...found.intervals);
      brackets.push(...found.brackets);
      resolution = Math.max(resolution, found.resolution);
    }
    resolution = Math.max(resolution, overlap(brackets));
    return { sgd: from(start, intervals), resolution, brackets };
  }

  /** Return where λ < 0 with momentum, for parallel and orthogonal gradients. */
  function scannedMomentum(law, effort) {
    const { points, look } = SCANS[effort];
    const exponent = (eta) => law.sgd(eta, look).value;
    const start = law.meanSquareEdge * (1 - EDGE);
    let last = Math.max(law.gdEdge, 2 * start);
    while (Math.min(exponent(last), exponent(2 * last)) <= 0) last *= 2;
    const grid = linspace(start, last, points);
    const { intervals, resolution, brackets } = scanned(law, grid, SCANS[effort]);
    return { sgd: from(start, intervals), resolution, brackets };
  }

  const gradients = Object.freeze({
    /**
     * Return the exponents of a minimum with two gradients at one step size.
     *
     * @param {{k1: number, k2: number, angle: number, p: number, batch: number, momentum: number}}
     *   model curvatures k₁, k₂ > 0, the angle between the gradients in degrees (0 to 180), the
     *   probability 0 < p < 1 of sample 1, the batch size and the heavy ball's momentum β
     * @param {number} eta step size η > 0
     * @param {"quick"|"fine"} effort
     * @returns {{mu: number, meanSquare: number, lambda: {value: number, lower: number,
     *   upper: number, sign: -1|0|1|null, how: string}}} `sign` is null where the interval contains
     *   0; `how` is "closed form", "transfer operator", or "bounds" (momentum at other angles than
     *   0 and 90: λ is not computed, and `value` is NaN)
     */
    exponents(model, eta, effort = "fine") {
      const law = new TwoGradients(model);
      return { mu: law.gd(eta), meanSquare: law.meanSquare(eta), lambda: law.sgd(eta, effort) };
    },

    /**
     * Return the same for many step sizes, fast; λ is NaN where it is not known.
     *
     * @param {object} model
     * @param {number[]} etas
     * @param {"quick"|"fine"} effort
     * @returns {{mu: Float64Array, lambda: Float64Array, meanSquare: Float64Array}}
     */
    curve(model, etas, effort = "quick") {
      const law = new TwoGradients(model);
      const [mu, lambda, meanSquare] = [0, 1, 2].map(() => new Float64Array(etas.length));
      const how = effort === "quick" ? "curve" : effort;
      for (let k = 0; k < etas.length; k++) {
        mu[k] = law.gd(etas[k]);
        meanSquare[k] = law.meanSquare(etas[k]);
        lambda[k] = law.sgd(etas[k], how).value;
      }
      return { mu, lambda, meanSquare };
    },

    /**
     * Return all stable step sizes, as `stabcore.stable_steps`.
     *
     * @returns {{gd: number[][], sgd: number[][]|null, meanSquare: number[][], resolution: number,
     *   brackets: number[][]}} intervals of η; `sgd` is null for momentum at other angles than 0
     *   and 90. `resolution` is 0 where every sign change is found by construction; otherwise
     *   intervals or gaps narrower than it may be missing, or need not exist. `brackets` has one
     *   interval per end of `sgd` (but 0) in which it is known to be
     */
    stableSteps(model, effort = "fine") {
      const law = new TwoGradients(model);
      const edges = { gd: [[0, law.gdEdge]], meanSquare: [[0, law.meanSquareEdge]] };
      let found = { sgd: null, resolution: 0, brackets: [] };
      if (law.beta > 0 && law.sums) found = scannedMomentum(law, effort);
      else if (law.sums) {
        const sgd = law.sums.map((sum) => sum.negative()).reduce(intersection);
        found = { sgd, resolution: 0, brackets: sgd.flat().filter((x) => x > 0).map(rounded) };
      } else if (law.beta === 0) found = scannedSteps(law, effort);
      return { ...edges, ...found };
    },
  });

  // ----------------------------------------------------------------- the cubic map

  /*
   * Gradient descent on (κ/2)(1 − uv)² with u = v = x is x' = x + a x (1 − x²), a = ηκ. For a ≤ 2 it
   * keeps the interval |x| ≤ √(1 + 2/a). Its critical points are ±√((1 + a)/(3a)), and it is odd.
   */
  const LONGEST_PERIOD = 64;
  const SETTLED = 20000; // steps before a period is looked for
  const TRANSIENT = 1000; // steps that the exponent leaves out

  function slope(x, a) {
    return 1 + a - 3 * a * x * x;
  }

  /** Return the image of the critical point. */
  function criticalValue(a) {
    return cubic.step(Math.sqrt((1 + a) / (3 * a)), a);
  }

  const cubic = Object.freeze({
    /** Return x + a x (1 − x²). */
    step(x, a) {
      return x - a * (x * x - 1) * x;
    },

    /**
     * Return start and the `steps` points after it.
     *
     * @returns {Float64Array} of length steps + 1
     */
    orbit(start, a, steps) {
      const points = new Float64Array(steps + 1);
      points[0] = start;
      for (let n = 0; n < steps; n++) points[n + 1] = cubic.step(points[n], a);
      return points;
    },

    /**
     * Return consecutive points of an orbit after a transient; NaN where it has run away.
     *
     * @returns {Float64Array} of length points
     */
    attractor(a, transient, points, start) {
      let x = start;
      for (let n = 0; n < transient; n++) x = cubic.step(x, a);
      const found = new Float64Array(points);
      for (let n = 0; n < points; n++) {
        x = cubic.step(x, a);
        found[n] = Math.abs(x) < 1e6 ? x : NaN;
      }
      return found;
    },

    /**
     * Return the smallest period up to 64 of the attracting cycle that the critical point reaches.
     *
     * @returns {number|null} null where there is none: a longer one, chaos, or a runaway
     */
    period(a) {
      let start = criticalValue(a);
      for (let n = 0; n < SETTLED; n++) start = cubic.step(start, a);
      for (let period = 1; period <= LONGEST_PERIOD && Number.isFinite(start); period++) {
        let x = start;
        for (let newton = 0; newton < 20; newton++) {
          let [y, multiplier] = [x, 1];
          for (let n = 0; n < period; n++) {
            multiplier *= slope(y, a);
            y = cubic.step(y, a);
          }
          const move = (y - x) / (multiplier - 1);
          x -= move;
          if (Math.abs(x - start) > 1e-3 || !Number.isFinite(move)) break;
          if (Math.abs(move) < 1e-14) {
            if (Math.abs(multiplier) < 1) return period;
            break;
          }
        }
      }
      return null;
    },

    /**
     * Return the mean of log|1 + a − 3a x²| along the orbit of the critical point.
     *
     * The point itself, where the logarithm is −∞, and the first 1000 steps are left out.
     *
     * @returns {number} −Infinity where the orbit meets the critical point again; NaN for a > 2
     */
    exponent(a, steps) {
      if (!(a <= 2)) return NaN;
      let x = criticalValue(a);
      for (let n = 0; n < TRANSIENT; n++) x = cubic.step(x, a);
      let sum = 0;
      for (let n = 0; n < steps; n++) {
        sum += Math.log(Math.abs(slope(x, a)));
        x = cubic.step(x, a);
      }
      return sum / steps;
    },
  });

  // ----------------------------------------------------------------- one neuron

  /*
   * ½(uwx − y)² with x = 1 and y = 1, flipped to −1 with probability f. Near the saddle u = w = 0 a
   * batch multiplies u + w by 1 − ηγ + ηz and u − w by 1 − ηγ − ηz, z the mean of its labels.
   */

  /** Return E log|a + bz| and a bound on its rounding error, as stabcore's `finite_mean_log`. */
  function meanLog(law, a, b) {
    let [value, nearest, reach] = [0, Infinity, 0];
    for (const { share, weight } of law) {
      const z = 1 - 2 * share;
      const factor = Math.abs(a + b * z);
      value += weight * Math.log(factor);
      nearest = Math.min(nearest, factor);
      reach = Math.max(reach, Math.abs(z));
    }
    if (nearest === 0) return { value: -Infinity, error: 0 };
    const largest = 1 + Math.abs(a) + Math.abs(b) * reach;
    const logs = Math.max(Math.abs(Math.log(nearest)), Math.log(largest));
    return { value, error: EPSILON * (largest / nearest + 4 + 2 * logs + Math.abs(value)) };
  }

  /** Return both exponents with their errors, the second moment, and E z. */
  function saddle(f, eta, decay, B) {
    const law = batches(f, B); // the share of flipped labels
    const offset = 1 - eta * decay;
    const mean = 1 - 2 * f;
    const second = mean * mean + (1 - mean * mean) / B;
    return {
      plus: meanLog(law, offset, eta),
      minus: meanLog(law, offset, -eta),
      meanSquare: offset * offset - 2 * offset * eta * Math.abs(mean) + eta * eta * second,
      mean,
    };
  }

  const neuron = Object.freeze({
    /**
     * Return Λ₊ = E log|1 − ηγ + ηz|, Λ₋ = E log|1 − ηγ − ηz| and E(1 − ηγ − ηz)² (the direction
     * that points away from the solution), as `stabcore.saddles.saddle_grid`.
     *
     * @param {number} f probability of a flipped label, 0 to 1
     * @param {number} eta step size η > 0
     * @param {number} decay weight decay γ ≥ 0
     * @param {number} B batch size
     * @returns {{plus: number, minus: number, meanSquare: number}}
     */
    exponents(f, eta, decay, B) {
      const { plus, minus, meanSquare } = saddle(f, eta, decay, B);
      return { plus: plus.value, minus: minus.value, meanSquare };
    },

    /**
     * Return the phase: "Ia" (it learns), "Ib" (it learns, in mean square too), "II" (it learns the
     * wrong sign), "III" (the saddle attracts), "IV" (both directions grow), or
     * "boundary/undetermined".
     *
     * @returns {string}
     */
    phase(f, eta, decay, B) {
      const { plus, minus, meanSquare, mean } = saddle(f, eta, decay, B);
      const tolerance = 16 * EPSILON;
      const [p, m] = [plus, minus].map(({ value, error }) =>
        Math.abs(value) <= Math.max(error, tolerance) ? 0 : Math.sign(value));
      if (p * m === 0) return "boundary/undetermined";
      if (p < 0 && m < 0) return "III";
      if (p > 0 && m > 0) return "IV";
      if (mean === 0) return "boundary/undetermined";
      if (p * mean < 0) return "II";
      if (Math.abs(meanSquare - 1) <= tolerance) return "boundary/undetermined";
      return meanSquare < 1 ? "Ib" : "Ia";
    },
  });

  return Object.freeze({ batches, logSum, negativeSteps, pair, gradients, cubic, neuron });
})();
