// The demo's storefront. What it does with recommendations is in `click` and `follow`; the rest draws.

const $ = (id) => document.getElementById(id);
const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const RANKED = 24; // recommendations asked for
const SHOWN = 8; // of which a row shows so many
const ALIKE = 3; // of one kind of product in a row
const TRAIL = 12; // clicks that are shown
const LOOK_MS = 2000; // between two looks for what others' clicks have changed
const PARCEL = "/shop/pictures/parcel/linen/plain.svg"; // of an item without a picture
const known = new Map(); // item id -> item
const money = new Intl.NumberFormat(undefined, { style: "currency", currency: "EUR" });
const SOURCES = JSON.parse(meta("recsys-sources")); // what gave an item -> what a shopper reads

let visit = load("visit") || begin();
let recsys = client();
let page = { q: "", category: null, cursor: null };
let asked = 0; // numbers requests, so that an old answer never replaces a newer one

function begin() {
  const fresh = { session: meta("recsys-visitor") + Recsys.randomId(), trail: [], basket: [] };
  save("visit", fresh);
  return fresh;
}

function client() {
  const onError = (error) => tell(`Your click could not be stored: ${error.message}`);
  return new Recsys({ key: meta("recsys-key"), url: location.origin, session: visit.session, onError });
}

// One click: an event, and, once it is stored, a new row of recommendations.
async function click(item, from = null) {
  visit.trail = [item.item_id, ...visit.trail].slice(0, TRAIL);
  save("visit", visit);
  drawLooking(item);
  drawTrail();
  await report("view", item, from);
  await follow();
}

async function report(type, item, from = null) {
  const more = from ? { recommendation_id: from } : {};
  if (type === "purchase" && item.price !== null) more.value = item.price;
  recsys.track(type, item.item_id, more);
  await recsys.flush();
}

// Ask what comes next and show it.
async function follow() {
  const number = (asked += 1);
  const started = performance.now();
  $("next").setAttribute("aria-busy", "true");
  try {
    const answer = await next();
    if (number !== asked) return;
    const took = Math.max(1, Math.round(performance.now() - started));
    drawNext(answer);
    const model = answer.model_version ? `model ${answer.model_version}` : "no model yet";
    const seen = answer.sequence_length;
    tell(`Answered in ${took} ms by ${model}, from ${seen} event${seen === 1 ? "" : "s"} of this visit.`);
    await Promise.all([$("why").checked && explain(number), drawBeside(number)]);
  } catch {
    if (number !== asked) return;
    $("next").replaceChildren(element("li", "none", "No recommendations at the moment."));
    tell("The recommendation service is not responding. The shop still works.");
  } finally {
    if (number === asked) $("next").setAttribute("aria-busy", "false");
  }
}

// What this visitor may like next, without what they have looked at: it is in "Your clicks".
const next = () => recsys.recommend({ k: RANKED, scenario: "shop", exclude_seen: "all" });

function drawNext(answer) {
  const row = mixed(answer.items);
  drawRow($("next"), row, answer.recommendation_id);
  $("key").hidden = !$("next").querySelector(".fresh");
  recsys.shown(answer, row.map((one) => one.item_id));
  tellStory(row);
}

// The best of a ranking, ALIKE of one kind at most.
function mixed(ranked) {
  const taken = new Map();
  return ranked.filter((one) => {
    const kind = one.item?.categories?.at(-1);
    taken.set(kind, (taken.get(kind) || 0) + 1);
    return !kind || taken.get(kind) <= ALIKE;
  }).slice(0, SHOWN);
}

// Three steps in which a visitor finds that the order of clicks counts.
function tellStory(row) {
  const [last, before] = visit.trail.map((id) => style(known.get(id)));
  const tellStep = (step, text) => $("story").replaceChildren(element("b", "", `Step ${step} of 3`), ` ${text}`);
  if (!last) return tellStep(1, "Click any product.");
  if (!before || before === last) return tellStep(2, `Now click a product that is not ${last}.`);
  const alike = row.filter((one) => style(one.item) === before).length;
  const found = 2 * alike >= row.length
    ? `${alike} of these ${row.length} are ${before}, like the click before your last one: visitors here go back and forth between two styles.`
    : "This row follows from the order of your clicks.";
  return tellStep(3, `${found} Compare with your last two clicks swapped.`);
}

// The row moves with what others click, too: an open page asks again, and draws only what is new.
async function followOthers() {
  const number = asked;
  if (document.hidden || $("next").getAttribute("aria-busy") === "true") return;
  try {
    const answer = await next();
    // A click of this visitor goes before, and no tile goes from under a finger or the keyboard.
    if (number !== asked || $("next").matches(":hover, :focus-within")) return;
    const before = Array.from($("next").children, (tile) => tile.dataset.item);
    if (mixed(answer.items).every((one, place) => one.item_id === before[place])) return;
    drawNext(answer);
    if ($("why").checked) await explain(number);
  } catch {
    // The next click says so if the service is away.
  }
}

