import type { Filters } from "./filters.js";
import type { Status } from "./status.js";
import type { Wish } from "./wishes.js";

/** What the tabs of an origin say to each other. One of them leads: it has the stream and passes its frames on. */
export type Message =
  /** Who follows wants this. */
  | ({ readonly kind: "join"; readonly tab: string } & Wish)
  /** Somebody no longer follows. */
  | { readonly kind: "leave"; readonly tab: string }
  /** A new one leads: who follows has to say again what they want. */
  | { readonly kind: "lead" }
  /** How the stream is. */
  | { readonly kind: "status"; readonly status: Status }
  /** A user is looking, or the network is back: try now. */
  | { readonly kind: "wake" }
  /** What a tab wants is in force. Frames that follow `seq` of this run are for it as well. */
  | {
      readonly kind: "welcome";
      readonly tab: string;
      readonly wish: number;
      readonly run: string;
      readonly seq: number;
      readonly cursor: string;
      /** What the other tabs want. */
      readonly wishes: readonly (readonly [string, Wish])[];
      /** The newest ephemeral events, as one encoded frame. */
      readonly latest: Uint8Array;
    }
  /** What a tab wants is refused by the server. */
  | { readonly kind: "refused"; readonly tab: string; readonly wish: number; readonly message: string }
  /** A frame of the stream, encoded: the one with this number since the stream was opened to go on from `start`. */
  | {
      readonly kind: "frame";
      readonly run: string;
      readonly start: string;
      readonly seq: number;
      /** In the first one: what the stream was opened for. */
      readonly about: Filters | undefined;
      readonly bytes: Uint8Array;
    };
