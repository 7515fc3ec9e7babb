/** The standard variables of OpenTelemetry that stand for options of the server; its own win. */
import { ConfigError } from "./config-error.js";

export interface StandardOption {
  /** In the schema. */
  key: "otlpEndpoint" | "otlpTimeoutSeconds" | "traceSampleRatio";
  /** Of the variable. */
  name: string;
  value: unknown;
}

/** Samplers that go by a ratio, and what they stand for without an argument. */
const RATIO_SAMPLERS = new Set(["traceidratio", "parentbased_traceidratio"]);
const FIXED_SAMPLERS = new Map([
  ["always_on", 1],
  ["parentbased_always_on", 1],
  ["always_off", 0],
  ["parentbased_always_off", 0],
]);

/** Nothing without an endpoint, or when the variables say that nothing is to be exported. */
export function standardTraceOptions(environment: NodeJS.ProcessEnv): StandardOption[] {
  const first = (...names: string[]): [name: string, value: string] | null => {
    const name = names.find((each) => (environment[each] ?? "") !== "");
    return name === undefined ? null : [name, environment[name] ?? ""];
  };
  if (environment["OTEL_SDK_DISABLED"]?.toLowerCase() === "true") return [];
  if (environment["OTEL_TRACES_EXPORTER"] === "none") return [];
  const options: StandardOption[] = [];
  const endpoint = first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
  if (endpoint) {
    const protocol = first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
    if (protocol && protocol[1] !== "http/protobuf") {
      throw new ConfigError(`${protocol[0]}: only http/protobuf is spoken, not ${protocol[1]}`);
    }
    options.push({ key: "otlpEndpoint", name: endpoint[0], value: endpoint[1] });
  }
  const timeout = first("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
  if (timeout) {
    const [name, milliseconds] = timeout;
    options.push({ key: "otlpTimeoutSeconds", name, value: Number(milliseconds) / 1000 });
  }
  const sampler = environment["OTEL_TRACES_SAMPLER"] ?? "";
  const fixed = FIXED_SAMPLERS.get(sampler);
  const value = RATIO_SAMPLERS.has(sampler) ? environment["OTEL_TRACES_SAMPLER_ARG"] : fixed;
  if (value !== undefined) {
    const name = fixed === undefined ? "OTEL_TRACES_SAMPLER_ARG" : "OTEL_TRACES_SAMPLER";
    options.push({ key: "traceSampleRatio", name, value });
  }
  return options;
}
