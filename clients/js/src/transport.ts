// One request to the service, with a timeout, and what went wrong as an error that says what to do.

import type { FieldError, Problem } from "./api_types.js";

/** Where the service is, with which key, and how long to wait for it. */
export interface Service {
  url: string;
  key: string;
  timeoutMs: number;
}

/** Whether this runs in a page, where the key is public and goes into the address. */
export const isPage = typeof document !== "undefined";

/** The service refused, or could not be reached (`status` 0). */
export class RecsysError extends Error {
  override name = "RecsysError";

  constructor(
    message: string,
    readonly status = 0,
    readonly errors: FieldError[] = [],
    readonly retryAfterMs = 0,
    readonly body: unknown = null,
  ) {
    super(message);
  }

  /** Whether the same request may succeed later. */
  get isTransient(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** The address of a resource. In a page it holds the key, so that no request needs a preflight. */
export function address(service: Service, path: string, query: Record<string, unknown> = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const parameters = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  if (isPage) parameters.set("api_key", service.key);
  const text = parameters.toString();
  return `${service.url}/api/v1${path}${text && "?"}${text}`;
}

/** Sends one request and returns its JSON. Throws RecsysError. */
export async function send<Answer>(service: Service, target: string, body?: unknown): Promise<Answer> {
  const json = body === undefined ? undefined : JSON.stringify(body);
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), service.timeoutMs);
  let response: Response;
  let text: string;
  try {
    response = await fetch(target, {
      method: json === undefined ? "GET" : "POST",
      body: json,
      signal: stop.signal,
      credentials: "omit",
      // Arrives even if the visitor leaves the page; browsers bound what is on its way like that.
      keepalive: isPage && json !== undefined && json.length < 30_000,
      headers: isPage ? {} : { "X-API-Key": service.key, "Content-Type": "application/json" },
    });
    text = await response.text();
  } catch (error) {
    throw new RecsysError(unreachable(service, stop.signal.aborted, error));
  } finally {
    clearTimeout(timer);
  }
  let answer: unknown = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy's page; its status says enough.
  }
  if (response.ok && answer !== null) return answer as Answer;
  const problem = (answer ?? {}) as Partial<Problem>;
  const fields = (problem.errors ?? []).map((one) => `${one.field}: ${one.message}`);
  throw new RecsysError(
    [problem.detail || `status ${response.status}`, ...fields].join("; "),
    response.ok ? 502 : response.status,
    problem.errors,
    1000 * (Number(response.headers.get("Retry-After")) || 0),
    answer,
  );
}

/** Sends one request, and again, `retries` times at most, where it may succeed later. */
export async function sendAgain<Answer>(
  service: Service,
  target: string,
  body: unknown,
  retries: number,
): Promise<Answer> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await send<Answer>(service, target, body);
    } catch (error) {
      const wait = waitMs(attempt, error as RecsysError);
      const final = !(error instanceof RecsysError && error.isTransient);
      if (final || attempt >= retries || wait > service.timeoutMs) throw error;
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}

/** How long to wait after `attempt` failures: doubled each time, a random part of it, a minute at most. */
export function waitMs(attempt: number, error: RecsysError): number {
  const longest = Math.min(60_000, 250 * 2 ** Math.min(attempt, 10));
  return Math.max(error.retryAfterMs || 0, longest * (0.5 + Math.random() / 2));
}

/** A random id of 128 bits. (crypto.randomUUID is there on https and localhost alone.) */
export function randomId(): string {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto) crypto.getRandomValues(bytes);
  else bytes.forEach((_, at) => (bytes[at] = Math.random() * 256)); // Node 18
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unreachable(service: Service, timedOut: boolean, error: unknown): string {
  if (timedOut) return `${service.url} did not answer within ${service.timeoutMs} ms`;
  if (isPage && location.protocol === "https:" && service.url.startsWith("http:"))
    return `a page on https cannot ask ${service.url}: serve it over https`;
  return `${service.url} cannot be reached: ${(error as Error).message}`;
}
