// The divergence strip: scores over positions, what they had to exceed, takeovers, and the budget's level.

"use strict";

{
  const { el, number } = globalThis.delegation;
  const HEIGHT = 104; // CSS pixels, of which the takeovers' marks take the upper MARKS
  const MARKS = 16;
  const FLOOR = 3; // room below the zero line

  const largest = (values) => values.reduce((one, other) => (other > one ? other : one), 0);
  const known = (values) => values.filter((each) => each !== null && Number.isFinite(each));

  /** What the axes end at: positions, scores and takeovers in the bucket. */
  const scales = (columns) => {
    const indices = [...columns.data.tokens.keys()];
    const last = indices.length ? columns.position(indices.length - 1) + 1 : 0;
    const least = known(indices.map((at) => columns.bar(at))).reduce((a, b) => Math.min(a, b), Infinity);
    const score = largest(known(indices.map((at) => columns.score(at))));
    const level = largest(known(indices.map((at) => columns.level(at))));
    return {
      count: Math.max(last, columns.data.summary?.tokens ?? 0, 1),
      // A spike may ask for far more than any score: where it does, its line leaves the strip.
      score: Math.max(score, Number.isFinite(least) ? 1.5 * least : 0) || 1,
      level: Math.max(level, columns.data.policy?.capacity ?? 0) || 1,
    };
  };

  /** Draws onto a canvas of `width` CSS pixels; colours come from the style sheet. */
  class Painter {
    constructor(canvas, columns, width) {
      const ratio = globalThis.devicePixelRatio || 1;
      canvas.width = Math.max(1, Math.round(width * ratio));
      canvas.height = HEIGHT * ratio;
      Object.assign(this, { columns, width, style: getComputedStyle(canvas), to: scales(columns) });
      this.pen = canvas.getContext("2d");
      this.pen.scale(ratio, ratio);
      this.step = width / this.to.count;
    }

    colour(name) {
      return this.style.getPropertyValue(`--${name}`).trim();
    }

    x(index) {
      return (this.columns.position(index) + 0.5) * this.step;
    }

    y(part) {
      return HEIGHT - FLOOR - Math.min(1, Math.max(0, part)) * (HEIGHT - FLOOR - MARKS);
    }

    scores() {
      const wide = Math.max(1, Math.min(8, this.step - 1));
      for (let at = 0; at < this.columns.length; at += 1) {
        const score = this.columns.score(at);
        if (score === null) continue;
        const top = this.y(score / this.to.score);
        this.pen.fillStyle = this.colour(this.columns.takeover(at) ? "takeover" : "bars");
        this.pen.fillRect(this.x(at) - wide / 2, top, wide, HEIGHT - FLOOR - top + 1);
      }
    }

    /** A stepped line through the values that are known. */
    line(read, top, colour, dashes) {
      const { pen } = this;
      pen.strokeStyle = this.colour(colour);
      pen.lineWidth = 1.5;
      pen.setLineDash(dashes);
      pen.beginPath();
      let open = false;
      for (let at = 0; at < this.columns.length; at += 1) {
        const found = read(at);
        const left = this.columns.position(at) * this.step;
        if (found === null || !Number.isFinite(found)) open = false;
        else {
          const height = this.y(found / top);
          if (open) pen.lineTo(left, height);
          else pen.moveTo(left, height);
          pen.lineTo(left + this.step, height);
          open = true;
        }
      }
      pen.stroke();
      pen.setLineDash([]);
    }

    takeovers() {
      const { pen } = this;
      for (let at = 0; at < this.columns.length; at += 1) {
        if (!this.columns.takeover(at)) continue;
        const x = this.x(at);
        pen.beginPath();
        pen.moveTo(x - 4.5, 2);
        pen.lineTo(x + 4.5, 2);
        pen.lineTo(x, 10.5);
        pen.closePath();
        pen.strokeStyle = pen.fillStyle = this.colour("takeover");
        pen.lineWidth = 1.25;
        if (this.columns.changed(at)) pen.fill();
        pen.stroke();
      }
    }

    cursor(index) {
      if (index === null || index >= this.columns.length) return;
      this.pen.fillStyle = this.colour("focus");
      this.pen.fillRect(this.x(index) - 1, 0, 2, HEIGHT);
    }
  }

  const swatch = (kind, text) =>
    el("span", { class: "key" }, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text);

  const described = (columns) => {
    const taken = [...columns.data.tokens.keys()].filter((at) => columns.takeover(at)).length;
    return `Scores over ${scales(columns).count} positions, with ${taken} takeovers marked. The same numbers are told token by token.`;
  };

  /**
   * A strip of an answer.
   *
   * `picked` is called with the entry whose position was clicked. The result has `element`, and `draw(index)`,
   * which draws it again with a cursor at an entry (null for none).
   */
  const strip = (columns, picked) => {
    const canvas = el("canvas", { role: "img", height: HEIGHT });
    const legend = el("figcaption", { class: "legend" });
    const element = el("figure", { class: "strip" }, canvas, legend);
    let cursor = null;
    let asked = false;

    const paint = () => {
      asked = false;
      const width = canvas.clientWidth;
      if (!width) return;
      const painter = new Painter(canvas, columns, width);
      painter.scores();
      painter.line((at) => columns.bar(at), painter.to.score, "bar", [5, 4]);
      painter.line((at) => columns.level(at), painter.to.level, "budget", []);
      painter.takeovers();
      painter.cursor(cursor);
      canvas.setAttribute("aria-label", described(columns));
      const { unit } = columns.data.policy ?? {};
      const level = columns.data.levels?.some((each) => each !== null);
      legend.replaceChildren(
        swatch("bars", `score, up to ${number(painter.to.score, 1)}${unit ? ` ${unit}` : ""}`),
        ...(columns.data.bars === null ? [] : [swatch("bar", "what it had to exceed")]),
        ...(level ? [swatch("budget", `budget left, up to ${number(painter.to.level, 1)}`)] : []),
        swatch("takeover", "takeover"),
        swatch("same", "takeover that changed nothing"),
      );
    };

    // Many changes before the next frame are drawn once.
    const draw = (index = cursor) => {
      cursor = index;
      if (asked) return;
      asked = true;
      requestAnimationFrame(paint);
    };

    const nearest = (event) => {
      const box = canvas.getBoundingClientRect();
      const wanted = ((event.clientX - box.left) / box.width) * scales(columns).count - 0.5;
      let best = null;
      for (let at = 0; at < columns.length; at += 1) {
        const off = Math.abs(columns.position(at) - wanted);
        if (best === null || off < best.off) best = { at, off };
      }
      return best?.at ?? null;
    };

    canvas.addEventListener("click", (event) => {
      const at = nearest(event);
      if (at !== null) picked(at);
    });
    new ResizeObserver(() => draw()).observe(canvas);
    return { element, draw };
  };

  globalThis.delegation.strip = strip;
}
