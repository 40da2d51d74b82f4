// A row of items, drawn without a framework. Texts are set as text, addresses are checked, and the style
// is of no specificity at all: the page's own rules win, and variables (--recsys-…) change the rest.

import type { ItemOut, RankedItemOut, RecommendationAnswer } from "./api_types.js";
import type { Recsys } from "./client.js";

export interface RowOptions {
  /** Which items; default recommend. */
  list?: "recommend" | "similar" | "next" | "popular";
  /** The item that similar and next start from; for recommend, one that is not to be shown. */
  item?: string;
  /** How many; default 8, or as many as the scenario says. */
  k?: number;
  title?: string;
  /** Address of an item's page: /product/{item_id}; also {title} and properties by name. Default: the
   * property `url`. */
  link?: string;
  /** Address of an item's picture where the catalogue has none, in the same form. */
  image?: string;
  /** Shows prices, in this currency: EUR. */
  currency?: string;
  /** The stored scenario that answers, or else a placement for reports. */
  scenario?: string;
  category?: string;
}

/** What a row shows of an item. */
type Shown = Pick<ItemOut, "item_id" | "title" | "price" | "image" | "properties">;

const STYLE = `
.recsys-row h2{margin:0 0 .6em;font-size:var(--recsys-title-size,1.25em)}
.recsys-row ul{display:flex;gap:var(--recsys-gap,1rem);margin:0;padding:0 0 .5rem;list-style:none;overflow-x:auto;scroll-snap-type:x proximity}
.recsys-row li{flex:0 0 var(--recsys-width,10rem);min-width:0;scroll-snap-align:start}
.recsys-item{display:block;width:100%;padding:0;border:0;background:none;color:var(--recsys-color,inherit);font:inherit;text-align:start;text-decoration:none;cursor:pointer;border-radius:var(--recsys-radius,.5rem)}
.recsys-item:focus-visible{outline:2px solid var(--recsys-accent,currentColor);outline-offset:2px}
.recsys-picture{display:grid;place-items:center;width:100%;aspect-ratio:var(--recsys-ratio,1);object-fit:cover;border-radius:var(--recsys-radius,.5rem);background:var(--recsys-background,#8882);font-size:2em}
.recsys-name{display:-webkit-box;margin-top:.4em;overflow:hidden;overflow-wrap:anywhere;-webkit-box-orient:vertical;-webkit-line-clamp:2}
.recsys-price{display:block;opacity:.75}`;
const SEEN_SHARE = 0.5; // of an item's area

export class Row {
  private number = 0;
  private observer: IntersectionObserver | undefined;

  constructor(
    private recsys: Recsys,
    readonly element: HTMLElement,
    private options: RowOptions,
  ) {
    addStyle();
  }

  /** Asks again and draws what comes. An element without items is hidden; `data-recsys-state` says why. */
  async refresh(): Promise<void> {
    const { element } = this;
    const number = (this.number += 1);
    element.setAttribute("aria-busy", "true");
    try {
      const answer = await this.ask();
      if (number !== this.number) return; // an answer that comes late never replaces a newer one
      this.draw(answer);
    } catch (error) {
      if (number === this.number && !element.childElementCount) this.state("error");
      throw error;
    } finally {
      if (number === this.number) element.removeAttribute("aria-busy");
    }
  }

  private ask(): Promise<Partial<RecommendationAnswer> & { items: RankedItemOut[] }> {
    const { list = "recommend", item, scenario, category } = this.options;
    const k = this.options.k ?? (scenario && list === "recommend" ? undefined : 8);
    if (list === "popular") return this.recsys.popular({ k, category });
    if (list !== "recommend") return this.recsys[list](item ?? "", k);
    return this.recsys.recommend({
      k,
      scenario,
      exclude_items: item === undefined ? undefined : [item],
      categories: category === undefined ? undefined : [category],
    });
  }

