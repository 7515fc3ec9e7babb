/** /metrics for Prometheus; /livez, /readyz, /startupz for Kubernetes. GET and HEAD only. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

export interface Probes {
  /** Null: the probe passes; else why it does not. */
  live: () => string | null;
  ready: () => string | null;
  started: () => string | null;
  metrics: () => Promise<string>;
  metricsContentType: string;
}

const REQUEST_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 256;

export class HttpServer implements AsyncDisposable {
  private constructor(
    private readonly server: Server,
    /** In force; not 0. */
    readonly port: number,
  ) {}

  /** `port` 0: a free one. Rejects when the address cannot be had. */
  static async listen(host: string, port: number, probes: Probes): Promise<HttpServer> {
    const server = createServer((request, response) => {
      answer(request, response, probes).catch(() => {
        if (!response.headersSent) send(response, 500, "internal error");
        else response.destroy();
      });
    });
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.headersTimeout = REQUEST_TIMEOUT_MS;
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, () => {
        server.off("error", reject);
        resolve();
      });
    });
    const address = server.address();
    return new HttpServer(server, typeof address === "object" && address ? address.port : port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeAllConnections();
    await closed;
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  probes: Probes,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    send(response, 405, "only GET and HEAD");
    return;
  }
  const path = (request.url ?? "/").split("?", 1)[0];
  switch (path) {
    case "/metrics":
      send(response, 200, await probes.metrics(), probes.metricsContentType);
      break;
    case "/livez":
      probe(response, probes.live());
      break;
    case "/readyz":
      probe(response, probes.ready());
      break;
    case "/startupz":
      probe(response, probes.started());
      break;
    default:
      send(response, 404, "not found: /metrics, /livez, /readyz, /startupz");
  }
}

function probe(response: ServerResponse, failure: string | null): void {
  send(response, failure === null ? 200 : 503, failure ?? "ok");
}

function send(
  response: ServerResponse,
  status: number,
  body: string,
  contentType = "text/plain; charset=utf-8",
): void {
  response.writeHead(status, {
    "content-type": contentType,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  });
  response.end(response.req.method === "HEAD" ? undefined : body);
}
