// What the server is asked for: the pairs, to load one, and answers that come as lines of JSON.

"use strict";

globalThis.delegation ??= {};

{
  const KEPT = "delegate-llm-key"; // while the tab is open
  let key = sessionStorage.getItem(KEPT);

  /** What the server said no to; `status` is 0 where it could not be reached. */
  class Refused extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }

  const reason = async (response) => {
    try {
      return (await response.json()).error.message;
    } catch {
      return `the server answered ${response.status}`;
    }
  };

  const fetched = async (path, body, signal) => {
    const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
    const options = body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers, signal };
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "the server cannot be reached; is it still running?");
    }
    if (!response.ok) throw new Refused(response.status, await reason(response));
    return response;
  };

  /** Every line of a response, parsed. */
  async function* lines(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (held + value).split("\n");
      held = parts.pop();
      for (const part of parts) yield JSON.parse(part);
    }
  }

  const pairs = async () => (await (await fetched("/api/pairs")).json()).pairs;

  const load = async (pair) => (await fetched("/api/load", { pair })).json();

  /** Asks; `heard` is called with every event. Aborting the signal stops the models. */
  const ask = async (body, heard, signal) => {
    let last = null;
    try {
      for await (const event of lines(await fetched("/api/ask", body, signal))) {
        last = event.event;
        if (last === "error") throw new Refused(500, event.message);
        heard(event);
      }
    } catch (error) {
      if (error.name === "AbortError" || error instanceof Refused) throw error;
      throw new Refused(0, "the connection was lost while the answer came; ask again");
    }
    if (last !== "done") throw new Refused(0, "the connection was lost while the answer came; ask again");
  };

  const enter = (given) => {
    // No header carries other characters, so no key has them.
    if (/[^\x20-\x7e]/.test(given)) throw new Refused(401, "a key has letters, digits and signs of ASCII only");
    key = given;
    sessionStorage.setItem(KEPT, given);
  };

  globalThis.delegation.client = { ask, enter, load, pairs };
}
