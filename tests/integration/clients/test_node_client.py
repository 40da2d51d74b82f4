"""The npm package in Node, against a served shop."""

import json

PROGRAM = """
import { Recsys, RecsysError } from "recsys-client";
const [url, key] = process.argv.slice(2);
const told = [];
const onError = (error, event) => told.push([error.status, error.message, event?.item_id]);
const recsys = new Recsys({ url, key, onError, waitMs: 10, maxBatch: 7 });
const given = [];
for (let n = 10; n < 60; n += 1) given.push(recsys.track("view", `P00${n}`, { user_id: "node", value: n }));
await recsys.flush();
while (recsys.counts.waiting) await new Promise((done) => setTimeout(done, 20));
recsys.track("view", "P0001");
await recsys.flush();
const answer = await recsys.recommend({ user_id: "node", k: 3 });
recsys.shown(answer, [answer.items[0].item_id]);
await recsys.flush();
const lists = [await recsys.similar("P0001", 2), await recsys.next("P0001", 2), await recsys.popular({ k: 2 })];
const merged = await recsys.merge("node-user", "node-session");
const failed = await recsys.recommend({ user_id: "node", k: 0 }).catch((error) => error);
const away = new Recsys({ url: "http://127.0.0.1:9", key, retries: 0 });
const unreachable = await away.popular().catch((error) => error.message);
console.log(JSON.stringify({
  given, told, counts: recsys.counts, id: answer.recommendation_id, k: lists.map((one) => one.items.length),
  merged: merged.merged, failed: [failed instanceof RecsysError, failed.status, failed.message], unreachable,
}));
"""
TYPED = """
import { Recsys, type RecommendationAnswer } from "recsys-client";
const recsys = new Recsys({ url: "http://x", key: "k" });
const id: string = recsys.track("purchase", "P1", { user_id: "u", value: 1, properties: { a: [1] } });
const answer: Promise<RecommendationAnswer> = recsys.recommend({ user_id: id, k: 3 });
answer.then(({ items }) => items[0].item?.title?.length);
// @ts-expect-error: an event has no such field
recsys.track("view", "P1", { colour: "red" });
"""


def install(package, folder):
    """The package where Node looks for it."""
    (folder / "node_modules").mkdir()
    (folder / "node_modules/recsys-client").symlink_to(package)
    return folder


def test_node_tracks_through_lost_answers_and_asks(served, node, package, tmp_path):
    program = install(package, tmp_path) / "program.mjs"
    program.write_text(PROGRAM)
    served.cut = 1
    told = json.loads(node(program, served.url, served.keys["admin"]))
    assert [one.event_id for one in served.stored("node")] == told["given"]
    assert told["counts"]["duplicates"] == 7
    counts = {"accepted": 43, "duplicates": 7, "rejected": 1, "dropped": 0, "waiting": 0}
    assert told["counts"] == counts
    assert told["told"][0][0] == 0 and "cannot be reached" in told["told"][0][1]
    assert told["told"][1][2] == "P0001" and "user_id" in told["told"][1][1]
    shown = served.service.get(f"/recommendations/{told['id']}")["shown"]
    assert len(shown) == 1
    assert (told["k"], told["merged"]) == ([2, 2, 2], "node-session")
    assert told["failed"][:2] == [True, 422] and "k: Input should be" in told["failed"][2]
    assert told["unreachable"].startswith("http://127.0.0.1:9 cannot be reached")


def test_programs_are_checked_against_its_types(node, package, tmp_path):
    folder = install(package, tmp_path)
    (folder / "program.ts").write_text(TYPED)
    options = ["--noEmit", "--strict", "--module", "esnext", "--moduleResolution", "bundler"]
    lib = ["--target", "es2022", "--lib", "es2022,dom"]
    compiler = ["-e", "require('typescript/lib/tsc.js')", "--"]
    node(*compiler, *options, *lib, folder / "program.ts")
