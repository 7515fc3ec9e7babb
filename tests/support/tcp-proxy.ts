/** A wire between a client and a server that can be cut, or go dead without a word. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class TcpProxy {
  /** Taken since the start. */
  connections = 0;
  /** Most connections of clients that were open at the same time. */
  mostOpen = 0;
  private open = 0;
  private readonly sockets = new Set<Socket>();

  private constructor(
    private readonly server: Server,
    /** `HOST:PORT` for clients. */
    readonly address: string,
  ) {}

  /** `target`: `HOST:PORT`. */
  static async start(target: string): Promise<TcpProxy> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const proxy = new TcpProxy(server, `127.0.0.1:${port}`);
    server.on("connection", (client) => {
      proxy.count(client);
      const upstream = connect(Number(target.slice(target.lastIndexOf(":") + 1)), "127.0.0.1");
      for (const socket of [client, upstream]) {
        proxy.sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => proxy.sockets.delete(socket));
      }
      client.pipe(upstream).pipe(client);
    });
    return proxy;
  }

  private count(client: Socket): void {
    this.connections += 1;
    this.open += 1;
    this.mostOpen = Math.max(this.mostOpen, this.open);
    client.once("close", () => {
      this.open -= 1;
    });
  }

  /** Both ends get a TCP reset. */
  reset(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  /** Nothing passes any more, and neither end is told. */
  freeze(): void {
    for (const socket of this.sockets) socket.unpipe().pause();
  }

  close(): Promise<unknown> {
    const closed = once(this.server, "close");
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
    return closed;
  }
}
