// What was really seen of the answers: collected, and reported once it has not grown for a moment.

import type { ImpressionAnswer } from "./api_types.js";
import { RecsysError, address, sendAgain, type Service } from "./transport.js";

const SETTLED_MS = 1000; // after the last item came into view; by then the answer is stored
const RETRIES = 3;

interface Seen {
  session: string | undefined;
  items: Set<string>;
  timer?: ReturnType<typeof setTimeout>;
}

export class Impressions {
  private seen = new Map<string, Seen>();

  constructor(
    private service: Service,
    private onError: (error: RecsysError) => void,
  ) {}

  /** Notes items of an answer as seen; `session` is the one that was answered. */
  add(recommendationId: string, items: string[], session: string | undefined): void {
    const known = this.seen.get(recommendationId) ?? { session, items: new Set<string>() };
    const before = known.items.size;
    items.forEach((item) => known.items.add(item));
    if (known.items.size === before) return;
    clearTimeout(known.timer);
    known.timer = setTimeout(() => void this.report(recommendationId), SETTLED_MS);
    this.seen.set(recommendationId, known);
  }

  /** Reports all that is not reported yet. */
  async flush(): Promise<void> {
    const due = [...this.seen].filter(([, one]) => one.timer !== undefined);
    await Promise.all(due.map(([id]) => this.report(id)));
  }

  /** Hands what is not reported yet to the browser, as the page may be gone in a moment. */
  leave(): void {
    for (const [id, one] of this.seen) {
      if (one.timer === undefined) continue;
      navigator.sendBeacon(address(this.service, "/impressions"), JSON.stringify(body(id, one)));
    }
  }

  private async report(id: string): Promise<void> {
    const one = this.seen.get(id);
    if (!one) return;
    clearTimeout(one.timer);
    one.timer = undefined;
    try {
      await sendAgain<ImpressionAnswer>(this.service, address(this.service, "/impressions"), body(id, one), RETRIES);
    } catch (error) {
      // 404: the service keeps a share of its answers, and this is none of them.
      if ((error as RecsysError).status !== 404) this.onError(error as RecsysError);
    }
  }
}

function body(id: string, one: Seen): object {
  return { recommendation_id: id, session_id: one.session, items: [...one.items] };
}
