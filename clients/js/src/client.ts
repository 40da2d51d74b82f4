// The client: events in, recommendations out. One for each service and key.

import type {
  EventDetails,
  EventIn,
  ItemListAnswer,
  MergeAnswer,
  RecommendationAnswer,
  RecommendationBody,
} from "./api_types.js";
import { attributed, rememberClick } from "./clicks.js";
import { EventQueue, type Counts } from "./event_queue.js";
import { Impressions } from "./impressions.js";
import { Row, type RowOptions } from "./row.js";
import { RecsysError, address, isPage, randomId, sendAgain, type Service } from "./transport.js";

export interface Options {
  /** Of the service, such as https://recommendations.shop.example. */
  url: string;
  /** In a page a key of scope collect; elsewhere one of scope read and write. */
  key: string;
  /** Whose events and recommendations; in a page an anonymous id that is kept in localStorage. */
  session?: string;
  timeoutMs?: number;
  /** How often a question is asked again where the service is away. Events are kept and sent on. */
  retries?: number;
  /** Events that may wait; more are dropped, counted and told. */
  maxWaiting?: number;
  /** Events of one request. */
  maxBatch?: number;
  /** How long an event waits for others. */
  waitMs?: number;
  /** Told of what could not be sent, and of each event that was refused. */
  onError?: (error: RecsysError, event?: EventIn) => void;
}

export class Recsys {
  /** A random id of 128 bits, for a session of your own. */
  static randomId = randomId;

  readonly session: string | undefined;
  /** The service's address. */
  readonly url: string;
  private service: Service;
  private retries: number;
  private queue: EventQueue;
  private impressions: Impressions;

  constructor(options: Options) {
    if (!options.key || !options.url) throw new RecsysError("url and key are needed");
    const onError = options.onError ?? ((error) => console.warn(`recsys: ${error.message}`));
    this.service = {
      url: options.url.replace(/\/+$/, ""),
      key: options.key,
      timeoutMs: options.timeoutMs ?? 5000,
    };
    this.url = this.service.url;
    this.retries = options.retries ?? 2;
    this.session = options.session ?? (isPage ? anonymousId() : undefined);
    this.queue = new EventQueue(this.service, {
      maxWaiting: options.maxWaiting ?? 1000,
      maxBatch: options.maxBatch ?? (isPage ? 50 : 500),
      waitMs: options.waitMs ?? 200,
      onError,
    });
    this.impressions = new Impressions(this.service, onError);
    if (isPage) {
      const leave = () => document.visibilityState === "hidden" && this.leave();
      document.addEventListener("visibilitychange", leave);
      addEventListener("pagehide", () => this.leave());
      addEventListener("online", () => void this.flush());
    }
  }

  /** Takes an event and returns its id; it is sent with others in a moment. In a page, an event of an
   * item that was clicked in a row carries the recommendation_id of that row. */
  track(type: string, itemId: string, details: EventDetails = {}): string {
    const owner = details.user_id === undefined ? { session_id: this.session } : {};
    const event: EventIn = { ...owner, item_id: itemId, event_type: type, ...details };
    event.recommendation_id ??= isPage ? attributed(itemId) : undefined;
    return this.queue.add(event);
  }

  /** Sends what waits. What the service could not take goes on waiting: see `counts`. */
  async flush(): Promise<void> {
    await Promise.all([this.queue.flush(), this.impressions.flush()]);
  }

  /** What became of the events. */
  get counts(): Counts {
    return this.queue.counts;
  }

  /** What comes next for the session, or for `user_id`, whatever was tracked before included. */
  async recommend(question: RecommendationBody = {}): Promise<RecommendationAnswer> {
    await this.queue.flush();
    const owner = question.user_id === undefined ? { session_id: this.session } : {};
    return this.post("/recommendations", { ...owner, ...question });
  }

  similar(itemId: string, k?: number): Promise<ItemListAnswer> {
    return this.get("/items/similar", { item_id: itemId, k });
  }

  next(itemId: string, k?: number): Promise<ItemListAnswer> {
    return this.get("/items/next", { item_id: itemId, k });
  }

  /** `window`: days that count. */
  popular(question: { k?: number; window?: number; category?: string } = {}): Promise<ItemListAnswer> {
    return this.get("/items/popular", question);
  }

  /** Notes items of an answer as seen; rows do it by themselves. */
  shown(answer: RecommendationAnswer, items: string[]): void {
    this.impressions.add(answer.recommendation_id, items, answer.session_id ?? undefined);
  }

  /** Notes a click on an item of an answer, for the event that it leads to; rows do it by themselves. */
  clicked(recommendationId: string, itemId: string): void {
    rememberClick(recommendationId, itemId);
  }

  /** Has a session's events count as a user's from now on. Not in a page. */
  merge(userId: string, session = this.session): Promise<MergeAnswer> {
    const target = address(this.service, "/users/merge", { user_id: userId });
    return sendAgain(this.service, target, { session_id: session }, this.retries);
  }

  /** Draws a row of items into an element of the page. */
  async row(element: HTMLElement, options: RowOptions = {}): Promise<Row> {
    const row = new Row(this, element, options);
    await row.refresh();
    return row;
  }

  private get<Answer>(path: string, query: Record<string, unknown>): Promise<Answer> {
    return sendAgain(this.service, address(this.service, path, query), undefined, this.retries);
  }

  private post<Answer>(path: string, body: object): Promise<Answer> {
    return sendAgain(this.service, address(this.service, path), body, this.retries);
  }

  private leave(): void {
    this.queue.leave();
    this.impressions.leave();
  }
}

/** The visitor's id: random, the same on every page of the site, for as long as its storage lasts. */
function anonymousId(): string {
  const name = "recsys.session";
  try {
    const kept = localStorage.getItem(name) ?? randomId();
    localStorage.setItem(name, kept);
    return kept;
  } catch {
    return randomId();
  }
}
