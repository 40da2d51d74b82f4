// A file that is dropped or chosen, sent in parts, each of which may be tried again.
"use strict";

(() => {
  const TRIES = 5;
  const form = document.querySelector("[data-upload]");
  if (!form) return;
  const [target, sending, failed] = [".drop-target", "[data-sending]", "[data-failed]"].map((one) => form.querySelector(one));
  const bar = sending.querySelector("progress");
  const headers = { "X-CSRF-Token": document.body.dataset.csrf, Accept: "application/json" };
  let stopped = null;

  function show(text) {
    failed.hidden = !text;
    failed.textContent = text;
    sending.hidden = true;
    target.hidden = false;
    form.elements.file.value = "";
    stopped = null;
    if (text) form.elements.file.focus();
  }

  const inMib = (bytes) => (bytes / 2 ** 20).toFixed(1);

  function tell(file, sent) {
    bar.value = sent / file.size;
    sending.querySelector("[data-sent]").textContent = `${inMib(sent)} of ${inMib(file.size)} MiB`;
  }

  // The JSON of an answer; what it refuses is thrown and not tried again, a failure on the way is.
  async function ask(address, options) {
    const answer = await fetch(address, { ...options, headers: { ...headers, ...options.headers }, signal: stopped.signal });
    const found = await answer.json().catch(() => ({}));
    if (answer.ok) return found;
    const again = answer.status >= 500 || answer.status === 408 || answer.status === 429;
    throw Object.assign(new Error(answer.status === 401 ? "The session has ended: log in again." : found.detail || `The server answered ${answer.status}.`), { refused: !again });
  }

  async function patiently(work) {
    for (let tried = 1; ; tried++) {
      try { return await work(tried); } catch (error) {
        if (error.name === "AbortError" || error.refused || tried === TRIES) throw error;
        await new Promise((done) => setTimeout(done, 500 * 2 ** tried));
      }
    }
  }

  async function send(file) {
    show("");
    if (!file.size) return show(`${file.name} is empty.`);
    if (file.size > Number(form.dataset.most)) return show(`${file.name} has ${inMib(file.size)} MiB; the limit is ${inMib(form.dataset.most)} MiB.`);
    stopped = new AbortController();
    [sending.hidden, target.hidden] = [false, true];
    sending.querySelector("[data-name]").textContent = file.name;
    tell(file, 0);
    try {
      const began = await patiently(() => ask(form.dataset.begin, { method: "POST", body: new URLSearchParams({ name: file.name, size: file.size }) }));
      let sent = 0;
      while (sent < file.size) {
        sent = await patiently(async (tried) => {
          if (tried > 1) { // the part may have arrived, and its answer not
            const there = (await ask(began.parts, {})).received;
            if (there !== sent) return there;
          }
          const part = file.slice(sent, sent + began.part_bytes);
          return (await ask(`${began.parts}?offset=${sent}`, { method: "POST", body: part, headers: { "Content-Type": "application/octet-stream" } })).received;
        });
        tell(file, sent);
      }
      stopped = null;
      location.assign(began.page);
    } catch (error) {
      show(error.name === "AbortError" ? "The upload was cancelled." : error instanceof TypeError ? "The connection was lost. Choose the file again." : error.message);
    }
  }

  form.elements.file.addEventListener("change", () => { if (form.elements.file.files[0]) send(form.elements.file.files[0]); });
  sending.querySelector("[data-stop]").addEventListener("click", () => stopped?.abort());
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    form.addEventListener(name, (event) => {
      event.preventDefault();
      target.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name !== "drop" || stopped) return;
      const files = event.dataTransfer.files;
      if (files.length === 1) send(files[0]);
      else show(files.length ? "Drop one file at a time." : "That is no file.");
    });
  }
  window.addEventListener("beforeunload", (event) => { if (stopped) event.preventDefault(); });
})();
