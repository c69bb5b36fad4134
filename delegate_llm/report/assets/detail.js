// What is known of one decision, in words: both models' choices, the score, the budget, and why.

"use strict";

{
  const { clipped, el, inline, number } = globalThis.delegation;
  const LONGEST = 300; // characters of a token in the panel

  const token = (text) => {
    if (text === null) return el("span", { class: "unknown" }, "not asked");
    const [start, rest] = clipped(text, LONGEST);
    const shown = start === "" ? "(empty)" : inline(start);
    return el("code", { dir: "auto" }, rest ? `${shown} … and ${rest} characters more` : shown);
  };

  /** The most probable tokens of a model, if they were kept. */
  const top = (entries) =>
    entries?.length
      ? el("ol", { class: "top-tokens" }, ...entries.map(([text, share]) => el("li", {}, token(text), ` ${(100 * share).toFixed(1)}%`)))
      : null;

  const row = (name, ...values) => el("div", {}, el("dt", {}, name), el("dd", {}, ...values.filter((value) => value !== null)));

  const scored = (columns, at) => {
    const score = columns.score(at);
    if (score === null) return "not scored";
    const { policy } = columns.data;
    const unit = policy?.unit ? ` ${policy.unit}` : "";
    const bar = columns.bar(at);
    if (bar === null) return `${number(score)}${unit}`;
    const spiked = policy && bar > policy.threshold + 1e-9;
    return `${number(score)}${unit}, ${score > bar ? "above" : "not above"} ${number(bar)}${spiked ? " (spike)" : " (threshold)"}`;
  };

  const budget = (columns, at) => {
    const level = columns.level(at);
    if (level === null) return null;
    const full = columns.data.policy?.capacity;
    return row("Budget before", full ? `${number(level, 2)} of ${number(full, 2)} takeovers` : `${number(level, 2)} takeovers`);
  };

  const heading = (columns, at) => {
    const who = !columns.takeover(at)
      ? "the base spoke"
      : columns.changed(at)
        ? "takeover: the reasoner spoke"
        : "takeover that changed nothing";
    return el("p", { class: "who" }, el("span", { class: "position" }, `Position ${columns.position(at)}`), ` · ${who}`);
  };

  /** The children of a panel about an entry; about none, how to get one. */
  const detail = (columns, at) => {
    if (at === null || at >= columns.length) {
      return [el("p", { class: "hint" }, "Point at a token, or move with the arrow keys, to see both models' choices and why one was heard.")];
    }
    const cause = columns.cause(at);
    const rows = [
      cause === null ? null : el("div", { class: "why" }, el("dt", {}, "Why"), el("dd", {}, cause)),
      row("Said", token(columns.data.tokens[at])),
      row("Base", token(columns.base(at)), top(columns.data.base_top[at])),
      row("Reasoner", token(columns.reasoner(at)), top(columns.data.reasoner_top[at])),
      row("Score", scored(columns, at)),
      row("Entropy", columns.entropy(at) === null ? "not known" : `${number(columns.entropy(at))} nats, of the base`),
      budget(columns, at),
    ];
    return [heading(columns, at), el("dl", {}, ...rows.filter(Boolean))];
  };

  globalThis.delegation.detail = detail;
}