async function explain(number) {
  const query = new URLSearchParams({ session_id: visit.session, k: RANKED });
  const { items } = await get(`/shop/why?${query}`);
  if (number !== asked) return;
  const reasons = new Map(items.map((one) => [one.item_id, one.reason || []]));
  await learn(items.flatMap((one) => (one.reason || []).map((reason) => reason.item_id)));
  for (const tile of $("next").querySelectorAll("li[data-item]")) {
    tile.querySelector(".reasons")?.remove();
    const found = (reasons.get(tile.dataset.item) || []).filter((one) => one.share > 0).slice(0, 3);
    const whole = Math.max(1, found.reduce((sum, one) => sum + one.share, 0)); // shares overlap
    const box = element("p", "reasons");
    box.append(element("span", "", found.length ? "because of" : "popular with everyone"));
    for (const one of found) {
      const item = known.get(one.item_id) || { item_id: one.item_id, title: one.item_id };
      const picture = image(item, 28);
      picture.alt = `${title(item)}, ${Math.floor((one.share / whole) * 100)}%`;
      picture.title = picture.alt;
      box.append(picture);
    }
    tile.append(box);
  }
}

async function drawBeside(number) {
  const chosen = document.querySelector("[name=beside]:checked").value;
  const list = $("beside");
  list.hidden = chosen === "nothing";
  if (list.hidden) return;
  const say = (text) => list.replaceChildren(element("li", "none", text));
  const [last, before, ...earlier] = visit.trail;
  if (chosen === "swapped" && !before) return say("Click two products first.");
  try {
    const ids = [before, last, ...earlier].reverse().map((id) => ["item_id", id]);
    const query = chosen === "swapped" ? new URLSearchParams([["k", RANKED], ...ids]) : "";
    const { items } = await get(query ? `/shop/sequence?${query}` : `/shop/popular?k=${RANKED}`);
    if (number !== asked) return;
    if (items.length) drawRow(list, mixed(items), null);
    else say("Nothing was clicked lately.");
  } catch {
    say("Nothing right now.");
  }
}

function drawRow(list, ranked, from) {
  const before = new Set(Array.from(list.children, (tile) => tile.dataset.item));
  list.replaceChildren(
    ...ranked.map((one) => {
      const item = one.item || { item_id: one.item_id, title: one.item_id, price: null };
      remember(item);
      const tile = tileOf(item, from);
      tile.append(element("span", "source", SOURCES[one.source] || one.source));
      if (before.size && !before.has(item.item_id)) tile.classList.add("fresh");
      return tile;
    }),
  );
}

function drawLooking(item) {
  const box = element("div", "product");
  const words = element("div", "words");
  words.append(element("h2", "", title(item)), element("p", "path", (item.categories || []).join(" › ")));
  const buy = element("div", "buy");
  buy.append(element("span", "price", price(item)));
  const add = element("button", "main", "Add to basket");
  add.type = "button";
  add.addEventListener("click", () => addToBasket(item));
  buy.append(add);
  words.append(buy);
  box.append(image(item, 200), words);
  $("looking").replaceChildren(box);
}

function drawTrail() {
  $("trail-row").hidden = visit.trail.length === 0;
  $("trail").replaceChildren(
    ...visit.trail.map((id, place) => {
      const item = known.get(id) || { item_id: id, title: id };
      const entry = element("li");
      const button = element("button", "thumb");
      button.type = "button";
      button.title = title(item);
      button.append(image(item, 44));
      button.firstChild.alt = `${title(item)}, ${place === 0 ? "your last click" : `${place + 1} clicks ago`}`;
      button.addEventListener("click", () => click(item));
      entry.append(button);
      return entry;
    }),
  );
}

function tileOf(item, from = null) {
  const tile = element("li", "tile");
  tile.dataset.item = item.item_id;
  const button = element("button", "card");
  button.type = "button";
  const picture = image(item, 200);
  picture.alt = "";
  const name = element("span", "name", title(item));
  name.title = title(item);
  button.append(picture, name, element("span", "price", price(item)));
  button.addEventListener("click", () => click(item, from));
  tile.append(button);
  return tile;
}

async function drawTiles(more = false) {
  const query = new URLSearchParams({ limit: 24 });
  if (page.q) query.set("q", page.q);
  if (page.category) query.set("category", page.category);
  if (more && page.cursor) query.set("cursor", page.cursor);
  try {
    const found = await get(`/shop/items?${query}`);
    found.items.forEach(remember);
    const tiles = found.items.map((item) => tileOf(item));
    if (more) $("tiles").append(...tiles);
    else $("tiles").replaceChildren(...tiles);
    if (more && tiles.length) tiles[0].firstChild.focus();
    page.cursor = found.next_cursor;
    $("more").hidden = !page.cursor;
    $("empty").hidden = $("tiles").children.length > 0;
    $("empty").textContent = `No matches for “${page.q}”. Try another word, or choose a department.`;
  } catch (error) {
    $("empty").hidden = false;
    $("empty").textContent = `The catalogue is not responding: ${error.message}`;
  }
}

