/** Connections of gRPC clients. */
import type { Families } from "./families.js";

export class ConnectionMetrics {
  private readonly open;
  private readonly retirements;
  private readonly refusals;

  constructor(families: Families) {
    this.open = families.gauge("connections", "HTTP/2 connections of clients");
    this.retirements = families.counter(
      "connections_retired_total",
      "Connections that were told to end because too many of their calls were cancelled",
    );
    this.refusals = families.counter(
      "connections_refused_total",
      "Connections over --max-connections, closed at once",
    );
  }

  opened(): void {
    this.open.inc();
  }

  closed(): void {
    this.open.dec();
  }

  retired(): void {
    this.retirements.inc();
  }

  refused(): void {
    this.refusals.inc();
  }
}
