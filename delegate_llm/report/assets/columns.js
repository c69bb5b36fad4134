// What a view knows of one answer: the columns of its data, grown by chunks while it is written.
//
// The data of an answer, as `delegate_llm.report.answers` makes it (all of it JSON):
//
//   id, title     strings
//   prompt        what was asked, or null
//   node, arm     who answered: a node of an agent, an arm of an evaluation; or null
//   correct       true, false, or null where it was not graded
//   seed          number or null
//   notes         strings: what is missing, and why
//   level         which decisions there are: "full", "takeovers" or "off"
//   text          the answer, where the tokens do not give it; else null
//   policy        null, or { divergence, unit, threshold, spike, spike_window, gates: [string],
//                 budget: string or null, capacity: number or null }
//   summary       { tokens, takeovers, changed, asked, share }
//   own           the base's own answer: data of the same form, or null
//
// and the columns, one entry a decision:
//
//   at            positions, or null where entry i is position i
//   tokens        what was said
//   scores        number, null where there is none, "Infinity" where it has no bound
//   entropies     likewise
//   flags         1 asked + 2 takeover + 4 changed
//   base          { entry: what the base would have said }, where that is another token
//   reasoner      { entry: what the reasoner would have said }, likewise; null where it is not known
//   base_top      { entry: [[token, probability], ...] }, the base's most probable, where they were kept
//   reasoner_top  likewise
//   long          { entry: characters }, of tokens of which only the start is there
//   bars          what a score had to exceed: one number for all, or a column; null where it is not known
//   levels        takeovers that the budget held before the decision; null for no limit, or not known
//   why           entry -> index in `causes`; null where nothing is known
//   causes        sentences
//
// A chunk, for `append`, has some more entries of the columns, with the keys of `base` and the others
// like it counted over the whole answer, and `causes` all that there are so far; and whatever else of the
// above has changed, such as `summary`.

"use strict";

{
  const ASKED = 1;
  const TAKEOVER = 2;
  const CHANGED = 4;
  const STEPS = [0.05, 0.25, 0.5, 0.75, 1, 2]; // shades end at these multiples of the bar

  const ALWAYS = ["tokens", "scores", "entropies", "flags"];
  const SOMETIMES = ["at", "bars", "levels", "why"]; // null, or one number for all, where that says it
  const MAPS = ["base", "reasoner", "base_top", "reasoner_top", "long"];

  const spread = (column, count) => (Array.isArray(column) ? column : Array(count).fill(column));

  /** A column with another behind it; nothing and nothing is nothing. */
  const longer = (held, before, given, added) =>
    held === null && given === null ? null : [...spread(held, before), ...spread(given, added)];

  const value = (entry) => (entry === null || entry === undefined ? null : Number(entry));

  /** The columns of an answer behind questions that a view asks. */
  class Columns {
    constructor(data) {
      this.data = {
        notes: [], causes: [], level: "full", at: null, tokens: [], scores: [], entropies: [], flags: [],
        base: {}, reasoner: {}, base_top: {}, reasoner_top: {}, long: {}, bars: null, levels: null, why: null, own: null, policy: null,
        summary: null, text: null, prompt: null,
        ...data,
      };
      this.reference = null;
    }

    get length() {
      return this.data.tokens.length;
    }

    /** Take more entries in; says how many there were before. */
    append(chunk) {
      const { data } = this;
      const before = this.length;
      const added = chunk.tokens?.length ?? 0;
      for (const [name, given] of Object.entries(chunk)) {
        if (ALWAYS.includes(name)) data[name].push(...given);
        else if (MAPS.includes(name)) Object.assign(data[name], given);
        else if (SOMETIMES.includes(name)) data[name] = longer(data[name], before, given, added);
        else data[name] = given;
      }
      this.reference = null;
      return before;
    }

    position(index) {
      return this.data.at?.[index] ?? index;
    }

    score(index) {
      return value(this.data.scores[index]);
    }

    entropy(index) {
      return value(this.data.entropies[index]);
    }

    bar(index) {
      const { bars } = this.data;
      return value(Array.isArray(bars) ? bars[index] : bars);
    }

    level(index) {
      return value(this.data.levels?.[index]);
    }

    cause(index) {
      const { why, causes } = this.data;
      return why && why[index] !== null ? (causes[why[index]] ?? null) : null;
    }

    asked(index) {
      return (this.data.flags[index] & ASKED) !== 0;
    }

    takeover(index) {
      return (this.data.flags[index] & TAKEOVER) !== 0;
    }

    changed(index) {
      return (this.data.flags[index] & CHANGED) !== 0;
    }

    /** What the base would have said. */
    base(index) {
      return this.data.base[index] ?? this.data.tokens[index];
    }

    /** What the reasoner would have said; null where nobody knows. */
    reasoner(index) {
      const other = this.data.reasoner[index];
      return other !== undefined ? other : this.asked(index) ? this.data.tokens[index] : null;
    }

    /** Whether an entry is one that a filter keeps: "all", "takeovers" or "changed". */
    matches(index, filter) {
      return filter === "all" || (filter === "takeovers" ? this.takeover(index) : this.changed(index));
    }

    /** From 0 to 6: how a score compares with what it had to exceed. */
    shade(index) {
      const score = this.score(index);
      if (score === null) return 0;
      const bar = this.bar(index) ?? this.usual();
      if (!(bar > 0)) return score > 0 ? 5 : 0;
      const found = STEPS.findIndex((step) => score <= step * bar);
      return found < 0 ? STEPS.length : found;
    }

    /** What to measure scores by where no bar is known: the least score of a takeover, or the largest. */
    usual() {
      if (this.reference === null) {
        const finite = (all) => all.filter((each) => each !== null && Number.isFinite(each));
        const indices = [...this.data.tokens.keys()];
        const taken = finite(indices.filter((at) => this.takeover(at)).map((at) => this.score(at)));
        const least = taken.reduce((one, other) => Math.min(one, other), Infinity);
        const most = finite(indices.map((at) => this.score(at))).reduce((a, b) => Math.max(a, b), 0);
        this.reference = taken.length ? least : most;
      }
      return this.data.policy?.threshold ?? this.reference;
    }

    /** The text as far as it is known. */
    get text() {
      return this.data.text ?? this.data.tokens.join("");
    }
  }

  globalThis.delegation.Columns = Columns;
}