async function drawCategories() {
  const { categories } = await get("/shop/categories");
  const chips = [null, ...categories].map((name) => {
    const chip = element("button", "chip", name || "Everything");
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(name === page.category));
    chip.addEventListener("click", () => {
      page = { q: "", category: name, cursor: null };
      $("q").value = "";
      for (const other of $("categories").children)
        other.setAttribute("aria-pressed", String(other === chip));
      drawTiles();
    });
    return chip;
  });
  $("categories").replaceChildren(...chips);
}

async function addToBasket(item) {
  visit.basket.push(item.item_id);
  save("visit", visit);
  drawBasket();
  tell(`${title(item)} is in your basket.`);
  await report("cart", item);
  await follow();
}

function drawBasket() {
  $("basket-count").textContent = visit.basket.length;
  const items = visit.basket.map((id) => known.get(id) || { item_id: id, title: id, price: null });
  $("lines").replaceChildren(
    ...items.map((item, place) => {
      const line = element("li");
      const remove = element("button", "quiet", "Remove");
      remove.type = "button";
      remove.setAttribute("aria-label", `Remove ${title(item)}`);
      remove.addEventListener("click", () => {
        visit.basket.splice(place, 1);
        save("visit", visit);
        drawBasket();
      });
      line.append(image(item, 44), element("span", "name", title(item)), element("span", "price", price(item)), remove);
      return line;
    }),
  );
  const total = items.reduce((sum, item) => sum + (item.price || 0), 0);
  $("sum").textContent = items.length ? `Total ${money.format(total)}` : "Your basket is empty.";
  $("check-out").disabled = items.length === 0;
}

async function checkOut() {
  const bought = visit.basket.map((id) => known.get(id) || { item_id: id, price: null });
  visit.basket = [];
  save("visit", visit);
  drawBasket();
  $("basket").close();
  for (const item of bought) await report("purchase", item);
  await follow();
  tell(`Thank you. ${bought.length} purchase${bought.length === 1 ? "" : "s"} recorded. You will not be recommended what you have bought.`);
}

function startOver() {
  visit = begin();
  recsys = client();
  $("looking").replaceChildren(element("p", "hint", "A new visitor: nothing is known about you yet."));
  drawTrail();
  drawBasket();
  follow();
}

// Items that are known by their ids alone.
async function learn(ids) {
  const wanted = [...new Set(ids)].filter((id) => !known.has(id)).slice(0, 20);
  await Promise.all(
    wanted.map(async (id) => {
      const { items } = await get(`/shop/items?${new URLSearchParams({ q: id, limit: 1 })}`);
      items.forEach(remember);
    }),
  );
}

async function get(address) {
  const response = await fetch(address, { signal: AbortSignal.timeout(6000) });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

function image(item, side) {
  const picture = element("img");
  picture.src = item.image || PARCEL;
  picture.addEventListener("error", () => { picture.src = PARCEL; }, { once: true });
  picture.width = picture.height = side;
  picture.loading = "lazy";
  picture.alt = title(item);
  return picture;
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text; // never markup: titles are somebody's words
  return made;
}

const style = (item) => item?.properties?.style;
const title = (item) => item.title || item.item_id;
const price = (item) => (item.price === null || item.price === undefined ? "" : money.format(item.price));
const remember = (item) => known.set(item.item_id, item);
const tell = (text) => { $("told").textContent = text; };

function load(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

function save(name, value) {
  sessionStorage.setItem(name, JSON.stringify(value));
}

let typing;
$("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    page = { q: $("q").value.trim(), category: null, cursor: null };
    for (const chip of $("categories").children) chip.setAttribute("aria-pressed", "false");
    drawTiles();
  }, 200);
});
$("search").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => drawTiles(true));
$("reset").addEventListener("click", startOver);
document.querySelector(".choice").addEventListener("change", () => drawBeside(asked));
$("why").addEventListener("change", () => follow());
$("open-basket").addEventListener("click", () => $("basket").showModal());
$("close-basket").addEventListener("click", () => $("basket").close());
$("check-out").addEventListener("click", checkOut);

await Promise.allSettled([drawCategories(), drawTiles(), learn([...visit.trail, ...visit.basket])]);
if (visit.trail.length && known.has(visit.trail[0])) drawLooking(known.get(visit.trail[0]));
drawTrail();
drawBasket();
await follow();
setInterval(followOthers, LOOK_MS);
