export { createClient } from "./client.js";
export type { Client, ClientOptions } from "./client.js";
export type { Credentials } from "./credentials.js";
export type { Channel, Environment, Store } from "./environment.js";
export type { Filters } from "./filters.js";
export { LiveStream } from "./live.js";
export type { LiveOptions } from "./live.js";
export type { ConnectionState, DisconnectReason, ResyncReason, Status } from "./status.js";
export type { Event } from "./gen/switchboard/event/v1/event_pb.js";
