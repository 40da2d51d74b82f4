// Clicks on recommended items, remembered until the event they lead to: the view on the item's own page,
// and what follows for that item.

const NAME = "recsys.clicks";
const MINUTES = 30;
const MOST = 50;

interface Click {
  item: string;
  from: string; // recommendation_id
  at: number;
}

export function rememberClick(recommendationId: string, itemId: string): void {
  const others = recent().filter((one) => one.item !== itemId);
  const clicks = [...others, { item: itemId, from: recommendationId, at: Date.now() }];
  try {
    localStorage.setItem(NAME, JSON.stringify(clicks.slice(-MOST)));
  } catch {
    // No storage here: the click is not attributed.
  }
}

/** The recommendation_id of the row in which an item was clicked of late. */
export function attributed(itemId: string): string | undefined {
  return recent().find((one) => one.item === itemId)?.from;
}

function recent(): Click[] {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "[]") as Click[];
    return kept.filter((one) => Date.now() - one.at < MINUTES * 60_000);
  } catch {
    return [];
  }
}
