// Completes the word of a rule that is being typed: names of properties, and categories behind `category=`.
"use strict";

(() => {
  const source = document.getElementById("rule-names");
  const list = document.getElementById("rule-words");
  if (!source || !list) return;
  const { names, categories } = JSON.parse(source.textContent);
  const MOST = 20;

  function offered(text) {
    const category = /(.*\bcategory\s*!?=)([^=&|]*)$/.exec(text);
    if (category) return categories.filter((one) => starts(one, category[2])).map((one) => category[1] + one);
    const word = /(.*?)([\w-]*)$/.exec(text);
    return names.filter((one) => starts(one, word[2])).map((one) => word[1] + one);
  }
  function starts(name, typed) { return name.toLowerCase().startsWith(typed.trim().toLowerCase()); }

  function offer(event) {
    if (!event.target.matches?.("[data-rule]")) return;
    list.replaceChildren(...offered(event.target.value).slice(0, MOST).map((value) => new Option(value, value)));
  }

  document.addEventListener("input", offer);
  document.addEventListener("focusin", offer);
})();
