// Where another policy would have fired, by the scores that an answer has already. From the first position at
// which it decides otherwise the text would have been another, so this is a look, not the answer.

"use strict";

{
  const TAKEOVER = 2;
  const CHANGED = 4;
  const BURST = 8; // takeovers at once, where the budget is a rate
  const WHOLE = 1 - 1e-9;

  const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;

  /** What a score has to exceed behind some scores. */
  const barOf = ({ threshold, spike }, recent) =>
    spike > 0 && recent.length ? Math.max(threshold, spike * mean(recent)) : threshold;

  /** The flags and bars that the entries of `columns` would have under a policy, whose spike looks back on `window` scores. */
  const preview = (columns, policy, window) => {
    const { limit = Infinity, rate = null } = policy.budget ?? {};
    let left = Math.min(limit ?? Infinity, rate === null ? Infinity : BURST);
    const recent = [];
    const flags = [];
    const bars = [];
    columns.data.flags.forEach((flag, at) => {
      const score = columns.score(at);
      bars.push(barOf(policy, recent));
      const fires = score !== null && score > bars[at] && left >= WHOLE;
      const differs = columns.reasoner(at) !== null && columns.reasoner(at) !== columns.base(at);
      flags.push((flag & ~(TAKEOVER | CHANGED)) | (fires ? TAKEOVER | (differs ? CHANGED : 0) : 0));
      if (fires) left -= 1;
      if (rate !== null) left = Math.min(BURST, left + rate);
      if (score !== null && recent.push(score) > window) recent.shift();
    });
    return { flags, bars, fired: flags.filter((each) => each & TAKEOVER).length };
  };

  globalThis.delegation.preview = preview;
}
