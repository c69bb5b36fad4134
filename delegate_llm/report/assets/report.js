// The report: a list of answers with filters, one of them shown in full, and keys for all of it.
//
// The page holds { title, answers: [see columns.js] } as JSON, in the element with the id `data`. A large page
// has `words`, too, and its answers are packed, as `delegate_llm.report.packing` says.

"use strict";

{
  const { answerView, Columns, el, visible } = globalThis.delegation;
  const THEMES = ["auto", "light", "dark"];
  const CHOICES = [
    ["node", "Node", (data) => data.node],
    ["arm", "Arm", (data) => data.arm],
    ["correct", "Graded", (data) => (data.correct === null ? null : data.correct ? "correct" : "wrong")],
  ];
  const ARROWS = new Set(["ArrowLeft", "ArrowRight"]); // up and down scroll the page
  const KEYS = [
    ["← →", "token before, token after"],
    ["↑ ↓", "line above, line below"],
    ["Home End", "first token, last token"],
    ["n p", "next takeover, takeover before"],
    ["j k", "next answer, answer before"],
    ["t", "takeovers only"],
    ["c", "changed only"],
    ["b", "the base's own answer beside"],
    ["d", "light, dark, or as the system has it"],
    ["?", "these keys"],
  ];

  const find = (id) => document.getElementById(id);
  const { title, answers, words } = JSON.parse(find("data").textContent);
  const state = { kind: "all", compare: false, theme: 0, chosen: {}, index: null, view: null };

  // --- Answers of a large page ---

  const READERS = { B: ["getUint8", 1], H: ["getUint16", 2], I: ["getUint32", 4], h: ["getInt16", 2] };

  /** The integers that base64 holds. */
  const integers = (text, code) => {
    const [read, width] = READERS[code];
    const bytes = new DataView(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
    return Array.from({ length: bytes.byteLength / width }, (_, at) => bytes[read](at * width, true));
  };

  const word = (place) => (place ? words[place - 1] : null);

  const thousandths = (column) =>
    typeof column !== "string" ? column : integers(column, "h").map((each) => (each === -32768 ? null : each === 32767 ? "Infinity" : each / 1000));

  /** What differs from the tokens, by entry. */
  const others = (text, tokens, code) =>
    Object.fromEntries(integers(text, code).map((place, at) => [at, word(place)]).filter(([at, each]) => each !== tokens[at]));

  const tops = (text, code) => {
    const found = { base_top: {}, reasoner_top: {} };
    const numbers = integers(text, code);
    const taken = (count) => Array.from({ length: count }, () => [word(numbers[at++]), numbers[at++] / 10000]);
    let at = 0;
    while (at < numbers.length) {
      const [entry, base, reasoner] = numbers.slice(at, (at += 3));
      if (base) found.base_top[entry] = taken(base);
      if (reasoner) found.reasoner_top[entry] = taken(reasoner);
    }
    return found;
  };

  const unpacked = (data) => {
    if (!words) return data;
    const code = data.wide ? "I" : "H";
    const tokens = integers(data.tokens, code).map(word);
    const columns = { tokens, flags: integers(data.flags, "B"), ...tops(data.tops, code) };
    for (const name of ["scores", "entropies", "bars", "levels"]) columns[name] = thousandths(data[name]);
    for (const name of ["base", "reasoner"]) columns[name] = others(data[name], tokens, code);
    return { ...data, ...columns };
  };

  // --- Which answers are listed ---

  const has = (data, kind) => kind === "all" || (data.summary?.[kind] ?? 0) > 0;

  const listed = () =>
    [...answers.keys()].filter((at) => {
      const data = answers[at];
      return has(data, state.kind) && CHOICES.every(([name, , read]) => !state.chosen[name] || read(data) === state.chosen[name]);
    });

  const item = (at) => {
    const data = answers[at];
    const { takeovers = 0, tokens = 0 } = data.summary ?? {};
    const verdict = data.correct === null ? null : data.correct ? ["right", "✓", "correct"] : ["wrong", "✗", "wrong"];
    return el(
      "button",
      { type: "button", class: "item", tabindex: "-1", "data-at": at, onclick: () => show(at) },
      el("span", { class: "name", dir: "auto" }, visible(data.title)),
      el(
        "span",
        { class: "facts" },
        verdict && el("span", { class: `verdict ${verdict[0]}`, "aria-label": verdict[2], role: "img" }, verdict[1]),
        ...[data.arm, data.node].filter(Boolean).map((each) => el("span", {}, visible(each))),
        el("span", {}, `${takeovers} takeovers, ${tokens} tokens`),
      ),
    );
  };

  const list = () => {
    const shown = listed();
    find("items").replaceChildren(...shown.map((at) => el("li", {}, item(at))));
    find("count").textContent = shown.length === answers.length ? `${answers.length}` : `${shown.length} of ${answers.length}`;
    find("none").hidden = shown.length > 0;
    if (!shown.includes(state.index)) show(shown[0] ?? null);
    else mark();
  };

  const mark = () => {
    for (const button of find("items").querySelectorAll(".item")) {
      const current = Number(button.dataset.at) === state.index;
      button.tabIndex = current ? 0 : -1;
      if (current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      if (current) within(find("items"), button);
    }
  };

  /** Scrolls a list, and only it, until one of its items is seen. */
  const within = (box, each) => {
    const top = each.offsetTop - box.offsetTop;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + each.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + each.offsetHeight - box.clientHeight;
  };

  // --- The one that is shown ---

  const show = (at) => {
    const inside = find("shown").contains(document.activeElement);
    state.index = at;
    state.view = at === null ? null : answerView(unpacked(answers[at]));
    find("shown").replaceChildren(...(state.view ? [state.view.element] : []));
    if (state.view) {
      state.view.filter(state.kind);
      state.view.compare(state.compare);
      find("compare").disabled = state.view.columns.data.own === null;
      if (inside) state.view.select(0, true);
    }
    mark();
  };

  const turn = (by) => {
    const shown = listed();
    const at = shown[shown.indexOf(state.index) + by];
    if (at === undefined) return say(by > 0 ? "This is the last answer." : "This is the first answer.");
    show(at);
    return say(`Answer ${shown.indexOf(at) + 1} of ${shown.length}: ${visible(answers[at].title)}`);
  };

  const jump = (by) => {
    const kind = state.kind === "changed" ? "changed" : "takeovers";
    if (state.view && !state.view.move(by, kind)) say(by > 0 ? "No takeover after this." : "No takeover before this.");
  };

  const say = (text) => {
    find("told").textContent = text;
  };

  // --- What is switched ---

  const pressed = (id, on) => find(id).setAttribute("aria-pressed", String(on));

  const keep = (kind) => {
    state.kind = state.kind === kind ? "all" : kind;
    pressed("takeovers", state.kind === "takeovers");
    pressed("changed", state.kind === "changed");
    list();
    state.view?.filter(state.kind);
  };

  const compare = () => {
    state.compare = !state.compare;
    pressed("compare", state.compare);
    if (state.view && !state.view.compare(state.compare)) say("There is no answer of the base alone to this.");
  };

  const theme = () => {
    state.theme = (state.theme + 1) % THEMES.length;
    const name = THEMES[state.theme];
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    find("theme").textContent = `Colours: ${name}`;
    state.view?.redraw();
  };

  const help = () => {
    const dialog = find("help");
    if (dialog.open) dialog.close();
    else dialog.showModal();
  };

  const ACTIONS = {
    n: () => jump(1),
    p: () => jump(-1),
    j: () => turn(1),
    k: () => turn(-1),
    t: () => keep("takeovers"),
    c: () => keep("changed"),
    b: compare,
    d: theme,
    "?": help,
  };

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, textarea")) return;
    if (event.target.closest(".item") && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      turn(event.key === "ArrowDown" ? 1 : -1);
      find("items").querySelector("[aria-current]")?.focus();
    } else if (event.target === document.body && ARROWS.has(event.key) && state.view?.tokens.length) state.view.select(0, true);
    else if (Object.hasOwn(ACTIONS, event.key) && (!find("help").open || event.key === "?")) ACTIONS[event.key]();
    else return;
    event.preventDefault();
  };

  // --- Setting up ---

  const choice = ([name, label, read]) => {
    const values = [...new Set(answers.map(read).filter((each) => each !== null && each !== undefined))];
    if (values.length < 2) return null;
    const select = el("select", { id: `by-${name}` }, el("option", { value: "" }, "all"));
    // The value of an option is its place: a name may be any text.
    values.forEach((each, at) => select.append(el("option", { value: String(at) }, visible(each))));
    select.addEventListener("change", () => {
      state.chosen[name] = select.value === "" ? null : values[Number(select.value)];
      list();
    });
    return el("label", {}, `${label} `, select);
  };

  const start = () => {
    document.title = visible(title);
    const onClick = { takeovers: ACTIONS.t, changed: ACTIONS.c, compare, theme, keys: help, "close-help": help };
    for (const [id, act] of Object.entries(onClick)) find(id).addEventListener("click", act);
    for (const [id, by] of [["before", -1], ["after", 1]]) find(id).addEventListener("click", () => turn(by));
    for (const [id, by] of [["takeover-before", -1], ["takeover-after", 1]]) find(id).addEventListener("click", () => jump(by));
    find("choices").append(...CHOICES.map(choice).filter(Boolean));
    find("compare").hidden = answers.every((data) => !data.own);
    document.body.classList.toggle("single", answers.length < 2);
    find("key-list").append(...KEYS.map(([keys, what]) =>
      el("div", {}, el("dt", {}, ...keys.split(" ").map((key) => el("kbd", {}, key))), el("dd", {}, what))));
    document.addEventListener("keydown", onKey);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.view?.redraw());
    list();
    document.documentElement.dataset.ready = "true";
  };

  // For whoever looks in from the developer's tools.
  Object.assign(globalThis.delegation, { report: state, Columns });
  start();
}
