// The settings at the side of the page: what they say, and sliders that go with their numbers.

"use strict";

{
  const NATS = { unit: "nats", most: 12, step: 0.01 };
  const UNIT = { unit: "", most: 1, step: 0.01 };
  // `usual`: a threshold to start from where the pair's own policy was set for another divergence.
  const SCALES = {
    cross_entropy: { ...NATS, usual: 1.5 },
    reverse_kl: { ...NATS, usual: 1 },
    kl: { ...NATS, usual: 1 },
    js: { ...NATS, most: 0.7, step: 0.005, usual: 0.2 },
    tv: { ...UNIT, usual: 0.5 },
    nll_gap: { ...NATS, usual: 1 },
    random: { ...UNIT, usual: 0.95 },
    entropy: { ...NATS, usual: 1 },
    top1: { ...UNIT, usual: 0.5 },
  };
  const BUDGETS = {
    count: { name: "Takeovers", most: 20, step: 1, usual: 2, field: "limit" },
    rate: { name: "Takeovers a token", most: 0.5, step: 0.01, usual: 0.05, field: "rate" },
  };

  const find = (id) => document.getElementById(id);
  const number = (id) => (Number.isNaN(find(id).valueAsNumber) ? null : find(id).valueAsNumber);
  const put = (id, value) => {
    find(id).value = value;
    const slider = find(`${id}-slider`);
    if (slider) slider.value = value;
  };

  let own = null; // the policy of the pair

  const scale = () => {
    const { unit, most, step } = SCALES[find("divergence").value];
    Object.assign(find("threshold-slider"), { max: most, step });
    find("unit").textContent = unit;
  };

  const amount = () => {
    const kind = BUDGETS[find("budget-kind").value];
    find("budget-amount").hidden = !kind;
    if (!kind) return;
    Object.assign(find("budget-slider"), { max: kind.most, step: kind.step });
    find("budget-name").textContent = kind.name;
    put("budget", kind.usual);
  };

  /** The budget of a policy as the page can show it: kind and amount. */
  const budgetOf = ({ rate, burst, limit, asks }) => {
    if (burst !== null || asks !== null || (rate !== null && limit !== null)) return ["own", null];
    if (limit !== null) return ["count", limit];
    return rate === null ? ["none", null] : ["rate", rate];
  };

  /** Shows the policy of a pair. */
  const adopt = (policy) => {
    own = policy;
    find("divergence").value = policy.divergence;
    scale();
    put("threshold", policy.threshold);
    put("spike", policy.spike);
    const [kind, value] = budgetOf(policy.budget);
    find("budget-kind").querySelector("[value=own]").hidden = kind !== "own";
    find("budget-kind").value = kind;
    amount();
    if (value !== null) put("budget", value);
  };

  const budget = () => {
    const kind = BUDGETS[find("budget-kind").value];
    return kind ? { [kind.field]: number("budget") } : null;
  };

  /** What has to be a number and is none, in words; null if nothing is missing. */
  const missing = () => {
    const asked = { threshold: "the threshold", spike: "the spike factor", ...(BUDGETS[find("budget-kind").value] && { budget: "the budget" }) };
    const id = Object.keys(asked).find((each) => number(each) === null);
    return id ? `${asked[id]} is empty; give a number` : null;
  };

  /** The policy as it is set, what of the pair's own stays as it is, and the settings of an answer. */
  const read = () => ({
    window: own.spike_window,
    policy: {
      divergence: find("divergence").value,
      threshold: number("threshold"),
      spike: number("spike"),
      ...(find("budget-kind").value !== "own" && { budget: budget() }),
    },
    settings: {
      system: find("system").value,
      temperature: number("temperature"),
      seed: number("seed"),
      max_tokens: number("max-tokens"),
    },
  });

  /**
   * Calls `moved(live)` for every change: with true where the scores already known tell something of it.
   */
  const listen = (moved) => {
    const changed = (id, told) => find(id).addEventListener("input", told);
    for (const id of ["threshold", "budget"]) {
      changed(`${id}-slider`, (event) => (find(id).value = event.target.value));
      changed(id, (event) => (find(`${id}-slider`).value = event.target.value));
      changed(`${id}-slider`, () => moved(true));
      changed(id, () => moved(true));
    }
    changed("budget-kind", () => (amount(), moved(true)));
    changed("spike", () => moved(true));
    changed("divergence", () => {
      const { value } = find("divergence");
      scale();
      put("threshold", value === own?.divergence ? own.threshold : SCALES[value].usual);
      moved(false);
    });
    for (const id of ["temperature", "seed", "max-tokens", "system", "reasoner-too"]) changed(id, () => moved(false));
    find("reset").addEventListener("click", () => {
      if (own) adopt(own);
      moved(true);
    });
  };

  globalThis.delegation.knobs = { missing, adopt, listen, read };
}
