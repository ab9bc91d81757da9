export { ConnectionLost, Expired, Refused } from "./errors.js";
export { type Chunk, type FeedEvent, type FeedOptions, followEvents, followTask, type FollowOptions } from "./follow.js";
export type { HeadersAsked, Options, State } from "./options.js";
export { resumable } from "./resumable.js";
