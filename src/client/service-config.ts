/**
 * How calls are spread over replicas, and which are sent again: a gRPC service config, as clients in
 * any language take it. docs/deployment.md prints it.
 */
import type { ServiceConfig } from "@grpc/grpc-js";

/** gRPC's own bound. */
export const MAX_ATTEMPTS = 5;

/** Their second attempt would not find what the first has removed. */
const NEVER_AGAIN = [
  { service: "llamasteer.v1.VectorService", method: "DeleteVector" },
  { service: "llamasteer.v1.ProbeService", method: "DeleteProbe" },
];

/**
 * Calls take turns at all addresses. With `maxAttempts` above 1 a call is sent again while servers
 * are UNAVAILABLE, unless its answer has begun: a stream that gave tokens is never repeated.
 */
export function serviceConfig(maxAttempts: number): ServiceConfig {
  const retryPolicy = {
    maxAttempts,
    initialBackoff: "0.1s",
    maxBackoff: "2s",
    backoffMultiplier: 2,
    retryableStatusCodes: ["UNAVAILABLE"],
  };
  return {
    loadBalancingConfig: [{ round_robin: {} }],
    methodConfig: maxAttempts > 1 ? [{ name: [{}], retryPolicy }, { name: NEVER_AGAIN }] : [],
  };
}
