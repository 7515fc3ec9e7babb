/**
 * Bounds what one HTTP/2 connection, and how many of them, may cost, and lets no call outlive its end.
 *
 * nghttp2 counts the streams that a client resets (CVE-2023-44487) and, over 1000 with 33 a second
 * coming back, ends the connection with every call on it. Node 20 has no option for that. Here a
 * connection is retired before: GOAWAY lets the calls on it end, the client makes its next calls on
 * a new connection, and nghttp2 neither takes new streams on the old one nor ends it.
 */
import {
  constants,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Server } from "@grpc/grpc-js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";

/** Half of nghttp2's, which also counts resets of streams that have ended here. */
const RESET_BURST = 500;
const RESETS_PER_SECOND = 16;

/** Between two looks for connections that are over. */
const LOOK_INTERVAL_MS = 1000;

/** The method of grpc-js that makes its HTTP/2 servers; nothing public leads to them. */
const FACTORY = "createHttp2Server";

/** Node's symbol of a session's native side. */
const HANDLE = "kHandle";

/** For a client to see that its call has been answered before its request was whole. */
const ANSWERED_GRACE_MS = 3000;

/** Streams that a client may reset: a bucket that fills up again. */
export class ResetBudget {
  private left = RESET_BURST;

  /** `nowMs`: of any clock that never goes back. */
  constructor(private takenMs: number) {}

  /** False: spent. */
  take(nowMs: number): boolean {
    const refill = ((nowMs - this.takenMs) / 1000) * RESETS_PER_SECOND;
    this.left = Math.min(RESET_BURST, this.left + refill);
    this.takenMs = nowMs;
    if (this.left < 1) return false;
    this.left -= 1;
    return true;
  }
}

export interface ConnectionOptions {
  maxConnections: number;
  metrics: Metrics;
  logger: Logger;
}

/** Must come before the server binds. */
export function boundConnections(server: Server, options: ConnectionOptions): void {
  const make: unknown = Reflect.get(server, FACTORY);
  if (typeof make !== "function") throw new Error(`@grpc/grpc-js has no ${FACTORY}`);
  Reflect.set(server, FACTORY, (...args: unknown[]) => {
    const http2Server: Http2Server = Reflect.apply(make, server, args);
    bound(http2Server, options);
    return http2Server;
  });
}

function bound(http2Server: Http2Server, { maxConnections, metrics, logger }: ConnectionOptions) {
  http2Server.maxConnections = maxConnections;
  http2Server.on("drop", () => metrics.connections.refused());
  http2Server.on("stream", dropWritesAfterEnd);
  http2Server.on("stream", endOnceAnswered);
  http2Server.on("session", (session) => {
    metrics.connections.opened();
    session.once("close", () => metrics.connections.closed());
    destroyLater(session);
    endWhenOver(session);
    onResets(session, () => {
      metrics.connections.retired();
      logger.debug({ resets: RESET_BURST }, "a connection was retired");
      session.close();
    });
  });
}

/** A stream is open until both sides have ended it, and the client may never end its own. */
function endOnceAnswered(stream: ServerHttp2Stream): void {
  stream.once("finish", () => {
    if (stream.readableEnded) return;
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), ANSWERED_GRACE_MS);
    timer.unref();
    stream.once("close", () => clearTimeout(timer));
  });
}

/** `onSpent` is called once, while the reset that was too much is being read. */
function onResets(session: ServerHttp2Session, onSpent: () => void): void {
  const budget = new ResetBudget(performance.now());
  let spent = false;
  const count = () => {
    if (spent || budget.take(performance.now())) return;
    spent = true;
    session.off("stream", watch);
    onSpent();
  };
  const watch = (stream: ServerHttp2Stream) => {
    stream.once("aborted", count);
    // No "aborted" when the answer was on its way already.
    stream.once("close", () => {
      if (!stream.aborted && stream.rstCode !== 0) count();
    });
  };
  session.on("stream", watch);
}

/**
 * grpc-js ends a stream at its deadline, and for a message that is too large, and then writes what the
 * handler still gives it. Node takes the write for an error after which the stream never ends: the
 * client would wait for the status for ever.
 */
function dropWritesAfterEnd(stream: ServerHttp2Stream): void {
  const { write } = stream;
  const guarded = (...args: unknown[]) =>
    stream.writableEnded ? false : Reflect.apply(write, stream, args);
  Reflect.set(stream, "write", guarded);
}

/**
 * Node destroys a session from within nghttp2's reading of what came, when a header is invalid or a
 * GOAWAY holds an error. nghttp2 before 1.68.1 may then stop the process with a failed assertion
 * (CVE-2026-27135): any peer could end the server. Here a session goes when the reading is over.
 */
function destroyLater(session: ServerHttp2Session): void {
  const { destroy } = session;
  const later = (...args: unknown[]) => {
    setImmediate(() => Reflect.apply(destroy, session, args));
  };
  Reflect.set(session, "destroy", later);
}

/**
 * nghttp2 ends a connection that breaks the protocol, but tells nobody: it says GOAWAY and neither
 * reads nor writes again, so that not even the end of the socket is seen. Left alone, its calls would
 * go on until the keepalive.
 */
function endWhenOver(session: ServerHttp2Session): void {
  const look = setInterval(() => {
    if (!wantsMore(session)) session.destroy();
  }, LOOK_INTERVAL_MS).unref();
  session.once("close", () => clearInterval(look));
}

/** What nghttp2 says; nothing public asks it. */
function wantsMore(session: ServerHttp2Session): boolean {
  const symbol = Object.getOwnPropertySymbols(session).find(
    ({ description }) => description === HANDLE,
  );
  const handle: unknown = symbol && Reflect.get(session, symbol);
  if (typeof handle !== "object" || handle === null) return true;
  const ask: unknown = Reflect.get(handle, "hasPendingData");
  return typeof ask !== "function" || Reflect.apply(ask, handle, []) === true;
}
