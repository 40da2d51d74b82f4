// A client for pages: sends what a visitor does and asks what comes next. No dependencies; copy it.
//
//   const recsys = new RecsysClient({ key: "…", session: "visitor-1" });
//   await recsys.send("view", "P0001");
//   const answer = await recsys.recommend(8);
//
// `key` is of scope `collect`: it may be read by everyone, posts events and asks for recommendations of
// one session, from the origins it names. What identifies a visitor is `session`: make it hard to guess.

export class RecsysClient {
  constructor({ key, session, base = "/api/v1", timeout = 4000 }) {
    Object.assign(this, { key, session, base, timeout });
  }

  // Resolves once the event is stored. It is sent again, with the same id, where the network or the
  // service fails: one event however often it arrives. `more`: value, recommendation_id, properties.
  async send(type, item, more = {}) {
    const event = {
      session_id: this.session,
      item_id: item,
      event_type: type,
      event_id: uniqueId(),
      ...more,
    };
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.post("/events", event);
      } catch (error) {
        const final = error.status && error.status < 500 && error.status !== 429;
        if (final || attempt === 3) throw error;
        await new Promise((done) => setTimeout(done, 200 * 2 ** attempt));
      }
    }
  }

  // The next k items for this visitor, whatever was stored a moment ago included.
  recommend(k, more = {}) {
    return this.post("/recommendations", { session_id: this.session, k, ...more });
  }

  async post(path, body) {
    const response = await fetch(this.base + path, {
      method: "POST",
      keepalive: true, // it arrives even if the visitor leaves the page
      headers: { "Content-Type": "application/json", "X-API-Key": this.key },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(this.timeout),
    });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) {
      const error = new Error(answer.detail || `status ${response.status}`);
      error.status = response.status;
      throw error;
    }
    return answer;
  }
}

// A random id; crypto.randomUUID is there on https and localhost alone.
export function uniqueId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
