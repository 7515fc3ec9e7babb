/** Lets a call through when its bearer token has the role that its method needs. */
import {
  type Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
} from "@grpc/grpc-js";
import { PermissionDeniedError, type ServiceError, UnauthenticatedError } from "../../errors.js";
import { methodName } from "../contract.js";
import { statusOf } from "../status.js";
import { requirementOf, requirementOfMessage } from "./roles.js";
import type { Caller, TokenTable } from "./tokens.js";

const BEARER = /^Bearer ([\x21-\x7e]{1,1024})$/i;

export interface GuardOptions {
  /** The table in force. */
  tokens(): TokenTable;
  /** Told who calls, before the call reaches its handler. */
  onCaller(metadata: Metadata, caller: Caller): void;
}

export function guardInterceptor({ tokens, onCaller }: GuardOptions): ServerInterceptor {
  return (descriptor, next) => {
    const method = methodName(descriptor.path);
    let caller: Caller | null = null;
    let refused = false;
    const refuse = (error: ServiceError) => {
      refused = true;
      call.sendStatus(statusOf(error));
    };
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, forward) => {
        const verdict = admit(method, metadata, tokens());
        caller = verdict.caller;
        // Also of a call that is refused: the audit log says who tried.
        if (caller) onCaller(metadata, caller);
        if (verdict.refusal) return refuse(verdict.refusal);
        forward(metadata);
      })
      .withOnReceiveMessage((message, forward) => {
        if (refused) return;
        const role = requirementOfMessage(method, message);
        if (role !== null && !caller?.roles.has(role) && !caller?.roles.has("admin")) {
          return refuse(new PermissionDeniedError(method, role));
        }
        forward(message);
      })
      .withOnReceiveHalfClose((forward) => {
        if (!refused) forward();
      })
      .build();
    const responder = new ResponderBuilder().withStart((begin) => begin(listener)).build();
    const call = new ServerInterceptingCall(next, responder);
    return call;
  };
}

function admit(
  method: string,
  metadata: Metadata,
  tokens: TokenTable,
): { caller: Caller | null; refusal: ServiceError | null } {
  const requirement = requirementOf(method);
  if (requirement === "open") return { caller: null, refusal: null };
  const values = metadata.get("authorization");
  const token = BEARER.exec(String(values[0] ?? ""))?.[1];
  const caller = values.length === 1 && token !== undefined ? tokens.find(token) : null;
  if (caller === null) return { caller, refusal: new UnauthenticatedError() };
  const { roles } = caller;
  const allowed =
    requirement === "any" ||
    (requirement !== null && (roles.has(requirement) || roles.has("admin")));
  return { caller, refusal: allowed ? null : new PermissionDeniedError(method, requirement) };
}
