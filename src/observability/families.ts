/** Makes metrics with the prefix of the service, in one registry. */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

const PREFIX = "llamasteer_";

export class Families {
  constructor(readonly registry: Registry) {}

  gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name: PREFIX + name, help, labelNames, registers: [this.registry] });
  }

  counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: PREFIX + name, help, labelNames, registers: [this.registry] });
  }

  histogram(name: string, help: string, buckets: number[], labelNames: string[] = []): Histogram {
    const registers = [this.registry];
    return new Histogram({ name: PREFIX + name, help, buckets, labelNames, registers });
  }
}
