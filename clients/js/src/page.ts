// What /client.js is in a page: the client, and what the page's own markup asks of it.
//
//   <script src="https://recommendations.shop.example/client.js" data-key="rk_…" defer></script>
//   <main data-recsys-view="P0001">                                   a view of an item
//   <button data-recsys-track="cart" data-item="P0001" data-value="19.5">   an event at a click
//   <div data-recsys="recommend" data-title="For you" data-link="/product/{item_id}"></div>   a row

import { Recsys } from "./client.js";
import type { RowOptions } from "./row.js";
import { RecsysError } from "./transport.js";

declare global {
  interface Window {
    Recsys: typeof Recsys;
    recsys?: Recsys;
  }
}

const LISTS = ["recommend", "similar", "next", "popular"];
const script = document.currentScript as HTMLScriptElement | null;
window.Recsys = Recsys;

if (script?.dataset.key) {
  const told = new Set<string>();
  const tell = (error: unknown) => {
    const message = `recsys: ${(error as Error).message}`;
    if (!told.has(message)) console.warn(message);
    told.add(message);
  };
  const { key, url = new URL(script.src).origin, session } = script.dataset;
  const recsys = (window.recsys = new Recsys({ key, url, session, onError: tell }));
  const start = () => void begin(recsys, tell);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}

async function begin(recsys: Recsys, tell: (error: unknown) => void): Promise<void> {
  const viewed = document.querySelector<HTMLElement>("[data-recsys-view]")?.dataset.recsysView;
  if (viewed) recsys.track("view", viewed);
  document.addEventListener("click", ({ target }) => {
    const data = (target as Element).closest<HTMLElement>("[data-recsys-track]")?.dataset;
    const item = data?.item ?? viewed;
    if (!data?.recsysTrack || !item) return;
    const value = data.value === undefined ? {} : { value: Number(data.value) };
    recsys.track(data.recsysTrack, item, value);
  });
  for (const element of Array.from(document.querySelectorAll<HTMLElement>("[data-recsys]"))) {
    const { recsys: list = "", k, item = viewed, title, link, image, currency, scenario, category } = element.dataset;
    if (!LISTS.includes(list)) {
      tell(new RecsysError(`data-recsys="${list}": expected one of ${LISTS.join(", ")}`));
      continue;
    }
    const options = { list, item, k: k ? Number(k) : undefined, title, link, image, currency, scenario, category };
    recsys.row(element, options as RowOptions).catch(tell);
  }
}