  private draw(answer: Partial<RecommendationAnswer> & { items: RankedItemOut[] }): void {
    const { element, options } = this;
    this.observer?.disconnect();
    const list = create("ul");
    list.append(...answer.items.map((one) => this.tile(one, answer.recommendation_id)));
    element.classList.add("recsys-row");
    element.replaceChildren();
    if (options.title) {
      const heading = create("h2", "", options.title);
      heading.id = `recsys-${Math.random().toString(36).slice(2)}`;
      list.setAttribute("aria-labelledby", heading.id);
      element.append(heading);
    }
    list.setAttribute("role", "list"); // which list-style: none takes away in Safari
    element.append(list);
    this.state(answer.items.length ? "ready" : "empty");
    if (answer.recommendation_id) this.watch(list, answer as RecommendationAnswer);
  }

  private tile(one: RankedItemOut, from: string | undefined): HTMLElement {
    const item: Shown = one.item ?? { item_id: one.item_id, title: null, price: null, image: null, properties: {} };
    const name = item.title ?? one.item_id;
    const href = pageAddress(this.options.link ? filled(this.options.link, item) : item.properties.url);
    const link = create(href ? "a" : "button", "recsys-item");
    if (href) (link as HTMLAnchorElement).href = href;
    else (link as HTMLButtonElement).type = "button";
    link.append(this.picture(item, name), create("span", "recsys-name", name));
    if (this.options.currency && item.price !== null) {
      const format = new Intl.NumberFormat(document.documentElement.lang || undefined, {
        style: "currency",
        currency: this.options.currency,
      });
      link.append(create("span", "recsys-price", format.format(item.price)));
    }
    const clicked = () => {
      if (from) this.recsys.clicked(from, one.item_id);
      this.element.dispatchEvent(new CustomEvent("recsys:click", { bubbles: true, detail: one }));
    };
    link.addEventListener("click", clicked);
    link.addEventListener("auxclick", (event) => event.button === 1 && clicked()); // into a new tab
    const tile = create("li");
    tile.dataset.item = one.item_id;
    tile.append(link);
    return tile;
  }

  private picture(item: Shown, name: string): HTMLElement {
    const source = pageAddress(item.image ?? (this.options.image && filled(this.options.image, item)));
    const blank = create("span", "recsys-picture", [...name][0]);
    blank.setAttribute("aria-hidden", "true");
    if (!source) return blank;
    const picture = create("img", "recsys-picture") as HTMLImageElement;
    picture.alt = ""; // its name stands below
    picture.loading = "lazy";
    const other = pageAddress(item.image, this.recsys.url); // a path that the page's own origin lacks
    picture.addEventListener("error", () => {
      if (other && picture.src !== other) picture.src = other;
      else picture.replaceWith(blank);
    });
    picture.src = source;
    return picture;
  }

  /** Notes which items come into view. */
  private watch(list: HTMLElement, answer: RecommendationAnswer): void {
    this.observer = new IntersectionObserver(
      (entries) => {
        const seen = entries.filter((one) => one.isIntersecting).map((one) => one.target as HTMLElement);
        seen.forEach((tile) => this.observer?.unobserve(tile));
        if (seen.length) this.recsys.shown(answer, seen.map((tile) => tile.dataset.item ?? ""));
      },
      { threshold: SEEN_SHARE },
    );
    for (const tile of Array.from(list.children)) this.observer.observe(tile);
  }

  private state(state: "ready" | "empty" | "error"): void {
    this.element.dataset.recsysState = state;
    this.element.hidden = state !== "ready";
    this.element.dispatchEvent(new CustomEvent("recsys:row", { bubbles: true, detail: state }));
  }
}

/** `template` with {item_id}, {title} and properties put in, encoded; undefined where one is missing. */
function filled(template: string, item: Shown): string | undefined {
  let whole = true;
  const text = template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = name === "item_id" || name === "title" ? item[name] : item.properties[name];
    whole &&= value !== null && value !== undefined;
    return encodeURIComponent(String(value));
  });
  return whole ? text : undefined;
}

/** An address that a page may lead to or load from: http or https, or relative to the page. */
function pageAddress(given: unknown, base = document.baseURI): string | undefined {
  if (typeof given !== "string" || !given) return undefined;
  try {
    const url = new URL(given, base);
    return /^https?:$/.test(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

function create(tag: string, className = "", text = ""): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

let styled = false;

/** Adds the rows' style. As a sheet made here, it is no inline style to a page's policy. */
function addStyle(): void {
  if (styled || !("adoptedStyleSheets" in document)) return;
  styled = true;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE.replace(/^(\S[^{]*)\{/gm, ":where($1){"));
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}
