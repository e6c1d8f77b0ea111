/* The explorer's page: four pictures with one state.
 *
 * What is computed is in mathematics.js, what is drawn with is d3. A change is drawn at once, with
 * quick numbers; once nothing has moved for a moment, the numbers are refined in slices, the state
 * goes into the address, and one line says for screen readers what is seen.
 */
"use strict";

(() => {
  const { pair, gradients, cubic, neuron } = mathematics;

  // ------------------------------------------------------------------------------- the state

  /** What a reader can move: where it starts, from where to where, and what it is called. */
  const VARIABLES = {
    eta: { first: 0.15, low: 0.02, high: 2.5, log: true, label: "step size η" },
    p: { first: 0.5, low: 0.02, high: 0.98, step: 0.01, label: "probability p of the first sample" },
    batch: { first: 1, low: 1, high: 16, step: 1, label: "batch size B" },
    minimum: { first: 2.8, low: 0.295, high: 3.4, log: true, label: "weight θ₁ of the minimum" },
    ratio: { first: 6.25 / 0.81, low: 1, high: 100, log: true, label: "ratio k₂/k₁" },
    angle: { first: 0, low: 0, high: 90, step: 0.5, label: "angle in degrees" },
    momentum: { first: 0, low: 0, high: 0.95, step: 0.01, label: "momentum β" },
    flip: { first: 0.3, low: 0, high: 0.5, step: 0.005, label: "probability f of a flipped label" },
    decay: { first: 0, low: 0, high: 0.5, step: 0.005, label: "weight decay γ" },
  };
  const NAMES = Object.keys(VARIABLES);
  const FIRST = Object.fromEntries(NAMES.map((name) => [name, VARIABLES[name].first]));
  const state = { ...FIRST };

  const LARGEST = 3.5; // of θ₁ and θ₂ in the first picture
  const LARGEST_S = 3.4 ** 2 + 3.4 ** -2;
  const SETTLED = 180; // milliseconds without a change until numbers are refined
  const SLICE = 8; // points of a curve that are refined at a time

  /** Return a number within the range of a variable, or null for what is no number. */
  function clamped(name, value) {
    const { low, high, step } = VARIABLES[name];
    if (!Number.isFinite(value)) return null;
    const inside = Math.min(Math.max(value, low), high);
    return name === "batch" ? Math.round(inside / step) * step : inside;
  }

  /** Return the state that an address means, and the names of what it says wrongly. */
  function fromAddress(hash) {
    const found = { ...FIRST };
    const wrong = [];
    for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
      const value = name in VARIABLES && text !== "" ? clamped(name, Number(text)) : null;
      if (value === null) wrong.push(name);
      else {
        found[name] = value;
        if (value !== Number(text)) wrong.push(name);
      }
    }
    return { found, wrong };
  }

  /** Return the address of the state: what differs from the first state. */
  function toAddress() {
    const moved = NAMES.filter((name) => state[name] !== FIRST[name]);
    return moved.map((name) => `${name}=${rounded(state[name])}`).join("&");
  }

  const rounded = (value) => Number(value.toPrecision(6));

  /** Write a number for people: few digits, a real minus sign, ∞ for what has none. */
  function said(value, digits = 3) {
    if (Number.isNaN(value)) return "unknown";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    const text = size !== 0 && size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(digits)));
    return text.replace("-", "−");
  }

  const signed = (value, digits = 3) => (value > 0 ? "+" : "") + said(value, digits);

  /** Write intervals as the book does. */
  function intervalText(intervals, digits = 4) {
    if (intervals.length === 0) return "nowhere";
    const one = ([a, b]) => {
      const [from, to] = [said(a, digits), said(b, digits)];
      return from === to ? `a sliver at ${said((a + b) / 2, 6)}` : `(${from}, ${to})`;
    };
    return intervals.map(one).join(" and ");
  }

  /** Remember the last result of a function of numbers. */
  function remembered(compute) {
    let last = null;
    let result = null;
    return (...values) => {
      const key = values.join();
      if (key !== last) [last, result] = [key, compute(...values)];
      return result;
    };
  }

  // -------------------------------------------------------------------------------- pictures

  const MARGIN = { top: 10, right: 12, bottom: 40, left: 52 };

  /** Axes that fill the width of their place on the page, and what is drawn between them. */
  class Plot {
    constructor(id, { height, square = false, below = 0, x, y, xLabel, yLabel, xTicks = 6, yTicks = 5 }) {
      this.host = document.getElementById(id);
      Object.assign(this, { square, fixed: height, below, x, y, xTicks, yTicks });
      this.svg = d3.select(this.host).append("svg").attr("role", "img");
      this.clip = `${id}-clip`;
      this.frame = this.svg.append("clipPath").attr("id", this.clip).append("rect");
      this.back = this.svg.append("g").attr("clip-path", `url(#${this.clip})`);
      this.xAxis = this.svg.append("g").attr("class", "axis");
      this.yAxis = this.svg.append("g").attr("class", "axis");
      this.front = this.svg.append("g").attr("clip-path", `url(#${this.clip})`);
      this.over = this.svg.append("g");
      this.xName = this.svg.append("text").attr("class", "axis-name").attr("text-anchor", "middle").text(xLabel);
      this.yName = this.svg.append("text").attr("class", "axis-name").attr("text-anchor", "middle").text(yLabel);
      this.resize();
    }

    /** Fit the plot to its place; return whether that changed anything. */
    resize() {
      const width = Math.max(240, Math.floor(this.host.clientWidth));
      if (width === this.width) return false;
      this.width = width;
      const height = this.square ? Math.min(width, 340) : this.fixed;
      const right = this.square ? height + (MARGIN.left - MARGIN.bottom) : width;
      Object.assign(this, {
        left: MARGIN.left,
        right: Math.min(width, right) - MARGIN.right,
        top: MARGIN.top,
        bottom: height - MARGIN.bottom - this.below,
      });
      this.svg.attr("width", width).attr("height", height).attr("viewBox", `0 0 ${width} ${height}`);
      this.x.range([this.left, this.right]);
      this.y.range([this.bottom, this.top]);
      const [w, h] = [this.right - this.left, this.bottom - this.top];
      this.frame.attr("x", this.left).attr("y", this.top).attr("width", w).attr("height", h);
      this.xName.attr("x", (this.left + this.right) / 2).attr("y", this.bottom + 33);
      this.yName.attr("transform", `translate(12,${(this.top + this.bottom) / 2}) rotate(-90)`);
      return true;
    }

    axes() {
      const few = this.right - this.left < 330 ? Math.ceil(this.xTicks / 2) + 1 : this.xTicks;
      const across = d3.axisBottom(this.x).ticks(few).tickSizeOuter(0);
      if (this.x.base) across.tickValues([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]).tickFormat(d3.format("~g"));
      this.xAxis.attr("transform", `translate(0,${this.bottom})`).call(across);
      const up = d3.axisLeft(this.y).ticks(this.yTicks).tickSizeOuter(0);
      this.yAxis.attr("transform", `translate(${this.left},0)`).call(up);
    }

    /** Draw curves [[class, points], …]; a point that is not finite breaks a curve. */
    curves(list) {
      const [low, high] = d3.extent(this.y.range());
      const beyond = (value) => Math.min(Math.max(this.y(value), low - 50), high + 50);
      const line = d3
        .line()
        .defined(([, b]) => !Number.isNaN(b))
        .x(([a]) => this.x(a))
        .y(([, b]) => (b === -Infinity ? high + 50 : beyond(b)));
      this.front
        .selectAll("path.curve")
        .data(list)
        .join("path")
        .attr("class", ([kind]) => `curve ${kind}`)
        .attr("d", ([, points]) => line(points));
    }

    /** Tint intervals of the horizontal axis: [[from, to, class], …]. */
    tint(regions) {
      this.back
        .selectAll("rect.region")
        .data(regions)
        .join("rect")
        .attr("class", ([, , kind]) => `region ${kind}`)
        .attr("x", ([a]) => this.x(a))
        .attr("width", ([a, b]) => Math.max(this.x(b) - this.x(a), 1))
        .attr("y", this.top)
        .attr("height", this.bottom - this.top);
    }

    /** Draw straight lines [[class, x1, y1, x2, y2], …] in the units of the axes. */
    lines(list) {
      this.front
        .selectAll("line.mark")
        .data(list)
        .join("line")
        .attr("class", ([kind]) => `mark ${kind}`)
        .attr("x1", (d) => this.x(d[1]))
        .attr("y1", (d) => this.y(d[2]))
        .attr("x2", (d) => this.x(d[3]))
        .attr("y2", (d) => this.y(d[4]));
    }

    /** Write texts [[class, x, y, anchor, text], …] in the units of the axes. */
    texts(list) {
      this.over
        .selectAll("text.note")
        .data(list)
        .join("text")
        .attr("class", ([kind]) => `note ${kind}`)
        .attr("x", (d) => this.x(d[1]))
        .attr("y", (d) => this.y(d[2]))
        .attr("text-anchor", (d) => d[3])
        .text((d) => d[4]);
    }

    /** Show a picture of pixels behind the curves. */
    picture(href) {
      this.back
        .selectAll("image")
        .data([href])
        .join("image")
        .attr("preserveAspectRatio", "none")
        .attr("x", this.left)
        .attr("y", this.top)
        .attr("width", this.right - this.left)
        .attr("height", this.bottom - this.top)
        .attr("href", (d) => d);
    }

    /** Put the handle at a point; what `moved` makes of a place of the axes is the new state. */
    handle(x, y, moved) {
      const place = `translate(${this.x(x)},${this.y(y)})`;
      const fresh = this.over.selectAll("g.handle").data([0]);
      const made = fresh.enter().append("g").attr("class", "handle");
      made.append("circle").attr("class", "reach").attr("r", 22);
      made.append("circle").attr("class", "knob").attr("r", 8);
      made.merge(fresh).attr("transform", place);
      if (made.empty()) return;
      const at = (event) => {
        const [px, py] = d3.pointer(event, this.svg.node());
        const inside = (value, [a, b]) => Math.min(Math.max(value, Math.min(a, b)), Math.max(a, b));
        moved(this.x.invert(inside(px, this.x.range())), this.y.invert(inside(py, this.y.range())));
      };
      made.call(
        d3
          .drag()
          .container(() => this.svg.node())
          .on("start", () => this.svg.classed("dragged", true))
          .on("drag", (event) => at(event.sourceEvent.touches ? event.sourceEvent.touches[0] : event.sourceEvent))
          .on("end", () => this.svg.classed("dragged", false)),
      );
      this.svg.on("click", (event) => {
        const [px, py] = d3.pointer(event);
        if (px >= this.left && px <= this.right && py >= this.top && py <= this.bottom) at(event);
      });
    }
  }

  /** Return the address of a picture of pixels, `colour(column, row)` -> [r, g, b, a]. */
  function pixels(columns, rows, colour) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        image.data.set(colour(column, row), 4 * (row * columns + column));
      }
    }
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  const range = (count, low, high) => d3.range(count).map((k) => low + (k * (high - low)) / (count - 1));
  const geometric = (count, low, high) => range(count, Math.log(low), Math.log(high)).map(Math.exp);
  const show = (name, text) =>
    document.querySelectorAll(`[data-live="${name}"]`).forEach((place) => (place.textContent = text));

  // ------------------------------------------------------------- 1. which minima are stable

  // Who can stay at a minimum.
  const KINDS = {
    both: "both GD and SGD",
    gd: "GD, but not SGD",
    sgd: "SGD, but not GD",
    neither: "neither GD nor SGD",
  };

  const within = (intervals, value) => intervals.some(([a, b]) => a < value && value < b);

  function kindOf(gd, sgd) {
    if (gd) return sgd ? "both" : "gd";
    return sgd ? "sgd" : "neither";
  }

  /** Cut [low, high] where an exponent changes sign: [[from, to, region], …]. */
  function regionsOf(sets, low, high) {
    const ends = [...sets.gd, ...sets.sgd].flat().filter((end) => end > low && end < high);
    const cuts = [low, ...new Set(ends.sort(d3.ascending)), high];
    return d3.pairs(cuts).map(([a, b]) => {
      const middle = (a + b) / 2;
      return [a, b, kindOf(within(sets.gd, middle), within(sets.sgd, middle))];
    });
  }

  const sharpnessOf = (first) => first ** 2 + first ** -2;
  const larger = (s) => Math.sqrt((s + Math.sqrt(Math.max(s * s - 4, 0))) / 2);

  function makeMinima() {
    const plane = new Plot("minima-plane", {
      square: true,
      x: d3.scaleLinear().domain([0, LARGEST]),
      y: d3.scaleLinear().domain([0, LARGEST]),
      xLabel: "θ₁",
      yLabel: "θ₂",
    });
    const graph = new Plot("minima-exponents", {
      height: 300,
      x: d3.scaleLinear().domain([2, LARGEST_S]),
      y: d3.scaleLinear().domain([-2.4, 2]),
      xLabel: "s = θ₁² + θ₂² of the minimum",
      yLabel: "exponent",
    });
    const places = range(300, 2, LARGEST_S);

    function draw() {
      const { minimum, eta, p, batch } = state;
      const s = sharpnessOf(minimum);
      const arcs = pair.arcs(eta, p, batch);
      const here = pair.exponents(s, eta, p, batch);
      const regions = regionsOf(arcs, 2, LARGEST_S);
      const kind = kindOf(here.mu < 0, here.lambda < 0);

      plane.axes();
      const arm = ([a, b], side) =>
        range(60, larger(a), larger(b)).map((t) => (side > 0 ? [t, 1 / t] : [1 / t, t]));
      const arms = (region) => [1, -1].map((side) => [`arc ${region[2]}`, arm(region, side)]);
      plane.curves(regions.flatMap(arms));
      plane.texts([["", 1.35, 1.35, "start", "minima θ₁θ₂ = 1"]]);
      plane.handle(minimum, 1 / minimum, (x, y) => change({ minimum: nearest(x, y) }));

      graph.axes();
      graph.tint(regions);
      const exponents = places.map((one) => [one, pair.exponents(one, eta, p, batch)]);
      graph.curves([
        ["gd", exponents.map(([one, { mu }]) => [one, mu])],
        ["mean-square", exponents.map(([one, { meanSquare }]) => [one, meanSquare])],
        ["sgd", exponents.map(([one, { lambda }]) => [one, lambda])],
      ]);
      graph.lines([
        ["zero", 2, 0, LARGEST_S, 0],
        ["now", s, -9, s, 9],
      ]);
      const onSameArm = (t) => (state.minimum < 1 ? 1 / t : t);
      const height = Math.max(here.lambda, -2.3);
      graph.handle(s, height, (x) => change({ minimum: onSameArm(larger(x)) }));

      show("s", said(s));
      show("mu", signed(here.mu));
      show("lambda", signed(here.lambda));
      show("minima-verdict", KINDS[kind]);
      const [gd, sgd] = [intervalText(arcs.gd), intervalText(arcs.sgd)];
      show("arcs-gd", gd);
      show("arcs-sgd", sgd);
      const text =
        `The minimum at s = ${said(s)} is stable for ${KINDS[kind]}: ` +
        `μ is ${signed(here.mu)}, λ is ${signed(here.lambda)}.`;
      plane.svg.attr("aria-label", `The curve of minima, coloured by who can stay there. ${text}`);
      const where = `μ is negative for s in ${gd}, λ for s in ${sgd}`;
      graph.svg.attr("aria-label", `The exponents along the curve: ${where}. ${text}`);
      return text;
    }

    /** Return θ₁ of the minimum nearest to a point. */
    function nearest(x, y) {
      const candidates = geometric(400, VARIABLES.minimum.low, VARIABLES.minimum.high);
      return d3.least(candidates, (t) => (t - x) ** 2 + (1 / t - y) ** 2);
    }

    function python() {
      const { minimum, eta, p, batch } = state;
      return [
        "from stabcore import SGD, Minimum, ReluPair, gd_exponent, sgd_exponent, stable_arcs",
        "",
        `step_size, method = ${rounded(eta)}, SGD(batch_size=${batch}, replacement=True)`,
        `problem = ReluPair(probabilities=[${rounded(p)}, ${rounded(1 - rounded(p))}])`,
        `minimum = Minimum.at(problem, [${rounded(minimum)}, 1 / ${rounded(minimum)}])`,
        'print("mu:    ", gd_exponent(minimum, step_size))',
        'print("lambda:", sgd_exponent(minimum, step_size, method))',
        "print(stable_arcs(problem, step_size, method))",
      ];
    }

    return { plots: [plane, graph], needs: ["eta", "p", "batch", "minimum"], draw, python };
  }

  // ---------------------------------------------------------- 2. two gradients, at an angle

  /** Return the two gradients: together as long as those of the first picture's minimum. */
  function model() {
    const { minimum, ratio, angle, p, batch, momentum } = state;
    const total = sharpnessOf(minimum) * d3.sum(pair.curvatures);
    return { k1: total / (1 + ratio), k2: (total * ratio) / (1 + ratio), angle, p, batch, momentum };
  }

  const STEPS = [VARIABLES.eta.low, VARIABLES.eta.high];
  const ROWS = [
    ["gd", "GD"],
    ["sgd", "SGD"],
    ["meanSquare", "mean sq."],
  ];

  function makeGradients() {
    const arrows = new Plot("gradients-arrows", {
      square: true,
      x: d3.scaleLinear().domain([-0.25, 1.15]),
      y: d3.scaleLinear().domain([-0.25, 1.15]),
      xLabel: "",
      yLabel: "",
    });
    const graph = new Plot("gradients-exponents", {
      height: 370,
      below: 74,
      x: d3.scaleLog().domain(STEPS),
      y: d3.scaleLinear().domain([-2, 2]),
      xLabel: "step size η",
      yLabel: "exponent",
    });
    const etas = Float64Array.from(geometric(160, ...STEPS));
    let steps = null; // what depends on the model only: curves and stable step sizes
    let here = null; // the exponents at the step size

    const overSteps = remembered((k1, k2, angle, p, batch, momentum) => {
      const now = { k1, k2, angle, p, batch, momentum };
      return {
        refined: false, // the sets,
        curveRefined: false,
        curve: gradients.curve(now, etas, "quick"),
        sets: gradients.stableSteps(now, "quick"),
      };
    });

    function drawQuickly() {
      const now = model();
      steps = overSteps(now.k1, now.k2, now.angle, now.p, now.batch, now.momentum);
      here = gradients.exponents(now, state.eta, "quick");
      return draw();
    }

    /** Refine what is shown, a slice at a time. */
    function* refine() {
      const now = model();
      here = gradients.exponents(now, state.eta, "fine");
      yield draw();
      if (steps.curveRefined) return;
      steps.sets = gradients.stableSteps(now, "fine");
      steps.refined = true;
      yield draw();
      for (let start = 0; start < etas.length; start += SLICE) {
        const piece = gradients.curve(now, etas.subarray(start, start + SLICE), "fine");
        steps.curve.lambda.set(piece.lambda, start);
        yield null;
      }
      steps.curveRefined = true;
      yield draw();
    }

    function draw() {
      const { k1, k2, angle, momentum } = model();
      const { curve, sets } = steps;
      const [long1, long2] = [Math.sqrt(k1 / k2), 1];
      const turn = (angle * Math.PI) / 180;
      const tip = [long2 * Math.cos(turn), long2 * Math.sin(turn)];
      arrows.curves([["angle", range(30, 0, turn).map((a) => [0.25 * Math.cos(a), 0.25 * Math.sin(a)])]]);
      arrows.lines([
        ["arrow second", 0, 0, ...tip],
        ["arrow first", 0, 0, long1, 0],
      ]);
      arrows.texts([
        ["", long1 / 2, -0.12, "middle", "g₁"],
        ["", tip[0] / 2 - 0.08 * Math.sin(turn), tip[1] / 2 + 0.08 * Math.cos(turn) + 0.03, "middle", "g₂"],
        ["", 0.33, 0.06 + 0.04 * Math.sin(turn), "start", `${said(angle)}°`],
      ]);
      arrows.handle(...tip, (x, y) => {
        const degrees = (Math.atan2(Math.max(y, 0), x) * 180) / Math.PI;
        const snapped = [0, 90].find((end) => Math.abs(degrees - end) < 1.5);
        change({ angle: snapped ?? degrees });
      });

      graph.axes();
      graph.curves([
        ["gd", Array.from(etas, (eta, k) => [eta, curve.mu[k]])],
        ["mean-square", Array.from(etas, (eta, k) => [eta, curve.meanSquare[k]])],
        ["sgd", Array.from(etas, (eta, k) => [eta, curve.lambda[k]])],
      ]);
      graph.lines([
        ["zero", STEPS[0], 0, STEPS[1], 0],
        ["now", state.eta, -9, state.eta, 9],
      ]);
      bars(sets);
      const height = Number.isNaN(here.lambda.value) ? here.meanSquare : here.lambda.value;
      graph.handle(state.eta, Math.min(Math.max(height, -1.9), 1.9), (x) => change({ eta: x }));

      const lambda = here.lambda;
      const exact = lambda.how !== "bounds";
      const digits = lambda.upper - lambda.lower < 1e-6 ? 6 : 3;
      const value = exact
        ? signed(lambda.value, digits)
        : `between ${signed(lambda.lower)} and ${signed(lambda.upper)}`;
      const verdict = { "-1": "stable", 0: "on the edge", 1: "unstable" }[lambda.sign] ?? "undecided here";
      show("gradients-mu", signed(here.mu));
      show("gradients-lambda", value);
      show("gradients-mean-square", signed(here.meanSquare));
      show("gradients-verdict", verdict);
      show("gradients-how", lambda.how);
      show("steps-gd", intervalText(sets.gd));
      const sgd = stepsText(sets);
      show("steps-sgd", sgd);
      show("steps-mean-square", intervalText(sets.meanSquare));
      const at = `${said(angle)} degrees`;
      arrows.svg.attr("aria-label", `Two gradients at an angle of ${at}, squared lengths ${said(k1)} and ${said(k2)}.`);
      graph.svg.attr(
        "aria-label",
        `Exponents over the step size. GD is stable for η in ${intervalText(sets.gd)}, SGD: ${sgd}, ` +
          `SGD in mean square in ${intervalText(sets.meanSquare)}.`,
      );
      return `Two gradients at ${at}${momentum ? `, momentum ${said(momentum)}` : ""}: λ is ${value}, SGD is ${verdict}.`;
    }

    /** Say where SGD is stable, and how narrow an interval may have been missed. */
    function stepsText({ sgd, resolution }) {
      if (sgd === null) return "not computed here for momentum at this angle";
      const digits = resolution === 0 || steps.refined ? 4 : 2;
      const blind = resolution === 0 ? "" : ` (resolution ${said(resolution, 2)})`;
      return intervalText(sgd, digits) + blind;
    }

    /** Draw the stable step sizes as bars below the axis. */
    function bars(sets) {
      const top = (k) => graph.bottom + 46 + 22 * k;
      const [low, high] = STEPS.map((end) => graph.x(end));
      const data = ROWS.flatMap(([name], k) => {
        const shown = sets[name] ?? sets.meanSquare;
        return shown
          .filter(([a, b]) => b >= STEPS[0] && a <= STEPS[1])
          .map(([a, b]) => ({ name, k, a: Math.max(a, STEPS[0]), b: Math.min(b, STEPS[1]) }));
      });
      graph.over
        .selectAll("rect.rail")
        .data(ROWS)
        .join("rect")
        .attr("class", "rail")
        .attr("x", low)
        .attr("width", high - low)
        .attr("y", (_, k) => top(k))
        .attr("height", 14);
      graph.over
        .selectAll("rect.bar")
        .data(data)
        .join("rect")
        .attr("class", ({ name }) => `bar ${name}`)
        .attr("x", ({ a, b }) => Math.min(graph.x(a), graph.x(b) - 2))
        .attr("width", ({ a, b }) => Math.max(graph.x(b) - graph.x(a), 2))
        .attr("y", ({ k }) => top(k))
        .attr("height", 14);
      graph.over
        .selectAll("text.row")
        .data(ROWS)
        .join("text")
        .attr("class", "row")
        .attr("text-anchor", "end")
        .attr("x", low - 4)
        .attr("y", (_, k) => top(k) + 11)
        .text(([, label]) => label);
      graph.over
        .selectAll("line.through")
        .data([state.eta])
        .join("line")
        .attr("class", "mark now through")
        .attr("x1", (eta) => graph.x(eta))
        .attr("x2", (eta) => graph.x(eta))
        .attr("y1", graph.bottom + 42)
        .attr("y2", top(2) + 16);
    }

    function python() {
      const { k1, k2, angle, p, batch, momentum } = model();
      const cosine = { 0: "1.0", 90: "0.0" }[angle] ?? `np.cos(np.radians(${rounded(angle)}))`;
      const more = momentum ? `, momentum=${rounded(momentum)}` : "";
      return [
        "import numpy as np",
        "from stabcore import GD, SGD, Minimum, gd_exponent, sgd_exponent, stable_steps",
        "",
        `k1, k2, cosine = ${k1}, ${k2}, ${cosine}`,
        "across = cosine * np.sqrt(k1 * k2)",
        `minimum = Minimum([[k1, across], [across, k2]], [${rounded(p)}, ${rounded(1 - rounded(p))}])`,
        `step_size, method = ${rounded(state.eta)}, SGD(batch_size=${batch}, replacement=True${more})`,
        'print("lambda:", sgd_exponent(minimum, step_size, method))',
        "print(stable_steps(minimum, method))",
      ];
    }

    const needs = ["eta", "p", "batch", "minimum", "ratio", "angle", "momentum"];
    return { plots: [arrows, graph], needs, refine, draw: drawQuickly, python };
  }

  // -------------------------------------------------------- 3. beyond the last stable step

  const meanCurvature = () => state.p * pair.curvatures[0] + (1 - state.p) * pair.curvatures[1];

  function makeLargeSteps() {
    const [low, high, size] = [0.8, 2.02, 1.6]; // of a = ηc, and of |x|
    const diagram = new Plot("orbits-diagram", {
      height: 300,
      x: d3.scaleLinear().domain([low, high]),
      y: d3.scaleLinear().domain([-size, size]),
      xLabel: "step size η",
      yLabel: "x = θ₁ = θ₂",
      xTicks: 5,
    });
    const cobweb = new Plot("orbits-cobweb", {
      square: true,
      x: d3.scaleLinear().domain([-size, size]),
      y: d3.scaleLinear().domain([-size, size]),
      xLabel: "x",
      yLabel: "x after a step",
    });
    const places = range(200, -size, size);

    /** The diagram in units of a does not depend on anything; only its axis does. */
    const picture = remembered((dark) => {
      const [columns, rows] = [480, 320];
      const counts = [new Float32Array(columns * rows), new Float32Array(columns * rows)];
      for (let column = 0; column < columns; column += 1) {
        const a = low + ((column + 0.5) / columns) * (high - low);
        [0.3, -0.3].forEach((start, k) => {
          for (const x of a <= 2 ? cubic.attractor(a, 400, 300, start) : []) {
            const row = Math.floor(((size - x) / (2 * size)) * rows);
            if (row >= 0 && row < rows) counts[k][row * columns + column] += 1;
          }
        });
      }
      const [one, other] = dark ? [[120, 185, 240], [130, 130, 130]] : [[0, 90, 150], [150, 150, 150]];
      return pixels(columns, rows, (column, row) => {
        const at = row * columns + column;
        const colour = counts[0][at] ? one : other;
        const seen = counts[0][at] || counts[1][at];
        return [...colour, seen ? 60 + 195 * Math.min(1, seen / 12) : 0];
      });
    });

    function draw() {
      const c = meanCurvature();
      const a = state.eta * c;
      diagram.x.domain([low / c, high / c]);
      diagram.axes();
      diagram.picture(picture(isDark()));
      diagram.lines([
        ["edge", 1 / c, -9, 1 / c, 9],
        ["now", state.eta, -9, state.eta, 9],
      ]);
      diagram.texts([["", 1.005 / c, -size * 0.93, "start", "1/c"]]);
      const shown = Math.min(Math.max(state.eta, low / c), high / c);
      diagram.handle(shown, 0, (x) => change({ eta: x }));

      const whole = Array.from(cubic.orbit(0.3, a, 120));
      const gone = whole.findIndex((x) => Math.abs(x) > 2 * size);
      const orbit = gone < 0 ? whole : whole.slice(0, gone + 1);
      const path = orbit.slice(0, -1).flatMap((x, k) => [[x, k ? x : 0], [x, orbit[k + 1]]]);
      cobweb.axes();
      cobweb.curves([
        ["diagonal", [[-size, -size], [size, size]]],
        ["map", places.map((x) => [x, cubic.step(x, a)])],
        ["orbit early", path],
        ["orbit late", path.slice(-49)],
      ]);

      const period = a <= 2 ? cubic.period(a) : null;
      const settles = period && a < 1 ? "the flattest minimum" : period === 1 ? "one point" : period ? `${period} points, in turn` : "no short cycle";
      const fate =
        a > 2
          ? "almost every run leaves"
          : period
            ? `runs settle on ${settles}`
            : `runs wander; the exponent of the orbit is ${signed(cubic.exponent(a, 20000), 2)}`;
      show("c", said(c));
      show("a", said(a));
      show("last-step", said(1 / c, 4));
      show("fate", fate);
      diagram.svg.attr("aria-label", `Where runs on the diagonal end, over the step size: the minimum up to ${said(1 / c)}, cycles and chaos beyond. At η = ${said(state.eta)} ${fate}.`);
      cobweb.svg.attr("aria-label", `The first 120 steps of one run as a cobweb: ${fate}.`);
      return `On the diagonal ${fate}.`;
    }

    function python() {
      const p = rounded(state.p);
      return [
        "from stabcore import ScalarFactorization",
        "from stabcore.descent import bifurcation_diagram, map_exponent",
        "",
        `step_size = ${rounded(state.eta)}`,
        `problem = ScalarFactorization([0.9, 2.5], [${p}, ${rounded(1 - p)}])`,
        "found = bifurcation_diagram(problem, [step_size], 0.3)",
        'print("last points:", found.points[0, -8:])',
        "if not found.diverged[0]:",
        '    print("exponent of the orbit:", map_exponent(problem, step_size, 0.3))',
      ];
    }

    return { plots: [diagram, cobweb], needs: ["eta", "p"], draw, python };
  }

  // ------------------------------------------------------------------ 4. a neuron's saddle

  const PHASES = {
    Ia: ["#8FD3BC", "it learns, but not in mean square"],
    Ib: ["#009E73", "it learns"],
    II: ["#CC79A7", "it learns the wrong sign"],
    III: ["#34346B", "it falls into the saddle"],
    IV: ["#C9C9C9", "both directions grow"],
  };
  const UNDETERMINED = ["#FFFFFF", "a boundary"];

  function makeNeuron() {
    const plane = new Plot("neuron-phases", {
      height: 320,
      x: d3.scaleLinear().domain([0, VARIABLES.eta.high]),
      y: d3.scaleLinear().domain([0, 0.5]),
      xLabel: "step size η",
      yLabel: "probability f of a flip",
    });
    const [columns, rows] = [150, 75];

    const phases = remembered((decay, batch) => {
      const cells = [];
      for (let row = 0; row < rows; row += 1) {
        const flip = 0.5 * (1 - (row + 0.5) / rows);
        for (let column = 0; column < columns; column += 1) {
          const eta = (VARIABLES.eta.high * (column + 0.5)) / columns;
          cells.push(neuron.phase(flip, eta, decay, batch));
        }
      }
      const colours = Object.fromEntries(Object.entries(PHASES).map(([name, [colour]]) => [name, d3.rgb(colour)]));
      const blank = d3.rgb(UNDETERMINED[0]);
      const href = pixels(columns, rows, (column, row) => {
        const { r, g, b } = colours[cells[row * columns + column]] ?? blank;
        return [r, g, b, 255];
      });
      return { href, labels: labels(cells) };
    });

    /** Return for each phase the cell that lies deepest inside it, if that is deep enough for a word. */
    function labels(cells) {
      const depth = new Int16Array(cells.length);
      const at = (row, column) =>
        row < 0 || column < 0 || row >= rows || column >= columns ? 0 : depth[row * columns + column];
      const sweep = (order, back) => {
        for (const row of order(rows)) {
          for (const column of order(columns)) {
            const cell = row * columns + column;
            const same = (r, k) => r >= 0 && k >= 0 && r < rows && k < columns && cells[r * columns + k] === cells[cell];
            const near = [[row - back, column], [row, column - back]].map(([r, k]) => (same(r, k) ? at(r, k) : 0));
            depth[cell] = back > 0 ? Math.min(...near) + 1 : Math.min(depth[cell], Math.min(...near) + 1);
          }
        }
      };
      sweep((n) => d3.range(n), 1);
      sweep((n) => d3.range(n - 1, -1, -1), -1);
      return Object.keys(PHASES).flatMap((name) => {
        const best = d3.greatest(d3.range(cells.length).filter((cell) => cells[cell] === name), (cell) => depth[cell]);
        if (best === undefined || depth[best] < 5) return [];
        const [row, column] = [Math.floor(best / columns), best % columns];
        return [[`phase-name ${name}`, (VARIABLES.eta.high * (column + 0.5)) / columns, 0.5 * (1 - (row + 0.5) / rows), "middle", name]];
      });
    }

    function draw() {
      const { flip, eta, decay, batch } = state;
      const { href, labels: names } = phases(decay, batch);
      plane.axes();
      plane.picture(href);
      plane.texts(names);
      plane.lines([["now", eta, -1, eta, 1]]);
      plane.handle(eta, flip, (x, y) => change({ eta: x, flip: y }));
      const { plus, minus } = neuron.exponents(flip, eta, decay, batch);
      const phase = neuron.phase(flip, eta, decay, batch);
      const meaning = (PHASES[phase] ?? UNDETERMINED)[1];
      show("phase", phase in PHASES ? `phase ${phase}` : "a boundary");
      show("phase-meaning", meaning);
      show("plus", signed(plus));
      show("minus", signed(minus));
      const text = `The neuron is in ${phase in PHASES ? `phase ${phase}` : "no phase"}: ${meaning}.`;
      plane.svg.attr("aria-label", `The phases over step size and flips. ${text}`);
      return text;
    }

    function python() {
      const { flip, eta, decay, batch } = state;
      const more = decay ? `, weight_decay=${rounded(decay)}` : "";
      return [
        "from stabcore import SGD",
        "from stabcore.problems import LabelFlips",
        "from stabcore.saddles import Phase, saddle_grid",
        "",
        `method = SGD(batch_size=${batch}${more})`,
        `grid = saddle_grid(LabelFlips(${rounded(flip)}), ${rounded(eta)}, method)`,
        'print("plus, minus:", grid.plus, grid.minus)',
        'print("phase:", Phase(int(grid.phases)))',
      ];
    }

    return { plots: [plane], needs: ["eta", "batch", "flip", "decay"], draw, python };
  }

  // --------------------------------------------------------------------------- the controls

  const toSlider = (name, value) => {
    const { low, high, log } = VARIABLES[name];
    return log ? (1000 * Math.log(value / low)) / Math.log(high / low) : value;
  };
  const fromSlider = (name, place) => {
    const { low, high, log } = VARIABLES[name];
    return log ? rounded(low * (high / low) ** (place / 1000)) : place;
  };

  /** Make the slider of a variable, and the field in which its number can be typed. */
  function makeControl(place) {
    const name = place.dataset.control;
    const { low, high, log, step, label } = VARIABLES[name];
    const box = d3.select(place).attr("class", "explorer-control");
    box.append("label").attr("for", `explorer-${name}`).text(label);
    const slider = box
      .append("input")
      .attr("type", "range")
      .attr("id", `explorer-${name}`)
      .attr("min", log ? 0 : low)
      .attr("max", log ? 1000 : high)
      .attr("step", log ? 2 : step)
      .on("input", (event) => change({ [name]: fromSlider(name, event.target.valueAsNumber) }));
    const field = box
      .append("input")
      .attr("type", "number")
      .attr("aria-label", `${label}, typed`)
      .attr("min", low)
      .attr("max", high)
      .attr("step", "any")
      .on("change", (event) => {
        const typed = event.target.valueAsNumber;
        change({ [name]: typed });
        refresh();
      });
    function refresh() {
      const value = state[name];
      slider.property("value", toSlider(name, value));
      slider.attr("aria-valuetext", `${label} ${said(value, 4)}`);
      field.property("value", Number(value.toPrecision(4)));
    }
    return refresh;
  }

  /** Make the fold with the same question in Python, and its button. */
  function makePython(place, python) {
    const fold = d3.select(place).append("details").attr("class", "explorer-python");
    fold.append("summary").text("The same question in Python");
    const code = fold.append("pre").attr("tabindex", 0).attr("role", "region").attr("aria-label", "Python").append("code");
    const button = fold.append("button").attr("type", "button").text("Copy");
    button.on("click", async () => {
      const done = await copied(code.text());
      button.text(done ? "Copied" : "Select the text and copy it");
      setTimeout(() => button.text("Copy"), 2000);
    });
    return () => code.text(`${python().join("\n")}\n`);
  }

  /** Put a text on the clipboard, from a file as well; return whether that worked. */
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = d3.select("body").append("textarea").attr("readonly", true).property("value", text);
      area.node().select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  const isDark = () => document.documentElement.dataset.theme === "dark";

  // ------------------------------------------------------------------------------- the page

  let panels = {};
  let refreshers = [];
  let waiting = null; // the frame in which the next change is drawn
  let settling = null; // the timer after which numbers are refined
  const stale = new Set(); // names of panels that no longer show the state
  const messages = {}; // what each panel last said

  /** Change the state and draw it; what is no number is left as it was. */
  function change(values) {
    const moved = Object.keys(values).filter((name) => {
      const inside = clamped(name, values[name]);
      const differs = inside !== null && inside !== state[name];
      if (differs) state[name] = inside;
      return differs;
    });
    redraw((panel) => panel.needs.some((name) => moved.includes(name)));
  }

  /** Draw some panels again: those in sight at once, the others when nothing moves any more. */
  function redraw(which) {
    Object.keys(panels).filter((name) => which(panels[name])).forEach((name) => stale.add(name));
    document.documentElement.dataset.explorer = "moving";
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      clearTimeout(settling);
      stale.forEach((name) => inSight(panels[name]) && draw(name));
      refreshers.forEach((refresh) => refresh());
      settling = setTimeout(settle, SETTLED);
    });
  }

  function draw(name) {
    stale.delete(name);
    messages[name] = panels[name].draw();
  }

  const inSight = ({ plots }) =>
    plots.some(({ host }) => {
      const { top, bottom } = host.getBoundingClientRect();
      return bottom > 0 && top < window.innerHeight;
    });

  /** Draw what is left, refine, write the address, and say what is seen. */
  function settle() {
    stale.forEach(draw);
    const address = toAddress();
    history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
    const slices = panels.gradients.refine();
    const next = () => {
      const { value, done } = slices.next();
      if (value) messages.gradients = value;
      if (done) {
        d3.select("#explorer-status").text(Object.keys(panels).map((name) => messages[name]).join(" "));
        document.documentElement.dataset.explorer = "settled";
      } else settling = setTimeout(next, 0);
    };
    settling = setTimeout(next, 0);
  }

  function readAddress() {
    if (location.hash && !location.hash.includes("=")) return;
    const { found, wrong } = fromAddress(location.hash);
    Object.assign(state, found);
    const note = wrong.length ? `The address has no usable value for: ${wrong.join(", ")}.` : "";
    d3.select("#explorer-warning").text(note).attr("hidden", note ? null : true);
    redraw(() => true);
  }

  function start() {
    document.documentElement.classList.add("explorer-live");
    panels = { minima: makeMinima(), gradients: makeGradients(), large: makeLargeSteps(), neuron: makeNeuron() };
    const controls = [...document.querySelectorAll("[data-control]")].map(makeControl);
    const codes = [...document.querySelectorAll("[data-python]")].map((place) =>
      makePython(place, panels[place.dataset.python].python),
    );
    refreshers = [...controls, ...codes];
    const fit = () => redraw(({ plots }) => plots.map((plot) => plot.resize()).some(Boolean));
    new ResizeObserver(fit).observe(document.getElementById("explorer-controls").parentElement);
    const themed = new MutationObserver(() => redraw(() => true));
    themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    d3.select("#explorer-reset").on("click", () => change(FIRST));
    window.addEventListener("hashchange", readAddress);
    readAddress();
  }

  start();
})();
