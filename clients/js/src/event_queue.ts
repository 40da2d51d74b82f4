// Events on their way: sent in batches, kept while the service is away, sent again with the same ids.
// A retry is a duplicate to the service, never a second event. What waits is bounded; what is dropped
// or refused is counted and told.

import type { EventIn, EventsAnswer } from "./api_types.js";
import { RecsysError, address, isPage, randomId, send, waitMs, type Service } from "./transport.js";

const FRESH_MS = 5000; // an event younger than this is sent without a time: the service's clock is right
const KEPT = "recsys.events."; // name of what waits, in localStorage

/** What became of the events: added = accepted + duplicates + rejected + dropped + waiting. */
export interface Counts {
  accepted: number;
  duplicates: number;
  rejected: number;
  dropped: number;
  waiting: number;
}

/** An event with its id, and when it happened (ms since 1970, by this device's clock; 0: unknown). */
interface Entry {
  event: EventIn;
  at: number;
}

export interface QueueOptions {
  maxWaiting: number;
  maxBatch: number;
  waitMs: number;
  onError: (error: RecsysError, event?: EventIn) => void;
}

export class EventQueue {
  private waiting: Entry[] = [];
  private counted = { accepted: 0, duplicates: 0, rejected: 0, dropped: 0 };
  private sending: Promise<void> | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  private notBefore = 0; // the service has asked to be left alone until then
  private batch: number;
  private name = KEPT + randomId();

  constructor(
    private service: Service,
    private options: QueueOptions,
  ) {
    this.batch = options.maxBatch;
    if (isPage) this.takeOver();
  }

  get counts(): Counts {
    return { ...this.counted, waiting: this.waiting.length };
  }

  /** Takes an event and returns its id. Throws for what is no JSON. */
  add(event: EventIn): string {
    JSON.stringify(event);
    const known = { ...event, event_id: event.event_id ?? randomId() };
    this.take([{ event: known, at: Date.now() }]);
    this.keep();
    this.schedule(this.waiting.length >= this.batch ? 0 : this.options.waitMs);
    return String(known.event_id);
  }

  /** Sends what waits. Resolves once it is stored, or the service turns out to be away. */
  flush(): Promise<void> {
    if (Date.now() < this.notBefore) return Promise.resolve();
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  /** Hands what waits to the browser, as the page may be gone in a moment. What of it arrived is not
   * told, so it is kept and sent again when the visitor is back. */
  leave(): void {
    if (!this.waiting.length) return;
    const rows = this.next().map((one) => this.row(one));
    navigator.sendBeacon(address(this.service, "/events"), JSON.stringify(rows));
  }

  private async sendAll(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    while (this.waiting.length) {
      const entries = this.next();
      try {
        this.settle(entries, await this.post(entries));
        this.failures = 0;
      } catch (error) {
        if (!(error instanceof RecsysError)) throw error;
        if (error.isTransient) {
          if (this.failures === 0) this.options.onError(error);
          this.failures += 1;
          this.notBefore = error.retryAfterMs && Date.now() + error.retryAfterMs;
          this.schedule(waitMs(this.failures, error));
          return;
        }
        if (entries.length > 1 && (error.status === 413 || error.status === 422)) {
          this.batch = Math.ceil(entries.length / 2); // more than the service takes at once
          continue;
        }
        this.forget(entries);
        this.counted.rejected += entries.length;
        this.options.onError(error, entries[0].event);
      }
    }
  }

  /** The oldest of what waits; in a page those of one session, as the service asks for. */
  private next(): Entry[] {
    const first = this.waiting[0].event.session_id;
    const other = isPage ? this.waiting.findIndex((one) => one.event.session_id !== first) : -1;
    return this.waiting.slice(0, Math.min(this.batch, other < 0 ? Infinity : other));
  }

  private async post(entries: Entry[]): Promise<EventsAnswer> {
    const rows = entries.map((one) => this.row(one));
    try {
      return await send<EventsAnswer>(this.service, address(this.service, "/events"), rows);
    } catch (error) {
      const body = (error as RecsysError).body as Partial<EventsAnswer> | null;
      if (body?.results) return body as EventsAnswer; // 422: none of them was taken
      throw error;
    }
  }

  private settle(entries: Entry[], answer: EventsAnswer): void {
    const done: Entry[] = [];
    for (const result of answer.results) {
      const entry = entries[result.index];
      if (result.status === "rejected" && entry.at && this.isTimed(entry) && /^timestamp/.test(result.error ?? "")) {
        entry.at = 0; // this device's clock is wrong: let the service tell the time
        continue;
      }
      done.push(entry);
      if (result.status === "accepted") this.counted.accepted += 1;
      else if (result.status === "duplicate") this.counted.duplicates += 1;
      else {
        this.counted.rejected += 1;
        this.options.onError(new RecsysError(result.error ?? "rejected", 422), entry.event);
      }
    }
    this.forget(done);
  }

  /** Whether this queue, not the caller, says when the event happened. */
  private isTimed({ event, at }: Entry): boolean {
    return event.timestamp === undefined && at > 0 && Date.now() - at > FRESH_MS;
  }

  private row(entry: Entry): EventIn {
    return this.isTimed(entry) ? { ...entry.event, timestamp: entry.at } : entry.event;
  }

  private take(entries: Entry[]): void {
    this.waiting.push(...entries);
    const over = this.waiting.length - this.options.maxWaiting;
    if (over <= 0) return;
    const [lost] = this.waiting.splice(-over); // the newest: the order of the others stays whole
    this.counted.dropped += over;
    this.options.onError(new RecsysError(`the queue is full: ${over} dropped`), lost.event);
  }

  private forget(entries: Entry[]): void {
    this.waiting = this.waiting.filter((one) => !entries.includes(one));
    this.keep();
  }

  private schedule(ms: number): void {
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      void this.flush();
    }, ms);
  }

  /** Writes what waits where the next page of the visit finds it. */
  private keep(): void {
    if (!isPage) return;
    try {
      if (this.waiting.length) localStorage.setItem(this.name, JSON.stringify(this.waiting));
      else localStorage.removeItem(this.name);
    } catch {
      // No storage here, or no room: what waits is in memory.
    }
  }

  /** Takes what pages before this one could not be sure of. */
  private takeOver(): void {
    try {
      for (const name of Object.keys(localStorage).filter((one) => one.startsWith(KEPT))) {
        const entries = JSON.parse(localStorage.getItem(name) ?? "[]") as Entry[];
        localStorage.removeItem(name);
        this.take(entries.filter((one) => one?.event?.event_id));
      }
    } catch {
      return;
    }
    this.keep();
    if (this.waiting.length) this.schedule(0);
  }
}
