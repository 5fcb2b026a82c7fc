import { Code, ConnectError } from "@connectrpc/connect";

/** What a user may be shown of a stream. */
export type ConnectionState = "connecting" | "connected" | "disconnected";

/** Why a stream is not connected. */
export type DisconnectReason =
  /** It has not been started, or `stop` was called. */
  | "stopped"
  /** The page has been hidden for long; the stream goes on when it is shown. */
  | "hidden"
  /** The connection was lost, or could not be made; there will be another try. */
  | "lost"
  /** The server ended it and named a time to come back. */
  | "closed"
  /** The server will not have it: `error` or `closing` says why. Only `start` tries again. */
  | "refused";

/** How a stream is. */
export interface Status {
  readonly state: ConnectionState;
  /** Why it is disconnected. */
  readonly reason?: DisconnectReason;
  /** When the next try will be, in milliseconds since 1970. */
  readonly retryAt?: number;
  /** What went wrong, in words. */
  readonly message?: string;
}

/** Why a subscriber has to fetch the state anew. */
export type ResyncReason =
  /** The server's log no longer keeps what was missed. */
  | "cursor_expired"
  /** The place to go on from is of another database. */
  | "cursor_unknown"
  /** The stream was too far behind. */
  | "lag"
  /** This tab has missed what another one received, as after it was frozen. */
  | "missed";

/** Codes that say: not again with the same request. */
const FINAL = new Set([
  Code.FailedPrecondition,
  Code.InvalidArgument,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
]);

/** Whether the server itself said that trying again is of no use. A proxy's answer has no details and is not believed. */
export function isFinal(error: ConnectError): boolean {
  return FINAL.has(error.code) && error.details.length > 0;
}

/** How long the server asks to wait, in milliseconds, if it does. */
export function retryAfter(error: ConnectError): number | undefined {
  const seconds = Number(error.metadata.get("retry-after") ?? NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}
