import { Code, ConnectError, createClient as connect } from "@connectrpc/connect";
import type { Client as ServiceClient, Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { TokenSource } from "./credentials.js";
import type { Credentials } from "./credentials.js";
import { ApiKeyService } from "./gen/switchboard/apikey/v1/apikey_pb.js";
import {
  EmailService,
  RecipientListService,
  SuppressionService,
  TemplateService,
} from "./gen/switchboard/email/v1/email_pb.js";
import { EventService, RouteService } from "./gen/switchboard/event/v1/event_pb.js";
import { NotificationService } from "./gen/switchboard/notification/v1/notification_pb.js";
import { AuditService } from "./gen/switchboard/settings/v1/audit_pb.js";
import { ConfigurationService } from "./gen/switchboard/settings/v1/configuration_pb.js";
import { SettingsService } from "./gen/switchboard/settings/v1/settings_pb.js";
import { WebhookService } from "./gen/switchboard/webhook/v1/webhook_pb.js";

/** A client of every service. */
export interface Client {
  /** The server, as it was given. */
  readonly baseUrl: string;
  /** The tokens that calls are made with. */
  readonly tokens: TokenSource;
  /** Publishes events and reads what became of them. */
  readonly events: ServiceClient<typeof EventService>;
  /** Manages which events cause which mails and notifications. */
  readonly routes: ServiceClient<typeof RouteService>;
  /** Manages webhook endpoints and their deliveries. */
  readonly webhooks: ServiceClient<typeof WebhookService>;
  /** Sends mails and reads the queue. */
  readonly emails: ServiceClient<typeof EmailService>;
  /** Manages and previews mail templates. */
  readonly templates: ServiceClient<typeof TemplateService>;
  /** Manages the addresses that get no mail. */
  readonly suppressions: ServiceClient<typeof SuppressionService>;
  /** Manages recipient lists. */
  readonly recipientLists: ServiceClient<typeof RecipientListService>;
  /** Manages API keys. */
  readonly apiKeys: ServiceClient<typeof ApiKeyService>;
  /** Reads and changes settings. */
  readonly settings: ServiceClient<typeof SettingsService>;
  /** Exports and imports the configuration as a whole. */
  readonly configuration: ServiceClient<typeof ConfigurationService>;
  /** Reads and verifies the audit log. */
  readonly audit: ServiceClient<typeof AuditService>;
  /** Inboxes, presence and live streams; `LiveStream` keeps one of those open. */
  readonly notifications: ServiceClient<typeof NotificationService>;
}

/** What a client may be made with. */
export interface ClientOptions {
  /** How long a call may take that does not say so itself, in milliseconds; 30 000 when unset. Streams have no end. */
  readonly timeoutMs?: number;
  /** Makes the transport, in the place of gRPC-web by `fetch`. */
  readonly transport?: (interceptors: Interceptor[]) => Transport;
}

const TIMEOUT = 30_000;

/**
 * Makes a client of the server at `baseUrl`, such as `https://switchboard.example.com`. Nothing is sent before the first
 * call. A call whose token is refused is made once more with a new one, if `credentials` has another.
 */
export function createClient(baseUrl: string, credentials: Credentials, options: ClientOptions = {}): Client {
  const tokens = new TokenSource(credentials);
  const interceptors = [authenticate(tokens)];
  const defaultTimeoutMs = options.timeoutMs ?? TIMEOUT;
  const transport =
    options.transport?.(interceptors) ?? endless(createGrpcWebTransport({ baseUrl, interceptors, defaultTimeoutMs }));
  return {
    baseUrl,
    tokens,
    events: connect(EventService, transport),
    routes: connect(RouteService, transport),
    webhooks: connect(WebhookService, transport),
    emails: connect(EmailService, transport),
    templates: connect(TemplateService, transport),
    suppressions: connect(SuppressionService, transport),
    recipientLists: connect(RecipientListService, transport),
    apiKeys: connect(ApiKeyService, transport),
    settings: connect(SettingsService, transport),
    configuration: connect(ConfigurationService, transport),
    audit: connect(AuditService, transport),
    notifications: connect(NotificationService, transport),
  };
}

/** The metadata of a call with this token or key. */
export function bearer(token: string): string {
  return `Bearer ${token}`;
}

/** Lets streams last, to which the transport would apply the deadline of calls as well. */
function endless(transport: Transport): Transport {
  return {
    unary: transport.unary.bind(transport),
    stream: (method, signal, timeoutMs, ...rest) => transport.stream(method, signal, timeoutMs ?? 0, ...rest),
  };
}

function authenticate(tokens: TokenSource): Interceptor {
  return (next) => async (request) => {
    // A stream brings its own, because it must know which one was refused.
    if (request.header.has("authorization")) {
      return next(request);
    }
    const token = await tokens.get();
    request.header.set("authorization", bearer(token));
    try {
      return await next(request);
    } catch (error) {
      if (request.stream || ConnectError.from(error).code !== Code.Unauthenticated) {
        throw error;
      }
      const other = await tokens.renew(token);
      if (other === token) {
        throw error;
      }
      request.header.set("authorization", bearer(other));
      return next(request);
    }
  };
}
