/**
 * A collector of traces: an HTTP server that decodes OTLP with a schema of its own, field numbers
 * as in opentelemetry-proto.
 */
import { createServer, type Server } from "node:http";
import protobuf from "protobufjs";

const SCHEMA = `syntax = "proto3";
message Request { repeated ResourceSpans resource_spans = 1; }
message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
message Resource { repeated KeyValue attributes = 1; }
message ScopeSpans { repeated Span spans = 2; }
message Span {
  bytes trace_id = 1;
  bytes span_id = 2;
  bytes parent_span_id = 4;
  string name = 5;
  int32 kind = 6;
  fixed64 start_time_unix_nano = 7;
  fixed64 end_time_unix_nano = 8;
  repeated KeyValue attributes = 9;
  Status status = 15;
}
message Status { string message = 2; int32 code = 3; }
message KeyValue { string key = 1; AnyValue value = 2; }
message AnyValue {
  oneof value {
    string string_value = 1;
    bool bool_value = 2;
    int64 int_value = 3;
    double double_value = 4;
    ArrayValue array_value = 5;
  }
}
message ArrayValue { repeated AnyValue values = 1; }`;

type Value = string | number | boolean | Value[];

interface WireValue {
  stringValue?: string;
  boolValue?: boolean;
  intValue?: string;
  doubleValue?: number;
  arrayValue?: { values: WireValue[] };
}

/** Bytes are base64. */
interface WireSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: WireValue }[];
  status: { code: number; message: string } | null;
}

export interface ReceivedSpan {
  /** Hexadecimal. */
  traceId: string;
  spanId: string;
  /** Empty: a root. */
  parentSpanId: string;
  name: string;
  /** 2: server; 1: internal. */
  kind: number;
  /** Since the epoch. */
  startNs: bigint;
  endNs: bigint;
  attributes: Record<string, Value>;
  /** 0: unset, 2: error. */
  status: number;
  resource: Record<string, Value>;
}

export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = [];
  readonly paths: string[] = [];
  readonly headers: Record<string, unknown>[] = [];
  /** As they came. */
  readonly bodies: Buffer[] = [];
  private readonly request = protobuf.parse(SCHEMA).root.lookupType("Request");

  private constructor(
    private readonly server: Server,
    readonly port: number,
  ) {}

  /** `answers` false: takes requests and says nothing. */
  static async start(answers = true): Promise<OtlpReceiver> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const receiver = new OtlpReceiver(server, port);
    server.on("request", (request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part) => parts.push(part));
      request.on("end", () => {
        receiver.paths.push(request.url ?? "");
        receiver.headers.push(request.headers);
        receiver.take(Buffer.concat(parts));
        if (answers) response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
      });
    });
    return receiver;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The only span of that name. */
  span(name: string): ReceivedSpan {
    const [found, ...more] = this.spans.filter((span) => span.name === name);
    if (!found || more.length > 0) {
      throw new Error(`${more.length + (found ? 1 : 0)} spans are called ${name}`);
    }
    return found;
  }

  /** In order of their start. */
  children({ spanId }: ReceivedSpan): ReceivedSpan[] {
    const found = this.spans.filter(({ parentSpanId }) => parentSpanId === spanId);
    return found.sort((a, b) => Number(a.startNs - b.startNs));
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private take(body: Buffer): void {
    this.bodies.push(body);
    const { resourceSpans } = this.request.toObject(this.request.decode(body), {
      longs: String,
      bytes: String,
      arrays: true,
      defaults: true,
    });
    for (const { resource, scopeSpans } of resourceSpans) {
      const described = attributesOf(resource.attributes);
      for (const { spans } of scopeSpans) {
        this.spans.push(...spans.map((span: WireSpan) => received(span, described)));
      }
    }
  }
}

function received(span: WireSpan, resource: Record<string, Value>): ReceivedSpan {
  return {
    traceId: hex(span.traceId),
    spanId: hex(span.spanId),
    parentSpanId: hex(span.parentSpanId),
    name: span.name,
    kind: span.kind,
    startNs: BigInt(span.startTimeUnixNano),
    endNs: BigInt(span.endTimeUnixNano),
    attributes: attributesOf(span.attributes),
    status: span.status?.code ?? 0,
    resource,
  };
}

function hex(base64: string): string {
  return Buffer.from(base64, "base64").toString("hex");
}

function attributesOf(pairs: readonly { key: string; value: WireValue }[]): Record<string, Value> {
  return Object.fromEntries(pairs.map(({ key, value }) => [key, plain(value)]));
}

function plain(value: WireValue): Value {
  if (value.arrayValue) return value.arrayValue.values.map(plain);
  if (value.intValue !== undefined) return Number(value.intValue);
  return value.stringValue ?? value.boolValue ?? value.doubleValue ?? "";
}
