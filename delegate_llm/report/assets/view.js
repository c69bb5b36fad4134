// A view of one answer: its tokens shaded by score, takeovers marked, a strip, and a panel about a token.
//
//   const view = delegation.answerView(data)      // data: see columns.js; {id: "x", title: "…"} will do
//   document.body.append(view.element)
//
//   view.append(chunk)          decisions as they come; see columns.js. It may be called many times a frame.
//   view.select(entry, focus)   shows an entry in the panel (null: none); `focus` also moves the focus there
//   view.move(by, kind)         to the next (1) or last (-1) entry of a kind: "all", "takeovers", "changed";
//                               says whether there was one
//   view.filter(kind)           which entries stand out, and which the arrow keys visit
//   view.compare(on)            the base's own answer beside it; says whether there is one
//   view.redraw()               after a change of colours
//   view.columns                what is known, as `delegation.Columns`
//
// The scripts are loaded in this order: text.js, columns.js, strip.js, detail.js, view.js. Everything is
// made of text nodes and attributes: no text can become markup.

"use strict";

{
  const { clipped, Columns, detail, el, inline, number, strip, visible, withBreaks } = globalThis.delegation;
  const ARROWS = { ArrowLeft: -1, ArrowRight: 1 };
  const LONGEST_TEXT = 200000; // characters of a prompt or a text
  // Lines are laid out anew when any token of their block changes, so a long answer is cut: after so many tokens
  // at the next end of a line, and after so many more anywhere.
  const BLOCK = 400;
  const LONGEST_BLOCK = 2000;

  // --- Tokens ---

  /** The nodes of a token; spaces around a takeover stay outside of its box, which a line might break. */
  const said = (columns, at) => {
    const token = columns.data.tokens[at];
    const [start, rest] = clipped(token);
    const left = rest + Math.max(0, (columns.data.long[at] ?? 0) - token.length);
    const bare = columns.takeover(at) ? start.trim() : start;
    const inside = bare ? withBreaks(bare) : [start ? inline(start) : el("span", { class: "cut" }, "∅")];
    if (left) inside.push(el("span", { class: "cut" }, `… ${left} characters more`));
    const box = el("span", { class: "said" }, ...inside);
    if (!bare) return [box, ...withBreaks(start.replace(/[^\n]/g, ""))];
    const from = start.indexOf(bare);
    return [...withBreaks(start.slice(0, from)), box, ...withBreaks(start.slice(from + bare.length))];
  };

  const told = (columns, at) => {
    if (!columns.takeover(at)) return null;
    const [start] = clipped(columns.base(at), 80);
    const own = columns.changed(at) ? `the base would have said ${inline(start)}` : "the base would have said the same";
    return `${inline(clipped(columns.data.tokens[at], 80)[0])}, takeover, ${own}`;
  };

  const tokenElement = (columns, at) => {
    const kinds = [`s${columns.shade(at)}`];
    if (columns.takeover(at)) kinds.push("takeover", columns.changed(at) ? "changed" : "same");
    const made = el(
      "span",
      { class: `token ${kinds.join(" ")}`, role: "option", tabindex: "-1", "aria-selected": "false", "aria-label": told(columns, at) },
      ...said(columns, at),
    );
    if (columns.takeover(at) && columns.changed(at)) {
      const [start, rest] = clipped(columns.base(at), 80);
      made.append(el("del", { class: "instead" }, inline(start.trim() || start || "∅") + (rest ? "…" : "")));
    }
    return made;
  };

  // --- Around them ---

  const percent = (share) => `${(100 * (share ?? 0)).toFixed(1)}%`;

  const facts = (data) => {
    const sum = data.summary;
    const found = [];
    if (data.correct !== null && data.correct !== undefined)
      found.push(el("span", { class: data.correct ? "verdict right" : "verdict wrong" }, data.correct ? "✓ correct" : "✗ wrong"));
    if (data.arm) found.push(el("span", {}, visible(data.arm)));
    if (data.node) found.push(el("span", {}, `node ${visible(data.node)}`));
    if (sum) {
      found.push(el("span", {}, `${sum.tokens} tokens`));
      found.push(el("span", {}, `${sum.takeovers} takeovers (${percent(sum.share)}), ${sum.changed} changed`));
      found.push(el("span", {}, `reasoner asked at ${sum.asked}`));
    }
    if (data.seed !== null && data.seed !== undefined) found.push(el("span", {}, `seed ${data.seed}`));
    return found;
  };

  const longText = (text) => {
    const [start, rest] = clipped(text, LONGEST_TEXT);
    return [...withBreaks(start), rest ? el("span", { class: "cut" }, `… ${rest} characters more`) : null];
  };

  const folded = (name, kind, ...children) =>
    el("details", { class: kind }, el("summary", {}, name), ...children);

  const policyOf = (policy) =>
    folded(
      "Policy",
      "policy",
      el(
        "ul",
        {},
        el("li", {}, `divergence ${policy.divergence}, threshold ${number(policy.threshold)}${policy.unit ? ` ${policy.unit}` : ""}`),
        policy.spike ? el("li", {}, `spike: ${number(policy.spike)} times the mean of the last ${policy.spike_window} scores`) : null,
        ...policy.gates.map((gate) => el("li", {}, `gate: ${visible(gate)}`)),
        el("li", {}, `budget: ${policy.budget ?? "none, takeovers are not limited"}`),
      ),
    );

  /** What the shades mean. */
  const shades = () =>
    el(
      "p",
      { class: "shades" },
      "shade: score, ",
      ...[1, 2, 3, 4].map((step) => el("span", { class: `shade s${step}`, "aria-hidden": "true" })),
      " up to what it had to exceed, ",
      ...[5, 6].map((step) => el("span", { class: `shade s${step}`, "aria-hidden": "true" })),
      " above",
    );

  const headOf = (data) => [
    el("h2", { dir: "auto" }, visible(data.title ?? "")),
    el("p", { class: "facts" }, ...facts(data)),
    ...(data.notes ?? []).map((note) => el("p", { class: "note" }, visible(note))),
    el(
      "div",
      { class: "more" },
      data.prompt ? folded("Prompt", "prompt", el("div", { class: "plain", dir: "auto", tabindex: "0", role: "region", "aria-label": "Prompt" }, ...longText(data.prompt))) : null,
      data.policy ? policyOf(data.policy) : null,
    ),
  ];

  /** How many characters two texts begin with alike; no character is cut in half. */
  const alike = (one, other) => {
    let at = 0;
    while (at < one.length && at < other.length && one[at] === other[at]) at += 1;
    const code = one.charCodeAt(at - 1);
    return at > 0 && code >= 0xd800 && code <= 0xdbff ? at - 1 : at;
  };

  const ownPanel = (columns) => {
    const own = new Columns(columns.data.own);
    const shared = alike(columns.text, own.text);
    const rest = own.text.slice(shared);
    const same = el("span", { class: "shared" }, ...longText(own.text.slice(0, shared)));
    const parts = rest
      ? [el("span", { class: "parts", title: "From here on the two answers differ" }, "⟂"), el("span", { class: "other" }, ...longText(rest))]
      : [];
    const remark = rest ? "what both say alike is in grey" : "the same text, as far as it goes";
    return el(
      "section",
      { class: "own", "aria-label": "The base's own answer" },
      el("h3", {}, "The base alone"),
      el("p", { class: "facts" }, ...facts({ ...columns.data.own, arm: null, node: null }), el("span", {}, remark)),
      el("div", { class: "plain", dir: "auto" }, same, ...parts),
    );
  };

  // --- The view ---

  class View {
    constructor(data) {
      this.columns = new Columns(data);
      this.tokens = [];
      this.current = null;
      this.kind = "all";
      this.filled = 0; // tokens of the last block
      this.list = el("div", { class: "tokens", role: "listbox", "aria-label": "Answer, token by token", "aria-orientation": "horizontal", dir: "auto" });
      this.legend = shades();
      this.panel = el("aside", { class: "detail", "aria-live": "polite", "aria-label": "About this token" });
      this.strip = strip(this.columns, (at) => this.select(at, true));
      this.head = el("header", {}, ...headOf(this.columns.data));
      this.texts = el("div", { class: "texts" }, el("section", { class: "answer-text", "aria-label": "Answer" }, el("h3", {}, "Answer"), this.plain(), this.list, this.legend));
      this.element = el("article", { class: "answer" }, this.head, this.strip.element, el("div", { class: "body" }, this.texts, this.panel));
      this.listen();
      this.grow(0);
      this.panel.replaceChildren(...detail(this.columns, null));
    }

    /** The text, where the tokens do not give it. */
    plain() {
      const { text } = this.columns.data;
      return text === null ? null : el("div", { class: "plain", dir: "auto" }, ...longText(text));
    }

    grow(from) {
      let block = this.list.lastElementChild;
      let made = document.createDocumentFragment();
      for (let at = from; at < this.columns.length; at += 1) {
        if (!block || this.isFull(at)) {
          block?.append(made);
          made = document.createDocumentFragment();
          block = el("div", { class: "block", role: "presentation" });
          this.list.append(block);
          this.filled = 0;
        }
        const last = at ? this.columns.position(at - 1) : -1;
        if (this.columns.position(at) > last + 1) made.append(el("span", { class: "gap", "aria-hidden": "true" }, " … "));
        const token = tokenElement(this.columns, at);
        this.tokens.push(token);
        this.filled += 1;
        token.classList.toggle("aside", !this.columns.matches(at, this.kind));
        made.append(token);
      }
      block?.append(made);
      this.list.hidden = !this.tokens.length;
      if (this.current === null && this.tokens.length) this.tokens[0].tabIndex = 0;
      this.legend.hidden = this.strip.element.hidden = !this.tokens.length;
      this.strip.draw();
    }

    /** Whether the block before an entry takes no more. */
    isFull(at) {
      if (this.filled < BLOCK) return false;
      return this.filled >= LONGEST_BLOCK || this.columns.data.tokens[at - 1].endsWith("\n");
    }

    append(chunk) {
      this.grow(this.columns.append(chunk));
      if (chunk.summary || chunk.notes || chunk.policy || chunk.title) {
        const open = [...this.head.querySelectorAll("details[open]")].map((each) => each.className);
        this.head.replaceChildren(...headOf(this.columns.data));
        for (const each of this.head.querySelectorAll("details")) each.open = open.includes(each.className);
      }
    }

    listen() {
      const entry = (event) => this.tokens.indexOf(event.target.closest?.(".token"));
      const heard = (name, told) => this.list.addEventListener(name, (event) => {
        const at = entry(event);
        if (at >= 0) told(at, event);
      });
      // A page that scrolls under a resting pointer is no pointing: whoever moves by keys would lose the panel.
      let rested = "";
      heard("pointerover", (at, event) => {
        const place = `${event.clientX} ${event.clientY}`;
        if (place !== rested) this.tell(at);
        rested = place;
      });
      heard("focusin", (at) => this.select(at));
      heard("click", (at) => this.select(at, true));
      heard("keydown", (at, event) => this.pressed(at, event));
      this.list.addEventListener("pointerleave", () => this.tell(this.current));
    }

    pressed(at, event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const turn = getComputedStyle(this.list).direction === "rtl" ? -1 : 1;
      if (event.key in ARROWS) this.move(turn * ARROWS[event.key], this.kind);
      else if (event.key === "ArrowUp" || event.key === "ArrowDown") this.moveLine(at, event.key === "ArrowUp" ? -1 : 1);
      else if (event.key === "Home") this.select(0, true);
      else if (event.key === "End") this.select(this.tokens.length - 1, true);
      else return;
      event.preventDefault();
    }

    /** To the nearest token on the line above or below. */
    moveLine(at, by) {
      const here = this.tokens[at].getBoundingClientRect();
      let best = null;
      for (let other = at + by; other >= 0 && other < this.tokens.length; other += by) {
        const box = this.tokens[other].getBoundingClientRect();
        const down = by * (box.top - here.top);
        if (down < here.height / 2) continue;
        if (best && by * (box.top - best.top) > here.height / 2) break;
        const off = Math.abs(box.left - here.left);
        if (!best || off < best.off) best = { other, off, top: box.top };
      }
      if (best) this.select(best.other, true);
    }

    move(by, kind = "all") {
      let at = this.current === null ? (by > 0 ? -1 : this.tokens.length) : this.current;
      for (at += by; at >= 0 && at < this.tokens.length; at += by) {
        if (this.columns.matches(at, kind)) {
          this.select(at, true);
          return true;
        }
      }
      return false;
    }

    select(at, focus = false) {
      const before = this.tokens[this.current ?? 0];
      if (before) {
        before.tabIndex = -1;
        before.classList.remove("current");
        before.setAttribute("aria-selected", "false");
      }
      this.current = at;
      const token = this.tokens[at ?? 0];
      if (token) token.tabIndex = 0;
      if (at !== null && token) {
        token.classList.add("current");
        token.setAttribute("aria-selected", "true");
        if (focus && document.activeElement !== token) token.focus({ preventScroll: true });
        if (token.contains(document.activeElement)) token.scrollIntoView({ block: "nearest" }); // with its margins
      }
      this.tell(at);
    }

    /** Shows an entry in the panel and on the strip, whatever is selected. */
    tell(at) {
      this.panel.replaceChildren(...detail(this.columns, at));
      this.strip.draw(at);
    }

    filter(kind) {
      this.kind = kind;
      this.tokens.forEach((token, at) => token.classList.toggle("aside", !this.columns.matches(at, kind)));
    }

    compare(on) {
      this.texts.querySelector(".own")?.remove();
      const has = this.columns.data.own !== null;
      if (on && has) this.texts.append(ownPanel(this.columns));
      this.texts.classList.toggle("beside", on && has);
      return has;
    }

    redraw() {
      this.strip.draw();
    }
  }

  globalThis.delegation.answerView = (data) => new View(data);
}
