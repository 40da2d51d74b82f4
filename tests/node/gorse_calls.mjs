// Every call of gorsejs, against the address and with the key given; what each answers, as one JSON object.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Gorse, GorseException } = require("gorsejs");

const [endpoint, secret] = process.argv.slice(2);
const called = new Set();
const client = new Proxy(new Gorse({ endpoint, secret }), {
  get(target, name) {
    called.add(name);
    return target[name].bind(target);
  },
});
const found = {};

async function call(name, work) {
  try {
    found[name] = await work();
  } catch (error) {
    if (!(error instanceof GorseException)) throw error;
    found[name] = { code: error.code, message: error.message };
  }
}

const time = "2022-08-07T00:26:46Z";
const user = { UserId: "100", Labels: ["a", "b", "c"], Comment: "comment" };
const item = {
  ItemId: "100",
  IsHidden: true,
  Labels: ["a", "b", "c"],
  Categories: ["d", "e"],
  Timestamp: time,
  Comment: "comment",
};
const of = (FeedbackType, ItemId, more = {}) => ({
  FeedbackType, UserId: "100", ItemId, Timestamp: time, ...more,
});
const filter = { type: "like", userId: "100", itemId: "100" };

await call("insertUser", () => client.insertUser(user));
await call("getUser", () => client.getUser("100"));
await call("insertUsers", () => client.insertUsers([{ UserId: "101" }, { UserId: "102" }]));
await call("updateUser", () => client.updateUser("101", { UserId: "101", Comment: "new" }));
await call("getUpdatedUser", () => client.getUser("101"));
await call("getUsers", () => client.getUsers({ n: 2 }));
await call("getMoreUsers", () => client.getUsers({ n: 2, Cursor: found.getUsers.Cursor }));
await call("getUserNeighbors", () => client.getUserNeighbors({ userId: "100" }));

await call("upsertItem", () => client.upsertItem(item));
await call("getItem", () => client.getItem("100"));
await call("upsertItems", () =>
  client.upsertItems([
    { ItemId: "200", IsHidden: false, Timestamp: "2022-08-08T00:00:00Z", Categories: ["d"] },
    { ItemId: "300", IsHidden: false, Timestamp: new Date(Date.UTC(2022, 7, 9)) },
  ]));
await call("getItems", () => client.getItems({ n: 10 }));
await call("updateItem", () => client.updateItem("100", { IsHidden: false, Comment: "seen" }));
await call("insertItemCategory", () => client.insertItemCategory("100", "f"));
await call("deleteItemCategory", () => client.deleteItemCategory("100", "d"));
await call("getUpdatedItem", () => client.getItem("100"));

await call("insertFeedbacks", () =>
  client.insertFeedbacks([of("like", "100"), of("read", "200"), of("read", "300")]));
await call("getFeedback", () => client.getFeedback(filter, { n: 1 }));
await call("upsertFeedbacks", () => client.upsertFeedbacks([of("read", "200", { Value: 2 })]));
await call("getFeedbacks", () => client.getFeedbacks());
await call("getFeedbacksByType", () => client.getFeedbacks("read", { n: 1 }));
await call("getUserFeedback", () => client.getUserFeedback("100"));
await call("getUserFeedbackByType", () => client.getUserFeedbackByType("100", "read"));
await call("getItemFeedback", () => client.getItemFeedback("100"));
await call("getItemFeedbackByType", () => client.getItemFeedbackByType("200", "read"));
await call("getPopular", () => client.getPopular({}));
await call("getPopularInCategory", () => client.getPopular({ category: "d" }));
await call("getLatest", () => client.getLatest({ cursorOptions: { n: 2 } }));
await call("getLatestInCategory", () => client.getLatest({ category: "f" }));
await call("getItemNeighbors", () => client.getItemNeighbors({ itemId: "200" }));
await call("getRecommend", () => client.getRecommend({ userId: "101" }));
await call("getRecommendInCategory", () => client.getRecommend({ userId: "101", category: "f" }));
const shown = { userId: "101", writeBackType: "read", cursorOptions: { n: 1 } };
await call("writeBack", () => client.getRecommend(shown));
await call("writeBackLater", () => client.getRecommend({ ...shown, writeBackDelay: "10m" }));
await call("afterWriteBack", () => client.getRecommend({ userId: "101" }));
await call("getSessionRecommend", () => client.getSessionRecommend([of("like", "100")]));
await call("deleteFeedback", () => client.deleteFeedback(filter));
await call("deleteItem", () => client.deleteItem("100"));
await call("getDeletedItem", () => client.getItem("100"));
await call("deleteUser", () => client.deleteUser("100"));
await call("getDeletedUser", () => client.getUser("100"));
await call("wrongKey", () => new Gorse({ endpoint, secret: "wrong" }).getUser("100"));
const methods = Object.getOwnPropertyNames(Gorse.prototype).filter((name) => name !== "constructor");
found.notCalled = methods.filter((name) => !called.has(name));
console.log(JSON.stringify(found));
