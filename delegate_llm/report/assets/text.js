// Text of models and users as data: made visible, clipped, and put into the page as text nodes only.
//
// All scripts of the view share one namespace, `delegation`. Nothing here or elsewhere parses markup.

"use strict";

globalThis.delegation ??= {};

{
  const LONGEST = 2000; // characters of a token that are shown
  const PICTURES = 0x2400; // where Unicode's pictures of the C0 controls begin

  // As in the terminal: what moves a cursor, or reorders or breaks what is shown, and lone surrogates.
  // The `u` flag makes the surrogates match only where they stand alone.
  const STEERING =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]/gu;

  // Marks piled on one letter would cover the lines around it; no script needs more of them.
  const PILED = /(\p{M}{8})(\p{M}+)/gu;

  const spelled = (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(PICTURES + code);
    return code === 0x7f ? "\u2421" : `\\u${code.toString(16).padStart(4, "0")}`;
  };

  // Text of nothing else would be there, and not to be seen.
  const UNSEEN = /^[\u00ad\p{Default_Ignorable_Code_Point}]+$/u;
  const named = (character) => `\\u{${character.codePointAt(0).toString(16)}}`;

  /** Text with everything that could steer or cover a display spelled out; newlines and tabs stay. */
  const visible = (text) =>
    String(text)
      .replace(UNSEEN, (all) => [...all].map(named).join(""))
      .replace(STEERING, spelled)
      .replace(PILED, (_, first, rest) => `${first}⟨and ${[...rest].length} marks more⟩`);

  /** As `visible`, on one line, with spaces at its ends to be seen. */
  const inline = (text) =>
    visible(text)
      .replaceAll("\n", "⏎")
      .replaceAll("\t", "⇥")
      .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));

  /** The start of a text, and how many characters are left out; no character is cut in half. */
  const clipped = (text, most = LONGEST) => {
    if (text.length <= most) return [text, 0];
    const code = text.charCodeAt(most - 1);
    const end = code >= 0xd800 && code <= 0xdbff ? most - 1 : most;
    return [text.slice(0, end), text.length - end];
  };

  /**
   * An element. `attributes` are set as attributes, but `class` by name and handlers by `on...`;
   * strings among the children become text nodes.
   */
  const el = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  /** Text with its breaks marked, for an element that keeps white space. */
  const withBreaks = (text) =>
    visible(text)
      .split(/(\n)/)
      .filter(Boolean)
      .map((part) => (part === "\n" ? el("span", { class: "break" }, "\n") : part));

  /** A number for people; what is not there is a dash. */
  const number = (value, digits = 3) => {
    if (value === null || value === undefined) return "–";
    return Number.isFinite(value) ? String(Number(value.toFixed(digits))) : value > 0 ? "∞" : "–∞";
  };

  Object.assign(globalThis.delegation, { clipped, el, inline, number, visible, withBreaks });
}
