export * from "./api_types.js";
export { Recsys, type Options } from "./client.js";
export type { Counts } from "./event_queue.js";
export type { Row, RowOptions } from "./row.js";
export { RecsysError } from "./transport.js";
