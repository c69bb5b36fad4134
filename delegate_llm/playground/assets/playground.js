// The page: pick a pair, ask, and watch the answer come; whatever is moved asks again with the same seed.
//
// Three may answer: the pair under the policy, the base alone, and the reasoner alone. The two that write
// alone do not depend on the policy, so they are asked once a question and kept.

"use strict";

{
  const { answerView, client, el, knobs, preview, visible, withBreaks } = globalThis.delegation;
  const SETTLED = 350; // milliseconds without a move before it asks again
  const POLL = 400; // milliseconds between looks at a pair that loads
  const ARMS = { delegated: "The pair", base: "The base alone", reasoner: "The reasoner alone" };
  const EXAMPLES = {
    "delegate-llm/tiny-base":
      "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?",
  };

  const ENDINGS = { stop: "", length: "The answer reached the limit of tokens.", repetition: "The answer ran into a loop and was ended." };

  const find = (id) => document.getElementById(id);
  const state = { pairs: [], picked: null, running: null, asked: null, view: null, shown: null, said: {}, timer: 0 };

  const say = (text, kind) => {
    find("status").textContent = text;
    find("status").dataset.state = kind;
    find("status").classList.toggle("busy", kind === "busy");
    find("stop").hidden = kind !== "busy";
  };

  const complain = (message) => {
    find("error").textContent = message ? visible(message) : "";
    find("error").hidden = !message;
  };

  // --- Pairs ---

  const STATES = { resting: "", loading: "loading the weights …", ready: "ready", failed: "" };

  const label = ({ base, reasoner }) => `${visible(base)} + ${visible(reasoner)}`;

  const showPair = () => {
    const pair = state.pairs[state.picked];
    // A server says what it carries once it is asked.
    for (const option of find("pair").options) if (option.value) option.textContent = label(state.pairs[option.value]);
    find("pair-state").textContent = pair ? (pair.error ? visible(pair.error) : STATES[pair.state]) : "";
    find("pair-state").className = `state ${pair?.state ?? ""}`;
    find("pair-again").hidden = pair?.state !== "failed";
    find("ask").disabled = pair?.state !== "ready";
  };

  const ready = (pair) => {
    knobs.adopt(pair.policy);
    if (!find("question").value) find("question").value = EXAMPLES[pair.base] ?? "";
    if (state.asked !== null) ask();
  };

  /** Looks at a pair until it is loaded or cannot be. */
  const follow = async (at) => {
    if (at !== state.picked) return;
    state.pairs = await client.pairs();
    showPair();
    const pair = state.pairs[at];
    if (pair.state === "ready") ready(pair);
    else if (pair.state === "loading") setTimeout(() => guarded(follow(at)), POLL);
  };

  const pick = async (at) => {
    state.picked = at;
    cancel();
    say("", "");
    if (state.pairs[at].state !== "ready") state.pairs[at] = await client.load(at);
    showPair();
    await follow(at);
  };

  const listPairs = async () => {
    state.pairs = await client.pairs();
    find("key-form").hidden = true;
    find("form").hidden = false;
    const options = state.pairs.map((each, at) => el("option", { value: at }, label(each)));
    if (options.length > 1) options.unshift(el("option", { value: "", disabled: true, selected: true }, "pick a pair"));
    find("pair").replaceChildren(...options);
    showPair();
    if (options.length === 1) await pick(0);
  };

  // --- What is shown ---

  const costRow = (arm) => {
    const { tokens, takeovers, base_forwards: base, reasoner_forwards: reasoner, flops, seconds } = state.said[arm].cost;
    const cells = [tokens, takeovers ?? "–", base, reasoner, (flops / 1e9).toPrecision(3), seconds.toFixed(2)];
    return el("tr", {}, el("th", { scope: "row" }, ARMS[arm]), ...cells.map((each) => el("td", {}, String(each))));
  };

  const showCosts = () => {
    const names = ["", "tokens", "takeovers", "base forwards", "reasoner forwards", "GFLOPs", "seconds"];
    const head = el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)));
    const rows = Object.keys(ARMS).filter((arm) => state.said[arm]?.cost).map(costRow);
    find("costs").hidden = !rows.length;
    find("costs").replaceChildren(el("h3", {}, "Cost"), el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
  };

  const showBase = () => {
    const { base } = state.said;
    if (!state.view || !base) return;
    state.view.append({ own: { text: base.text } });
    state.view.compare(true);
  };

  const showReasoner = () => {
    const { reasoner } = state.said;
    find("alone").hidden = !reasoner;
    if (!reasoner) return;
    const text = el("div", { class: "plain", dir: "auto" }, ...withBreaks(reasoner.text));
    find("alone").replaceChildren(el("h3", {}, ARMS.reasoner), text);
  };

  // Many pieces before the next frame are drawn once.
  let drawn = true;
  const drawAlone = () => {
    if (!drawn) return;
    drawn = false;
    requestAnimationFrame(() => {
      drawn = true;
      showBase();
      showReasoner();
    });
  };

  /** Puts a new view into the page, in place of the one before. */
  const showView = (view) => {
    if (state.view === view) return;
    Object.assign(state, { view, shown: null });
    find("shown").replaceChildren(view.element);
    find("preview").textContent = "";
    showBase();
  };

  // --- Asking ---

  const cancel = () => {
    clearTimeout(state.timer);
    state.running?.abort();
    state.running = null;
  };

  const events = () => {
    let next = null;
    let ending = "stop";
    const alone = (arm) => (state.said[arm] ??= { text: "" });
    return {
      waiting: ({ before }) => say(before ? `Waiting: ${before} before this question …` : "Reading the question …", "busy"),
      loading: () => say("Loading the weights …", "busy"),
      start: ({ arm, data }) => {
        say(`${ARMS[arm]} is writing …`, "busy");
        if (arm === "delegated") next = answerView(data);
        else state.said[arm] = { text: "" };
      },
      piece: ({ arm, text, chunk }) => {
        if (arm === "delegated") {
          next.append(chunk);
          showView(next);
        } else {
          alone(arm).text += text;
          drawAlone();
        }
      },
      end: ({ arm, text, finish_reason: reason, summary, seed, cost }) => {
        state.said[arm] = { text, cost };
        if (arm === "delegated") {
          ending = reason;
          next.append({ summary, seed });
          showView(next);
        } else drawAlone();
        showCosts();
      },
      choices: ({ tops }) => {
        next.append(tops);
        next.tell(next.current);
      },
      done: () => say(ENDINGS[ending], "done"),
    };
  };

  /** Whom to ask: those who write alone only where what they said is not known. */
  const arms = (asked) => {
    if (asked !== state.asked) state.said = {};
    state.asked = asked;
    const wanted = ["base", ...(find("reasoner-too").checked ? ["reasoner"] : [])];
    if (!find("reasoner-too").checked) delete state.said.reasoner;
    return ["delegated", ...wanted.filter((arm) => !state.said[arm]?.cost)];
  };

  const ask = async () => {
    const question = find("question").value;
    const { policy, settings } = knobs.read();
    cancel();
    complain(knobs.missing());
    if (knobs.missing()) return say("", "failed");
    const running = new AbortController();
    state.running = running;
    const asked = JSON.stringify([state.picked, question, settings]);
    const body = { pair: state.picked, question, ...settings, policy, arms: arms(asked) };
    showReasoner();
    showCosts();
    say("Asking …", "busy");
    const heard = events();
    try {
      await client.ask(body, (event) => state.running === running && heard[event.event](event), running.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (state.running === running) failed(error);
    }
  };

  const failed = (error) => {
    say("", "failed");
    restore();
    if (error.status === 401) askKey();
    else complain(error.message);
  };

  const guarded = (promise) => promise.catch(failed);

  // --- Moving ---

  /** Shows at once where the policy that is set would have fired; the answer under it comes later. */
  const look = () => {
    const { columns } = state.view;
    const { policy, window } = knobs.read();
    if (policy.threshold === null) return;
    state.shown ??= { flags: columns.data.flags, bars: columns.data.bars };
    const { flags, bars, fired } = preview(columns, policy, window);
    Object.assign(columns.data, { flags, bars });
    find("preview").textContent = `would take over at ${fired} of ${flags.length}`;
    state.view.redraw();
  };

  /** Back to what the answer was, if no other is coming. */
  const restore = () => {
    if (!state.shown) return;
    Object.assign(state.view.columns.data, state.shown);
    state.shown = null;
    find("preview").textContent = "";
    state.view.redraw();
  };

  const moved = (live) => {
    if (state.asked === null) return;
    cancel();
    if (live && state.view?.columns.length) look();
    say("", "moving");
    state.timer = setTimeout(ask, SETTLED);
  };

  // --- The key, and the start ---

  const askKey = () => {
    complain(null);
    find("key-wrong").hidden = !sessionStorage.length;
    find("key-form").hidden = false;
    find("form").hidden = true;
    find("key").focus();
  };

  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      client.enter(find("key").value.trim());
    } catch {
      find("key-wrong").hidden = false;
      return;
    }
    guarded(listPairs());
  });
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!find("ask").disabled) ask();
  });
  find("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!find("ask").disabled) ask();
  });
  find("stop").addEventListener("click", () => {
    cancel();
    restore();
    say("Stopped.", "stopped");
  });
  find("pair").addEventListener("change", (event) => guarded(pick(Number(event.target.value))));
  find("pair-again").addEventListener("click", () => guarded(pick(state.picked)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.view?.redraw());
  knobs.listen(moved);
  guarded(listPairs());
}
